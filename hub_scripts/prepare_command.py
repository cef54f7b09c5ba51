"""What the scripts that prepare a data set share: their options, the dry run, and the command in the card."""

import argparse
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from script_command import run_script, say, script_parser

from emfm.errors import EMError
from emfm.hub.datasets.card import DatasetCard, Row
from emfm.hub.datasets.parquet_folder import Splits, check_parquet_folder, describe_parquet_folder, write_parquet_folder

# What cards say of the origin of each data set.
SOURCES = tomllib.loads((Path(__file__).parent / "dataset_sources.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Prepared:
    """What a script found in a download."""

    splits: Splits  # split: what stands for each of its rows
    row: Callable[[Any], Row]  # makes a row of one of these
    card: DatasetCard  # of the dataset
    labels: Mapping[str, str] | None = None  # grey value of the masks: class name


def preparation_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all of them have."""
    parser = script_parser(description)
    parser.add_argument("download", type=Path, help="folder that holds the unpacked download")
    parser.add_argument("--output", type=Path, required=True, help="folder to write; must not exist")
    return parser


def run_preparation(
    parser: argparse.ArgumentParser, prepare: Callable[[argparse.Namespace], Prepared], argv: Sequence[str] | None
) -> int:
    """Prepare a data set; returns the exit code. After an error or Ctrl-C nothing is left."""

    def work(arguments: argparse.Namespace) -> None:
        if not arguments.download.is_dir():
            raise EMError(f"there is no folder {arguments.download}; expected the folder of the unpacked download")
        found = prepare(arguments)
        if arguments.dry_run:
            check_parquet_folder(arguments.output, found.splits)
            return say(f"would write {arguments.output}\n{describe_parquet_folder(found.splits, found.row)}")
        return say(str(write_parquet_folder(arguments.output, found.splits, found.row, found.card, found.labels)))

    return run_script(parser, work, argv)


def command_line(script: str, arguments: argparse.Namespace) -> str:
    """Return the command for the card: every option, of paths the last part only."""
    options = {name: value for name, value in vars(arguments).items() if name not in ("download", "output", "dry_run")}
    words = [f"python hub_scripts/{Path(script).name} {arguments.download.name} --output {arguments.output.name}"]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value is not None and value is not False:
            words.append(f"{flag} {value.name if isinstance(value, Path) else value}")
    return " ".join(words)
