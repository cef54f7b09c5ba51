"""Fine-tune a pretrained model on a labelled dataset of the Hub (or a folder), and push it with its figures.

    python hub_scripts/finetune_and_push.py TASK OWNER/NAME --model unet4-rf200-w16 --data OWNER/DATASET --output out

TASK is segmentation, denoising, super-resolution or background-removal. `emfm finetune --help` explains the settings.
"""

import argparse
import sys
from collections.abc import Sequence

from script_command import add_push_options, add_settings, push_options, run_script, say, script_parser

from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.hub.push import PushArguments, push_folder
from emfm.tasks import load_model

SETTINGS = ("steps", "batch_size", "crop", "learning_rate", "freeze", "lora", "precision", "seed")
PLACES = ("task", "data", "output", "model", "scratch", "degrade", "num_images", "streaming", "resume")


def work(arguments: argparse.Namespace) -> None:
    """Fine-tune, then push the best model."""
    where = PushArguments(arguments.repo_id, **push_options(arguments))
    settings = FinetuneArguments(**{name: getattr(arguments, name) for name in (*PLACES, *SETTINGS)})
    if arguments.dry_run:
        return say(f"would fine-tune with {settings}\nand push {arguments.output} to {where.repo_id}")
    finetune(settings)
    return say(push_folder(load_model(arguments.output), arguments.output, where))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = script_parser(__doc__)
    parser.add_argument("task", help="segmentation, denoising, super-resolution or background-removal")
    parser.add_argument("repo_id", help="model repository on the Hub: owner/name")
    parser.add_argument("--data", required=True, help="labelled folder or dataset")
    parser.add_argument("--output", required=True, help="folder of the finished model")
    parser.add_argument("--model", help="pretrained model: zoo name, folder or Hub id (or --scratch)")
    parser.add_argument("--scratch", help="generator name: start from random weights (or --model)")
    parser.add_argument("--degrade", help="restoration: make pairs by dose, paper, downsample or background")
    parser.add_argument("--num-images", type=int, help="training images to use (default all)")
    parser.add_argument("--streaming", action="store_true", help="read the dataset without downloading it first")
    parser.add_argument("--resume", action="store_true", help="go on from the newest whole checkpoint")
    add_settings(parser, FinetuneArguments, SETTINGS)
    add_push_options(parser)
    return run_script(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
