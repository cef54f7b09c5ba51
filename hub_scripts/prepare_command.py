"""What the scripts that prepare a data set share: options, the dry run, one-line errors, drawing by a seed, colour."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from emfm.data.dataset_card import DatasetCard, Row
from emfm.data.encoded_image import EncodedImage, encode_image, kept_file
from emfm.data.parquet_folder import (
    Splits,
    check_parquet_folder,
    describe_parquet_folder,
    write_parquet_folder,
)
from emfm.errors import EMError


@dataclass(frozen=True)
class Prepared:
    """What a script found in a download.

    Attributes:
        splits: split: what stands for each of its rows.
        row: makes a row of one of these.
        card: of the dataset.
        labels: grey value of the masks: class name.
    """

    splits: Splits
    row: Callable[[Any], Row]
    card: DatasetCard
    labels: Mapping[str, str] | None = None


def preparation_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all the scripts have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("download", type=Path, help="folder that holds the unpacked download")
    parser.add_argument("--output", type=Path, required=True, help="folder to write; must not exist")
    parser.add_argument(
        "--dry-run", action="store_true", help="check the download, say what would be written, and stop"
    )
    return parser


def run_preparation(
    parser: argparse.ArgumentParser, prepare: Callable[[argparse.Namespace], Prepared], argv: Sequence[str] | None
) -> int:
    """Prepare a data set; returns the exit code: 2 after an EMError, one line on standard error; 130 after Ctrl-C."""
    arguments = parser.parse_args(argv)
    try:
        if not arguments.download.is_dir():
            raise EMError(f"there is no folder {arguments.download}; expected the folder of the unpacked download")
        found = prepare(arguments)
        if arguments.dry_run:
            check_parquet_folder(arguments.output, found.splits)
            description = describe_parquet_folder(found.splits, found.row)
            sys.stdout.write(f"would write {arguments.output}\n{description}\n")
        else:
            write_parquet_folder(arguments.output, found.splits, found.row, found.card, found.labels)
            sys.stdout.write(f"{arguments.output}\n")
    except EMError as error:
        sys.stderr.write(f"{parser.prog}: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"{parser.prog}: stopped, nothing was written\n")
        return 130
    return 0


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


def shuffled(items: Sequence[str], seed: int) -> list[str]:
    """Return the items in an order drawn by the seed."""
    return [items[index] for index in np.random.default_rng(seed).permutation(len(items))]


def contents(folder: Path) -> str:
    """Return what a folder holds, for errors: its folders, and its files counted by suffix."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    folders = [f"{entry.name}/" for entry in entries if entry.is_dir()]
    suffixes = Counter(entry.suffix or "no suffix" for entry in entries if entry.is_file())
    parts = [*folders[:12], *(f"{count} files ({suffix})" for suffix, count in suffixes.most_common(6))]
    return ", ".join(parts) or "nothing"


def grey_file(path: Path) -> EncodedImage:
    """Return an image file as it is if it is grey, also when stored as RGB; one in colour as PNG of its luminance.

    Raises:
        EMError: the file is damaged.
    """
    try:
        with Image.open(path) as picture:
            colours = np.asarray(picture.convert("RGB")) if picture.mode in ("RGB", "RGBA", "P") else None
            if colours is not None and (colours != colours[..., :1]).any():
                return encode_image(np.asarray(picture.convert("L")), path.stem)
    except OSError as error:
        raise EMError(f"{path} is damaged or no image ({error}); download it again") from error
    return kept_file(path)
