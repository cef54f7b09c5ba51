"""Turn TEMImageNet v1.3 (simulated ADF-STEM) into a dataset folder for the Hub, for one restoration task.

    python hub_scripts/prepare_temimagenet.py DOWNLOAD --task denoising --output FOLDER [--dry-run]

DOWNLOAD is https://github.com/xinhuolin/TEM-ImageNet-v1.3: image/, noNoise/ and more, all with the same file names.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from download_files import contents, shuffled
from prepare_command import SOURCES, Prepared, command_line, preparation_parser, run_preparation

from emfm.errors import EMError
from emfm.hub.datasets.card import DatasetCard
from emfm.hub.datasets.encoded_image import EncodedImage, kept_file

TARGETS = {
    "denoising": "noNoise",
    "background-removal": "noBackgroundnoNoise",
    "super-resolution": "noNoiseNoBackgroundSuperresolution",
}
COUNT = 10377 + 1832 + 2155


def paired_names(root: Path, target: str) -> list[str]:
    """Return the names of the images, each of which has a target; an EMError says which has none."""
    for folder in ("image", target):
        if not (root / folder).is_dir():
            raise EMError(f"there is no {root / folder}; {root} holds {contents(root)}: give the folder with image/")
    names = sorted(path.name for path in (root / "image").glob("*.png"))
    missing = [name for name in names if not (root / target / name).is_file()]
    if missing or not names:
        what = f"{len(missing)} of {len(names)} images have no target" if names else "image/ holds no .png"
        raise EMError(f"{root}: {what}; expected {root / target / (missing or ['00001.png'])[0]}: download it again")
    return names


def prepare(arguments: argparse.Namespace) -> Prepared:
    """Find the pairs of a task, and draw the splits: 15 % for test, then 15 % of the rest for validation."""
    root, target = arguments.download, arguments.target or TARGETS[arguments.task]
    names = paired_names(root, target)
    if len(names) != COUNT and not arguments.any_count:
        raise EMError(f"{root / 'image'} holds {len(names)} images, the paper has {COUNT}: complete it, or --any-count")
    drawn, test = shuffled(names, arguments.seed), math.ceil(0.15 * len(names))
    held_out = test + math.ceil(0.15 * (len(names) - test))

    def row(name: str) -> dict[str, EncodedImage]:
        image, truth = kept_file(root / "image" / name), kept_file(root / target / name)
        if truth.shape not in [tuple(scale * side for side in image.shape) for scale in (1, 2, 4)]:
            raise EMError(
                f"{root / target / name} is {truth.shape}, image/{name} {image.shape}; expected 1, 2 or 4 x it"
            )
        return {"image": image, "target": truth}

    notes = f"""Inputs are `image/`, targets `{target}/`, the files unchanged. The splits are drawn by the seed, 15 %
test and 15 % of the rest validation: the proportions of Kazimi et al. 2024, not their choice of images."""
    title = f"TEMImageNet v1.3, {arguments.task}"
    card = DatasetCard(title=title, **SOURCES["temimagenet"], made_by=command_line(__file__, arguments), notes=notes)
    return Prepared({"train": drawn[held_out:], "validation": drawn[test:held_out], "test": drawn[:test]}, row, card)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = preparation_parser(__doc__)
    parser.add_argument("--task", choices=TARGETS, required=True)
    parser.add_argument("--target", help=f"folder of the targets, by default that of the task: {TARGETS}")
    parser.add_argument("--any-count", action="store_true", help=f"accept another number of images than {COUNT}")
    parser.add_argument("--seed", type=int, default=0, help="draws the splits (default 0)")
    return run_preparation(parser, prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
