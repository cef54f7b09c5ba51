"""Turn EMPS (electron micrographs of particles, with segmentations) into a dataset folder for the Hub.

    python hub_scripts/prepare_emps.py DOWNLOAD --lists LISTS --output FOLDER [--dry-run]

DOWNLOAD is https://github.com/by256/emps with images/ and segmaps/, LISTS the folder emps/ of
https://github.com/by256/bpartis with train.csv and test.csv: file names without suffix, one a line.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from download_files import contents, grey_file, shuffled
from prepare_command import SOURCES, Prepared, command_line, preparation_parser, run_preparation

from emfm.errors import EMError
from emfm.hub.datasets.card import DatasetCard
from emfm.hub.datasets.encoded_image import EncodedImage, encode_image
from emfm.io.reading import read_micrograph


def listed_names(root: Path, path: Path) -> list[str]:
    """Return the names in a list; an EMError if the list, an image or a segmentation is missing."""
    if not path.is_file():
        raise EMError(f"there is no {path}; --lists is the folder emps/ of github.com/by256/bpartis")
    names = path.read_text(encoding="utf-8").split()
    files = [root / folder / f"{name}.png" for name in names for folder in ("images", "segmaps")]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise EMError(f"{path} names {missing[0]}, which is missing ({len(missing)} in all); found {contents(root)}")
    return names


def prepare(arguments: argparse.Namespace) -> Prepared:
    """Read the lists and draw the validation set from the training list."""
    root, count = arguments.download, arguments.num_validation
    train, test = (listed_names(root, arguments.lists / f"{split}.csv") for split in ("train", "test"))
    if not 1 <= count < len(train):
        raise EMError(f"--num-validation is {count}; expected 1 to {len(train) - 1}, fewer than the training list has")
    drawn = shuffled(train, arguments.seed)

    def row(name: str) -> dict[str, EncodedImage]:
        image = grey_file(root / "images" / f"{name}.png")
        particles = read_micrograph(root / "segmaps" / f"{name}.png").image > 0
        if image.shape != particles.shape:
            raise EMError(f"segmaps/{name}.png is {particles.shape}, its image {image.shape}; expected the same size")
        return {"image": image, "mask": encode_image(particles * np.uint8(255), name)}

    notes = """Images are unchanged, but those in colour are turned into luminance. A mask is 255 where the segmentation
has a particle. The test list is the authors'; validation is drawn by the seed from their training list."""
    card = DatasetCard(**SOURCES["emps"], made_by=command_line(__file__, arguments), notes=notes)
    splits = {"train": drawn[count:], "validation": drawn[:count], "test": test}
    return Prepared(splits, row, card, {"0": "background", "255": "particle"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = preparation_parser(__doc__)
    parser.add_argument("--lists", type=Path, required=True, help="folder with train.csv and test.csv")
    parser.add_argument("--num-validation", type=int, default=37, help="of the training list (default 37, a tenth)")
    parser.add_argument("--seed", type=int, default=0, help="draws the validation set (default 0)")
    return run_preparation(parser, prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
