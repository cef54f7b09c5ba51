"""Fine-tune a pretrained model on a labelled dataset of the Hub (or a folder), and push it with its figures.

    python hub_scripts/finetune_and_push.py TASK OWNER/NAME --model unet4-rf200-w16 --data OWNER/DATASET --output out

`emfm finetune --help` explains the settings.
"""

import argparse
import sys
from collections.abc import Sequence

from script_command import add_push_options, add_settings, given_settings, push_options, run_script, say, script_parser

from emfm.finetuning.arguments import FinetuneArguments
from emfm.finetuning.finetune import finetune
from emfm.hub.push import PushArguments, push_folder
from emfm.tasks import TASKS, load_model

SETTINGS = ("data", "output", "model", "scratch", "degrade", "num_images", "streaming", "steps", "batch_size", "crop")
SETTINGS += ("learning_rate", "freeze", "lora", "precision", "seed", "resume")


def work(arguments: argparse.Namespace) -> None:
    """Fine-tune, then push the best model."""
    where = PushArguments(arguments.repo_id, **push_options(arguments))
    settings = FinetuneArguments(arguments.task, **given_settings(arguments, SETTINGS))
    if arguments.dry_run:
        return say(f"would fine-tune with {settings}\nand push {arguments.output} to {where.repo_id}")
    finetune(settings)
    return say(push_folder(load_model(arguments.output), arguments.output, where))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = script_parser(__doc__)
    parser.add_argument("task", help=", ".join(TASKS))
    parser.add_argument("repo_id", help="model repository on the Hub: owner/name")
    add_settings(parser, FinetuneArguments, SETTINGS)
    add_push_options(parser)
    return run_script(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
