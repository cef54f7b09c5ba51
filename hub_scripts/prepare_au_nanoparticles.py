"""Turn a set of Sytwu et al. 2022 (TEM of gold nanoparticles) into a dataset folder for the Hub.

    python hub_scripts/prepare_au_nanoparticles.py DOWNLOAD --set Au5nmV1 --output FOLDER [--dry-run]

DOWNLOAD holds the HDF5 files of https://doi.org/10.5281/zenodo.6419024, a pair NAME_Images.h5 and NAME_Labels.h5 for
each set. Needs h5py.
"""

import argparse
import sys
from collections.abc import Sequence

from au_files import find_pair
from au_patches import PATCH, MicrographStack
from prepare_command import SOURCES, Prepared, command_line, preparation_parser, run_preparation

from emfm.errors import EMError
from emfm.hub.datasets.card import DatasetCard

# Name in Kazimi et al. 2024: particle size in the file names, patches in train, validation and test.
SETS = {
    "Au5nmV1": ("5nm", (144, 48, 48)),
    "Au5nm": ("5nm", (1044, 348, 348)),
    "Au10nm": ("10nm", (660, 220, 220)),
    "Au20nm": ("20nm", (660, 220, 220)),
    "Au2.2nm": ("2p2nm", (1740, 580, 580)),
}


def split_sizes(name: str, found: int, any_count: bool) -> tuple[int, int, int]:
    """Return the patches in train, validation and test: the paper's, or 60/20/20 of what there is.

    Raises:
        EMError: there are not as many patches as the paper has.
    """
    expected = SETS[name][1]
    if found != sum(expected) and not any_count:
        raise EMError(
            f"found {found} patches; the paper's {name} has {sum(expected)} ({'/'.join(map(str, expected))}): choose "
            "other files with --pair, another --min-particle-pixels, or --any-count to split what there is 60/20/20"
        )
    return found - 2 * (found // 5), found // 5, found // 5


def prepare(arguments: argparse.Namespace) -> Prepared:
    """Find the patches of a set."""
    pair = find_pair(arguments.download, SETS[arguments.set][0], arguments.pair)
    stack = MicrographStack(arguments.download, pair)
    patches = stack.patches(arguments.min_particle_pixels)
    train, validation, _ = split_sizes(arguments.set, len(patches), arguments.any_count)
    notes = (
        f"Micrographs of `{pair}` cut into patches of {PATCH} x {PATCH} pixels, values as they were (float64 as "
        f"float32); patches with {arguments.min_particle_pixels} or fewer particle pixels are left out. The splits "
        "follow the order of the file: at each border one micrograph may have patches on both sides."
    )
    if len(patches) != sum(SETS[arguments.set][1]):
        notes += " The number of patches is not that of Kazimi et al. 2024."
    title = f"Gold nanoparticles in TEM, {arguments.set}"
    card = DatasetCard(
        title=title, **SOURCES["au_nanoparticles"], made_by=command_line(__file__, arguments), notes=notes
    )
    held_out = patches[train:]
    splits = {"train": patches[:train], "validation": held_out[:validation], "test": held_out[validation:]}
    return Prepared(splits, stack.row, card, {"0": "background", "255": "particle"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = preparation_parser(__doc__)
    parser.add_argument("--set", choices=SETS, required=True)
    parser.add_argument("--pair", help="what the names of the two files begin with, before _Images.h5")
    parser.add_argument("--min-particle-pixels", type=int, default=400, help="leave out emptier patches (default 400)")
    parser.add_argument("--any-count", action="store_true", help="accept another number of patches than the paper's")
    return run_preparation(parser, prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
