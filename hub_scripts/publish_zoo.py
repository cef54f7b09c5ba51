"""Push every model that ships inside the package to the Hub, with its card: one repository each.

    python hub_scripts/publish_zoo.py NAMESPACE [--only NAME] [--tag v1.0] [--dry-run]

NAMESPACE is a user or an organisation. Each model is verified before it is pushed; a repository is replaced as a whole.
"""

import argparse
import sys
from collections.abc import Sequence

from script_command import add_push_options, push_options, run_script, say, script_parser

from emfm.hub.commit import PushArguments
from emfm.hub.verify import verify
from emfm.loading.names import bundled_names, locate
from emfm.tasks import load_model


def publish(arguments: argparse.Namespace) -> None:
    """Push the models one after the other."""
    for name in [arguments.only] if arguments.only else bundled_names():
        where = PushArguments(f"{arguments.namespace}/{name}", **push_options(arguments))
        model = load_model(name)
        if arguments.dry_run:
            difference = verify(model, locate(name))
            weights = f"{model.num_parameters():,} weights, verified to {difference:.1g}"
            say(f"would push {name} ({weights}) to {where.repo_id}")
        else:
            say(f"{name}: {model.push_to_hub(where.repo_id, **push_options(arguments))}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = script_parser(__doc__)
    parser.add_argument("namespace", help="user or organisation on the Hub")
    parser.add_argument("--only", choices=bundled_names(), help="push this model alone (default all)")
    add_push_options(parser)
    return run_script(parser, publish, argv)


if __name__ == "__main__":
    sys.exit(main())
