"""Turn CEM500K (half a million unlabelled patches of cellular electron micrographs) into a dataset folder for the Hub.

    python hub_scripts/prepare_cem500k.py DOWNLOAD --output FOLDER [--num-images 200000] [--dry-run]

DOWNLOAD holds the unpacked 8-bit TIFF files of https://www.ebi.ac.uk/empiar/EMPIAR-10592/, in folders or not.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from download_files import contents, shuffled
from prepare_command import SOURCES, Prepared, command_line, preparation_parser, run_preparation

from emfm.errors import EMError
from emfm.hub.datasets.card import DatasetCard
from emfm.hub.datasets.encoded_image import EncodedImage, kept_file


def tiff_names(root: Path) -> list[str]:
    """Return the paths of the TIFF files below a folder, relative to it and sorted; an EMError if there is none."""
    names = []
    for folder, _, files in os.walk(root):  # strings: half a million Path objects take several times the memory
        below = os.path.relpath(folder, root)
        names += [os.path.normpath(f"{below}/{name}") for name in files if name.lower().endswith((".tif", ".tiff"))]
    if not names:
        raise EMError(f"{root} holds no .tif or .tiff file but {contents(root)}; expected the unpacked EMPIAR-10592")
    return sorted(names)


def prepare(arguments: argparse.Namespace) -> Prepared:
    """Draw the splits: test, validation, then train, so that a small training set is the beginning of a larger one."""
    root, held_out = arguments.download, arguments.num_held_out
    drawn = shuffled(tiff_names(root), arguments.seed)
    available = len(drawn) - 2 * held_out
    wanted = available if arguments.num_images is None else arguments.num_images
    if not 1 <= wanted <= available or held_out < 1:
        raise EMError(
            f"{root} holds {len(drawn)} images; {held_out} each for validation and test and {wanted} for training do "
            f"not fit: expected --num-images from 1 to {max(0, available)} and --num-held-out from 1"
        )

    def row(name: str) -> dict[str, EncodedImage]:
        image = kept_file(root / name)
        if image.dtype != "uint8":
            raise EMError(f"{root / name} is {image.dtype}; CEM500K is uint8: keep other files out of {root}")
        return {"image": image}

    notes = """The files are unchanged, in an order drawn by the seed. Subsets of one seed share validation and test,
and the smaller is the beginning of the larger. Patches of one specimen may be in several splits."""
    title = "CEM500K" if arguments.num_images is None else f"CEM500K, {wanted:,} images for training"
    card = DatasetCard(title=title, **SOURCES["cem500k"], made_by=command_line(__file__, arguments), notes=notes)
    train = drawn[2 * held_out :][:wanted]
    splits = {"train": train, "validation": drawn[held_out : 2 * held_out], "test": drawn[:held_out]}
    return Prepared(splits, row, card)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = preparation_parser(__doc__)
    parser.add_argument("--num-images", type=int, help="for training, as 50000, 100000 or 200000 (default all)")
    parser.add_argument("--num-held-out", type=int, default=5000, help="each for validation and test (default 5000)")
    parser.add_argument("--seed", type=int, default=0, help="draws the splits and subsets (default 0)")
    return run_preparation(parser, prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
