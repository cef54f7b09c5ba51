"""Pretrain a generator on datasets of the Hub (or folders), and push it.

    python hub_scripts/pretrain.py OWNER/NAME --data OWNER/DATASET --streaming --output runs/mine [--dry-run]

Stopped, the same command with --resume goes on. `emfm pretrain --help` explains the settings.
"""

import argparse
import sys
from collections.abc import Sequence

from script_command import add_push_options, add_settings, given_settings, push_options, run_script, say, script_parser

from emfm.hub.push import PushArguments, push_folder
from emfm.pretraining.arguments import PretrainArguments
from emfm.pretraining.pretrain import pretrain
from emfm.tasks import load_model

SETTINGS = ("data", "output", "streaming", "generator", "norm", "steps", "batch_size", "crop", "corruption", "filters")
SETTINGS += ("structures", "adversarial", "discriminator_width", "learning_rate", "precision", "seed", "save_steps")
SETTINGS += ("resume",)


def work(arguments: argparse.Namespace) -> None:
    """Pretrain, then push what is finished."""
    where = PushArguments(arguments.repo_id, **push_options(arguments))
    settings = PretrainArguments(**given_settings(arguments, SETTINGS))
    if arguments.dry_run:
        return say(f"would pretrain with {settings}\nand push {arguments.output}/pretrained_model to {where.repo_id}")
    folder = pretrain(settings)
    return say(push_folder(load_model(folder), folder, where))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = script_parser(__doc__)
    parser.add_argument("repo_id", help="model repository on the Hub: owner/name")
    add_settings(parser, PretrainArguments, SETTINGS)
    add_push_options(parser)
    return run_script(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
