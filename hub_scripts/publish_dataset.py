"""Push a folder of micrographs, or a dataset folder that another script has prepared, to the Hub.

    python hub_scripts/publish_dataset.py FOLDER OWNER/NAME --license cc-by-4.0 --citation "..." [--dry-run]

A folder that a `prepare_*.py` script wrote has licence and citation on its card; they need not be given again.
"""

import argparse
import sys
from collections.abc import Sequence

from script_command import add_push_options, push_options, run_script, say, script_parser

from emfm import push_dataset
from emfm.hub.datasets.push import describe_dataset


def publish(arguments: argparse.Namespace) -> None:
    """Push the dataset."""
    what = (arguments.folder, arguments.repo_id, arguments.license, arguments.citation)
    if arguments.dry_run:
        return say(f"would push {arguments.repo_id}\n{describe_dataset(*what, **push_options(arguments))}")
    return say(push_dataset(*what, arguments.source, arguments.summary, **push_options(arguments)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = script_parser(__doc__)
    parser.add_argument("folder", help="images/ with masks/ or targets/, micrographs alone, or parquet with its card")
    parser.add_argument("repo_id", help="dataset repository on the Hub: owner/name")
    parser.add_argument("--license", help="the Hub's identifier, or unknown (default: what the card says)")
    parser.add_argument("--citation", help="one line or BibTeX (default: what the card says)")
    parser.add_argument("--source", help="where the images are from (default: see the citation)")
    parser.add_argument("--summary", help="what the images show (default: micrographs, and with what)")
    add_push_options(parser)
    return run_script(parser, publish, argv)


if __name__ == "__main__":
    sys.exit(main())
