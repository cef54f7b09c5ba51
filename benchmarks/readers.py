"""Every micrograph of a folder through emfm's readers and through the reference of its format.

`python -m benchmarks.readers FOLDER [--json]` compares arrays and pixel sizes, and ends with exit
code 1 where one differs. The references are rosettasciio (DM, SER, EMD; the calibration of TIFF),
mrcfile, tifffile, Pillow, h5py, Zarr and NumPy. Needs emfm's extra `em`.
"""

import argparse
import json
import math
import sys
import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.reference_readers import Image, NotAnImageError, reference_images
from emfm.errors import EMError, UnsupportedFileError
from emfm.io.reading import SUFFIXES, list_micrographs, read_stack

SAME_SIZE = 0.01  # relative difference of pixel sizes that is none: they are stored as float32
OUTCOMES = ("equal", "refused rightly", "not supported", "refused", "different", "no reference")


@dataclass(frozen=True)
class Outcome:
    """How one image of one file was read."""

    file: str
    image: str | None  #: which of several
    outcome: str  #: one of `OUTCOMES`
    why: str = ""


def compare(path: Path, shown: str) -> list[Outcome]:
    """Read all images of a file both ways."""
    try:
        references = reference_images(path)
    except NotAnImageError as reason:
        return [_without(path, shown, str(reason), rightly=True)]
    except Exception as error:  # whatever a library raises on a damaged file
        return [_without(path, shown, f"{type(error).__name__}: {error}", rightly=False)]
    return [_outcome(path, shown, image) for image in references]


def _without(path: Path, shown: str, why: str, rightly: bool) -> Outcome:
    """Return the outcome where the reference has no image to give."""
    try:
        list(read_stack(path))
    except EMError as error:
        return Outcome(shown, None, "refused rightly", f"{error} | reference: {why}")
    return Outcome(shown, None, "different" if rightly else "no reference", why)


def _outcome(path: Path, shown: str, reference: Image) -> Outcome:
    try:
        slices = list(read_stack(path, dataset=reference.dataset, colour=reference.colour))
    except UnsupportedFileError as error:
        return Outcome(shown, reference.dataset, "not supported", str(error))
    except EMError as error:
        outcome = "refused" if reference.complaint is None else "refused rightly"
        return Outcome(shown, reference.dataset, outcome, f"{error} | reference: {reference.complaint}")
    found = np.stack([np.asarray(one.image) for one in slices])
    wanted = np.asarray(reference.array)
    wanted = wanted.reshape(-1, *wanted.shape[-2:])
    if found.shape != wanted.shape:
        return Outcome(shown, reference.dataset, "different", f"shape {found.shape}, reference {wanted.shape}")
    if found.dtype != wanted.dtype.newbyteorder("="):
        return Outcome(shown, reference.dataset, "different", f"dtype {found.dtype}, reference {wanted.dtype}")
    exact = 0 if reference.colour is None else 1e-9  # sums of three products have an order
    real = found.dtype.kind == "f"
    if not (np.allclose(found, wanted, exact, 0, equal_nan=True) if real else np.array_equal(found, wanted)):
        share = float((found != wanted).mean())
        return Outcome(shown, reference.dataset, "different", f"{share:.2%} of the pixels differ")
    size, expected = slices[0].pixel_size, reference.pixel_size
    if not _same(size, expected):
        return Outcome(shown, reference.dataset, "different", f"pixel size {size} nm, reference {expected} nm")
    return Outcome(shown, reference.dataset, "equal")


def _same(size: float | None, expected: float | None) -> bool:
    if expected is not None and math.isnan(expected):
        return True
    if size is None or expected is None:
        return size is expected
    return math.isclose(size, expected, rel_tol=SAME_SIZE)


def counts(outcomes: list[Outcome]) -> dict[str, dict[str, int]]:
    """Return how often each outcome occurs, by suffix and in all."""
    table: dict[str, Counter[str]] = {}
    for one in outcomes:
        for row in (Path(one.file).suffix.lower(), "all"):
            table.setdefault(row, Counter())[one.outcome] += 1
    rows = sorted(table, key=lambda row: (row == "all", row))
    return {row: {outcome: table[row][outcome] for outcome in OUTCOMES} for row in rows}


def main() -> None:
    """Compare, and print the table and what differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="searched with its sub-folders")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    outcomes: list[Outcome] = []
    for path in list_micrographs(given.folder, SUFFIXES):
        outcomes += compare(path, path.relative_to(given.folder).as_posix())
    table = counts(outcomes)
    if given.json:
        sys.stdout.write(json.dumps({"counts": table, "images": [asdict(one) for one in outcomes]}, indent=1) + "\n")
    else:
        for row, cells in table.items():
            sys.stdout.write(f"{row:<8}" + "  ".join(f"{name} {count}" for name, count in cells.items()) + "\n")
        for one in outcomes:
            if one.outcome != "equal":
                sys.stdout.write(f"{one.outcome}: {one.file} {one.image or ''}: {one.why}\n")
    sys.exit(int(table["all"]["different"] > 0 or table["all"]["refused"] > 0))


if __name__ == "__main__":
    main()
