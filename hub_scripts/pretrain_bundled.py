"""Pretrain the models that ship inside the package, and put them there.

    python hub_scripts/pretrain_bundled.py --data FOLDER [--only NAME] [--dry-run]

FOLDER holds one folder of unlabelled micrographs per source, as listed in SOURCES. Stopped runs go on where they were.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from script_command import run_script, say, script_parser

from emfm.training.pretrain import PretrainArguments, pretrain
from emfm.weights import BUNDLED

SOURCES = ("fib25_medulla", "emps", "catalyst_haadf", "atomic_stem", "cem500k_samples")
MODELS = ("unet4-rf200-w16", "unet4-rf200")


def recipe(name: str, data: Path, runs: Path) -> PretrainArguments:
    """Return the settings of one model: 60,800 crops of 80 x 80 pixels."""
    return PretrainArguments(
        data=tuple(str(data / source) for source in SOURCES),
        output=str(runs / name),
        generator=name,
        steps=3800,
        batch_size=16,
        crop=80,
        discriminator_width=16,
        precision="bf16",
        save_steps=200,
        resume=True,
    )


def work(arguments: argparse.Namespace) -> None:
    """Run the recipes one after the other."""
    for name in [arguments.only] if arguments.only else MODELS:
        settings = recipe(name, arguments.data, arguments.runs)
        if arguments.dry_run:
            say(f"would pretrain with {settings}\nand copy the model to {BUNDLED / name}")
            continue
        folder = pretrain(settings)
        shutil.copytree(folder, BUNDLED / name, dirs_exist_ok=True)
        say(f"{folder} -> {BUNDLED / name}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = script_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder per source")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where checkpoints go (default %(default)s)")
    parser.add_argument("--only", choices=MODELS, help="one of them alone (default all)")
    return run_script(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
