"""Clean targets for the models that are used as they are: micrographs in three sizes, and simulated ones.

Averaging pixels takes noise away and gives other pixel sizes, of which a model should know
several.
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from emfm.io.reading import list_micrographs, read_micrograph
from emfm.simulate.folder import write_simulated_folder

# Smallest sides that are kept of a full, a half and a quarter size.
SIDES = {"": 224, "_half": 120, "_quarter": 200}
# Of slices that follow each other one of four is taken: neighbours show nearly the same.
SERIES, EVERY = "contiguous", 4
# One of so many micrographs is held out; so many of these, up to a side, choose the best step.
HELD_OUT, CHOOSE, CHOOSE_SIDE = 25, 12, 280
SIMULATED, SIMULATED_SIDE = 20, 256


def write_clean_folder(data: Path, sources: Sequence[str], kinds: Sequence[str], folder: Path) -> None:
    """Write `images/` and `splits.json` from folders of unlabelled micrographs and simulated ones."""
    (folder / "images").mkdir(parents=True)
    held: dict[str, bool] = {}
    for source in sources:
        for path in list_micrographs(data / source):
            if not (path.stem.startswith(SERIES) and int(path.stem[-3:]) % EVERY):
                _write(folder, f"{source}_{path.stem}", np.asarray(read_micrograph(path).image), path.name, held)
    for kind in kinds:
        write_simulated_folder(kind, folder / kind, SIMULATED, (SIMULATED_SIDE,) * 2, 0)
        for path in list_micrographs(folder / kind / "denoising" / "targets"):
            pixels = np.asarray(read_micrograph(path).image, dtype=np.float64)
            pixels = np.rint((pixels - pixels.min()) / np.ptp(pixels) * 255).astype(np.uint8)
            _write(folder, path.stem, pixels, path.name, held, {"": SIDES[""]})
    choose = [name for name in sorted(held) if held[name] and _side(folder / "images" / name) <= CHOOSE_SIDE]
    choose = choose[:: max(1, len(choose) // CHOOSE)][:CHOOSE]
    splits = {
        "train": sorted(name for name in held if not held[name]),
        "validation": choose,
        "test": sorted(name for name in held if held[name] and name not in choose),
    }
    (folder / "splits.json").write_text(json.dumps(splits), encoding="utf-8")


def _write(
    folder: Path, stem: str, pixels: np.ndarray, key: str, held: dict[str, bool], sides: dict[str, int] = SIDES
) -> None:
    """Write a micrograph in all sizes; the key of its file decides for all of them whether they are held out."""
    for (suffix, least), image in zip(sides.items(), _sizes(pixels), strict=False):
        if min(image.shape) >= least:
            Image.fromarray(image).save(folder / "images" / f"{stem}{suffix}.png")
            held[f"{stem}{suffix}.png"] = zlib.crc32(key.encode()) % HELD_OUT == 0


def _sizes(pixels: np.ndarray) -> Iterator[np.ndarray]:
    while True:
        yield pixels
        height, width = (length // 2 for length in pixels.shape)
        blocks = pixels[: 2 * height, : 2 * width].reshape(height, 2, width, 2)
        pixels = np.rint(blocks.mean(axis=(1, 3))).astype(pixels.dtype)


def _side(path: Path) -> int:
    with Image.open(path) as image:
        return max(image.size)
