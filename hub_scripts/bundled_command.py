"""What the scripts share that train the models of the package: their options, and the recipes one by one."""

import argparse
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from script_command import run_script, say, script_parser

from emfm.loading.model_files import PUBLISHED


def run_recipes(
    description: str | None,
    models: list[str],
    train: Callable[[str, argparse.Namespace], Path | None],
    place: Path,
    argv: Sequence[str] | None,
) -> int:
    """Train models one after the other, and copy what is published of each to `place`.

    `train` takes a model's name and the options and returns its folder; in a dry run it says what
    it would do, and returns None. Returns the exit code.
    """
    parser = script_parser(description)
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder per source")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where checkpoints go (default %(default)s)")
    parser.add_argument("--only", action="append", choices=models, help="this one alone; may be given several times")
    parser.add_argument("--threads", type=int, help="processor threads (default torch's)")

    def work(arguments: argparse.Namespace) -> None:
        if arguments.threads:
            torch.set_num_threads(arguments.threads)
        for name in arguments.only or models:
            folder = train(name, arguments)
            if folder is None:
                continue
            (place / name).mkdir(parents=True, exist_ok=True)
            for file in PUBLISHED:
                if (folder / file).is_file():
                    shutil.copy(folder / file, place / name / file)
            say(f"{folder} -> {place / name}")

    return run_script(parser, work, argv)
