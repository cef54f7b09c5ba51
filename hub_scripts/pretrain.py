"""Pretrain a generator on datasets of the Hub (or folders), and push it.

    python hub_scripts/pretrain.py OWNER/NAME --data OWNER/DATASET --streaming --output runs/mine [--dry-run]

Stopped, the same command with --resume goes on. `emfm pretrain --help` explains the settings.
"""

import argparse
import sys
from collections.abc import Sequence

from script_command import add_push_options, add_settings, push_options, run_script, say, script_parser

from emfm.hub.push import PushArguments, push_folder
from emfm.pretraining.pretrain import PretrainArguments, pretrain
from emfm.tasks import load_model

SETTINGS = ("generator", "norm", "steps", "batch_size", "crop", "corruption", "filters", "structures", "adversarial")
SETTINGS += ("discriminator_width", "learning_rate", "precision", "seed", "save_steps")


def work(arguments: argparse.Namespace) -> None:
    """Pretrain, then push what is finished."""
    where = PushArguments(arguments.repo_id, **push_options(arguments))
    settings = PretrainArguments(
        data=tuple(arguments.data),
        output=arguments.output,
        streaming=arguments.streaming,
        resume=arguments.resume,
        **{name: getattr(arguments, name) for name in SETTINGS},
    )
    if arguments.dry_run:
        return say(f"would pretrain with {settings}\nand push {arguments.output}/pretrained_model to {where.repo_id}")
    folder = pretrain(settings)
    return say(push_folder(load_model(folder), folder, where))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = script_parser(__doc__)
    parser.add_argument("repo_id", help="model repository on the Hub: owner/name")
    parser.add_argument("--data", action="append", required=True, help="dataset or folder; may be given several times")
    parser.add_argument("--output", required=True, help="folder of the run")
    parser.add_argument("--streaming", action="store_true", help="read datasets without downloading them first")
    parser.add_argument("--resume", action="store_true", help="go on from the newest whole checkpoint")
    add_settings(parser, PretrainArguments, SETTINGS)
    add_push_options(parser)
    return run_script(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
