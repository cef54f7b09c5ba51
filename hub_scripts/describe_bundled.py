"""Note beside each model that ships inside the package what the micrographs of its training were like.

    python hub_scripts/describe_bundled.py --data FOLDER [--only NAME] [--dry-run]

FOLDER holds one folder of unlabelled micrographs per source, as for pretrain_bundled.py, which does the same for what
it trains. Of a model that was trained before, this writes `domain.json` and the checksums.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pretrain_bundled import MODELS, recipe
from script_command import run_script, say, script_parser

from emfm.loading.names import BUNDLED
from emfm.pretraining.batches import open_data
from emfm.pretraining.known import note_domain
from emfm.processing import EMImageProcessor


def work(arguments: argparse.Namespace) -> None:
    """Describe the micrographs for one model after the other."""
    for name in arguments.only or MODELS:
        if arguments.dry_run:
            say(f"would write {BUNDLED / name / 'domain.json'}")
            continue
        note_domain(BUNDLED / name, open_data(recipe(name, arguments.data, Path()), EMImageProcessor()))
        say(f"{BUNDLED / name / 'domain.json'}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = script_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder per source")
    parser.add_argument("--only", action="append", choices=MODELS, help="this one alone; may be given several times")
    return run_script(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
