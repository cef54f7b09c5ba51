"""Simulated micrographs as folders to train from: labelled, or pairs of input and target."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from emfm.errors import EMError
from emfm.files import writable_folder, write_atomically, write_text
from emfm.io.writing import write_image
from emfm.simulate import SimulateArguments
from emfm.simulate.nanoparticles import NanoparticleParameters, simulate_nanoparticles
from emfm.simulate.stem import SimulatedStem, StemParameters, simulate_stem
from emfm.simulate.structures import MOST_CLASSES, simulate_structures

LABELS = {"0": "background", "255": "particle"}
LABELS_OF = {
    "nanoparticles": LABELS,
    "structures": {str(index): f"structure {index}" for index in range(MOST_CLASSES)},
}
Parameters = NanoparticleParameters | StemParameters
# Seconds. A thread that wrote a file gets Python's lock back sooner: a third faster.
SWITCH_INTERVAL = 1e-4
# Task: which image of `SimulatedStem` is its target.
STEM_TARGETS = {"denoising": "clean", "background-removal": "background_free", "super-resolution": "finer"}


def write_simulated_folder(
    kind: str,
    folder: Path,
    count: int,
    shape: tuple[int, int],
    seed: int,
    parameters: Parameters | None = None,
) -> Path:
    """Write simulated micrographs with their truth and `splits.json`.

    "nanoparticles" makes a labelled folder: `images/` (16-bit TIFF with pixel size), `masks/`
    (PNG), `labels.json`. "atomic-stem" makes a folder of pairs for each restoration task,
    `denoising/`, `background-removal/` and `super-resolution/`: `images/` (16-bit TIFF) and
    `targets/` (32-bit, same counts, no noise; twice the pixels a side for super-resolution).
    "structures" makes a labelled folder whose classes mean something within one image alone.

    A sixth of the images, at least one, is the "validation" split and as many the "test" split.

    Args:
        kind: one of `emfm.simulate.KINDS`.
        folder: where to write; must not hold images yet.
        count: number of images, at least 3.
        shape: (height, width) in pixels.
        seed: image i is simulated from (seed, i).
        parameters: ranges of the simulation, of the kind's own class; "structures" has none.

    Raises:
        EMError: the kind is unknown, the count too small, or the folder is in use.
    """
    for side in shape:
        SimulateArguments(kind, count, side, seed)  # which checks them
    writable_folder(folder)
    parts = [folder / task for task in STEM_TARGETS] if kind == "atomic-stem" else [folder]
    for name in ("images", "masks", "targets", "labels.json", "splits.json"):
        if any((part / name).exists() for part in parts):
            raise EMError(f"{folder} holds {name} already: choose another folder")
    names = [f"{kind}_{index:04d}.tif" for index in range(count)]
    _write_all(names, seed, partial(_write_one, kind, folder, shape, parameters))
    if kind in LABELS_OF:
        write_text(folder / "labels.json", json.dumps(LABELS_OF[kind], indent=1))
    held_out = max(1, count // 6)
    train, validation, test = names[: -2 * held_out], names[-2 * held_out : -held_out], names[-held_out:]
    splits = {"train": train, "validation": validation, "test": test}
    for part in parts:
        write_text(part / "splits.json", json.dumps(splits, indent=1))
    return folder


def _write_all(names: list[str], seed: int, write: Callable[[str, int], None]) -> None:
    """Call `write(name, the image's own seed)` for every image, on threads of all processors."""
    seeds = [int(np.random.SeedSequence((seed, index)).generate_state(1)[0]) for index in range(len(names))]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            written = pool.map(write, names, seeds)  # an error cancels what has not begun
            for _ in tqdm(written, desc="simulating", total=len(names), unit="image", leave=False):
                pass
    finally:
        sys.setswitchinterval(interval)


def _write_one(
    kind: str, folder: Path, shape: tuple[int, int], parameters: Parameters | None, name: str, seed: int
) -> None:
    """Simulate one micrograph and write its files."""
    mask_name = f"{Path(name).stem}.png"
    if isinstance(parameters, StemParameters) or (parameters is None and kind == "atomic-stem"):
        _write_pairs(folder, name, simulate_stem(shape, seed, parameters))
    elif kind == "structures":
        structures = simulate_structures(shape, seed)
        write_image(folder / "images" / name, structures.image)
        write_image(folder / "masks" / mask_name, structures.mask)
    else:
        micrograph = simulate_nanoparticles(shape, seed, parameters or NanoparticleParameters())
        write_image(folder / "images" / name, micrograph.image, micrograph.pixel_size)
        write_image(folder / "masks" / mask_name, micrograph.mask * np.uint8(255))


def _write_pairs(folder: Path, name: str, micrograph: SimulatedStem) -> None:
    images = [folder / task / "images" / name for task in STEM_TARGETS]
    write_image(images[0], micrograph.image, micrograph.pixel_size)
    for copy in images[1:]:  # encoding it anew would take longer
        write_atomically(copy, partial(shutil.copyfile, images[0]))
    for task, target in STEM_TARGETS.items():
        truth = getattr(micrograph, target)
        pixel_size = micrograph.pixel_size * micrograph.image.shape[0] / truth.shape[0]
        write_image(folder / task / "targets" / name, truth, pixel_size)
