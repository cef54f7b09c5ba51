"""Simulated micrographs written as a labelled folder."""

import json
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from emfm.data.io import write_image, write_text
from emfm.data.simulate import NanoparticleParameters, simulate_nanoparticles
from emfm.errors import EMError

KINDS = ("nanoparticles",)
LABELS = {"0": "background", "255": "particle"}


def write_simulated_folder(
    kind: str,
    folder: Path,
    count: int,
    shape: tuple[int, int],
    seed: int,
    parameters: NanoparticleParameters | None = None,
) -> Path:
    """Write `images/` (16-bit TIFF with pixel size), `masks/` (PNG), `labels.json` and `splits.json`.

    A sixth of the images, at least one, is the "validation" split and as many the "test" split.

    Args:
        kind: "nanoparticles".
        folder: where to write; must not hold images yet.
        count: number of images, at least 3.
        shape: (height, width) in pixels.
        seed: image i is simulated from (seed, i).
        parameters: ranges of the simulation.

    Raises:
        EMError: the kind is unknown, the count too small, or the folder is in use.
    """
    if kind not in KINDS:
        raise EMError(f"cannot simulate '{kind}'; expected {', '.join(KINDS)}")
    if count < 3:
        raise EMError(f"count is {count}; expected at least 3, one for each split")
    if (folder / "images").exists():
        raise EMError(f"{folder} holds images already: choose another folder")
    parameters = parameters or NanoparticleParameters()
    names = [f"{kind}_{index:04d}.tif" for index in range(count)]
    for index, name in enumerate(tqdm(names, desc="simulating", unit="image", leave=False)):
        image_seed = int(np.random.SeedSequence((seed, index)).generate_state(1)[0])
        micrograph = simulate_nanoparticles(shape, image_seed, parameters)
        write_image(folder / "images" / name, micrograph.image, micrograph.pixel_size)
        write_image(folder / "masks" / name.replace(".tif", ".png"), micrograph.mask * np.uint8(255))
    held_out = max(1, count // 6)
    splits = {
        "train": names[: -2 * held_out],
        "validation": names[-2 * held_out : -held_out],
        "test": names[-held_out:],
    }
    write_text(folder / "labels.json", json.dumps(LABELS, indent=1))
    write_text(folder / "splits.json", json.dumps(splits, indent=1))
    return folder
