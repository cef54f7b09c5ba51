"""Simulated micrographs written as folders to train from: labelled, or in pairs of input and target."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from emfm.data.io import write_image, write_text
from emfm.data.simulate import NanoparticleParameters, simulate_nanoparticles
from emfm.data.simulate_stem import StemParameters, simulate_stem
from emfm.errors import EMError

KINDS = ("nanoparticles", "atomic-stem")
LABELS = {"0": "background", "255": "particle"}
# Task: which image of `SimulatedStem` is its target.
STEM_TARGETS = {"denoising": "clean", "background-removal": "background_free", "super-resolution": "finer"}


def write_simulated_folder(
    kind: str,
    folder: Path,
    count: int,
    shape: tuple[int, int],
    seed: int,
    parameters: NanoparticleParameters | StemParameters | None = None,
) -> Path:
    """Write simulated micrographs with their truth and `splits.json`.

    "nanoparticles" makes a labelled folder: `images/` (16-bit TIFF with pixel size), `masks/` (PNG), `labels.json`.
    "atomic-stem" makes a folder of pairs for each restoration task, `denoising/`, `background-removal/` and
    `super-resolution/`: `images/` (16-bit TIFF) and `targets/` (32-bit TIFF in the same counts, without noise; those of
    super-resolution have twice as many pixels a side).

    A sixth of the images, at least one, is the "validation" split and as many the "test" split.

    Args:
        kind: "nanoparticles" or "atomic-stem".
        folder: where to write; must not hold images yet.
        count: number of images, at least 3.
        shape: (height, width) in pixels.
        seed: image i is simulated from (seed, i).
        parameters: ranges of the simulation, of the kind's own class.

    Raises:
        EMError: the kind is unknown, the count too small, or the folder is in use.
    """
    if kind not in KINDS:
        raise EMError(f"cannot simulate '{kind}'; expected {', '.join(KINDS)}")
    if count < 3:
        raise EMError(f"count is {count}; expected at least 3, one for each split")
    parts = [folder / task for task in STEM_TARGETS] if kind == "atomic-stem" else [folder]
    if any((part / "images").exists() for part in parts):
        raise EMError(f"{folder} holds images already: choose another folder")
    names = [f"{kind}_{index:04d}.tif" for index in range(count)]
    if isinstance(parameters, StemParameters) or (parameters is None and kind == "atomic-stem"):
        _write_stem(folder, names, shape, seed, parameters)
    else:
        _write_nanoparticles(folder, names, shape, seed, parameters or NanoparticleParameters())
    held_out = max(1, count // 6)
    splits = {
        "train": names[: -2 * held_out],
        "validation": names[-2 * held_out : -held_out],
        "test": names[-held_out:],
    }
    for part in parts:
        write_text(part / "splits.json", json.dumps(splits, indent=1))
    return folder


def _named_seeds(names: list[str], seed: int) -> Iterator[tuple[str, int]]:
    for index, name in enumerate(tqdm(names, desc="simulating", unit="image", leave=False)):
        yield name, int(np.random.SeedSequence((seed, index)).generate_state(1)[0])


def _write_nanoparticles(
    folder: Path, names: list[str], shape: tuple[int, int], seed: int, parameters: NanoparticleParameters
) -> None:
    for name, image_seed in _named_seeds(names, seed):
        micrograph = simulate_nanoparticles(shape, image_seed, parameters)
        write_image(folder / "images" / name, micrograph.image, micrograph.pixel_size)
        write_image(folder / "masks" / name.replace(".tif", ".png"), micrograph.mask * np.uint8(255))
    write_text(folder / "labels.json", json.dumps(LABELS, indent=1))


def _write_stem(
    folder: Path, names: list[str], shape: tuple[int, int], seed: int, parameters: StemParameters | None
) -> None:
    for name, image_seed in _named_seeds(names, seed):
        micrograph = simulate_stem(shape, image_seed, parameters)
        for task, target in STEM_TARGETS.items():
            truth = getattr(micrograph, target)
            pixel_size = micrograph.pixel_size * micrograph.image.shape[0] / truth.shape[0]
            write_image(folder / task / "images" / name, micrograph.image, micrograph.pixel_size)
            write_image(folder / task / "targets" / name, truth, pixel_size)
