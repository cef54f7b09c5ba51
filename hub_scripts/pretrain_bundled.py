"""Pretrain the models that ship inside the package, and put them there.

    python hub_scripts/pretrain_bundled.py --data FOLDER [--only NAME] [--threads N] [--dry-run]

FOLDER holds one folder of unlabelled micrographs per source. What is trained, on what and how stands in
`recipes/NAME.toml`, settings of `emfm pretrain`. Stopped runs go on where they were.
"""

import argparse
import shutil
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from script_command import run_script, say, script_parser

from emfm.loading.names import BUNDLED
from emfm.pretraining.pretrain import PretrainArguments, pretrain

RECIPES = Path(__file__).parent / "recipes"
MODELS = sorted(path.stem for path in RECIPES.glob("*.toml"))


def recipe(name: str, data: Path, runs: Path) -> PretrainArguments:
    """Return the settings of one model."""
    fields: dict[str, Any] = tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8"))
    fields["data"] = tuple(str(data / source) for source in fields["data"])
    return PretrainArguments(**fields, output=str(runs / name), resume=True)


def work(arguments: argparse.Namespace) -> None:
    """Run the recipes one after the other."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    for name in arguments.only or MODELS:
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
    parser.add_argument("--only", action="append", choices=MODELS, help="this one alone; may be given several times")
    parser.add_argument("--threads", type=int, help="processor threads (default torch's)")
    return run_script(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
