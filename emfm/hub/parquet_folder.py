"""Datasets written as the Hub keeps them: `data/SPLIT-00000-of-00008.parquet`, a card, and the classes of the masks."""

import json
import shutil
import tempfile
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from emfm.data.unlabelled import PIXEL_SIZE
from emfm.errors import EMError
from emfm.files import write_text
from emfm.hub.dataset_card import DatasetCard, Row, RowFacts, card_text

# Eight processes can share a split; a file of half a gigabyte is still quick to download again.
SHARDS, SHARD_BYTES = 8, 500_000_000
# Rows that are in memory at once, and that a reader must load to see one of them.
ROW_GROUP, ROW_GROUP_BYTES = 100, 32_000_000
Splits = Mapping[str, Sequence[Hashable]]


def check_parquet_folder(folder: Path, splits: Splits) -> None:
    """Check what can be checked before anything is written.

    Raises:
        EMError: the folder exists, a split is empty, or an item is in two splits or twice in one.
    """
    if folder.exists():
        raise EMError(f"{folder} exists already: choose another folder, or remove it first")
    check_splits(splits)


def check_splits(splits: Splits) -> None:
    """Check that every split has items, and that no item is in two or twice in one.

    Raises:
        EMError: otherwise.
    """
    split_of: dict[Hashable, str] = {}
    for split, items in splits.items():
        if not items:
            raise EMError(f"the split '{split}' has no images; expected at least one")
        for item in items:
            if item in split_of:
                raise EMError(
                    f"'{item}' is in the split '{split_of[item]}' and again in '{split}'; expected every image once"
                )
            split_of[item] = split


def describe_parquet_folder(splits: Splits, row: Callable[[Any], Row]) -> str:
    """Return what would be written: per split the rows, the files, and what its first row holds.

    Raises:
        EMError: a first row cannot be read.
    """
    lines = []
    for split, items in splits.items():
        first = row(items[0])
        columns = ", ".join(
            f"{column} {image.name} {image.shape[0]} x {image.shape[1]} {image.dtype}"
            for column, image in first.items()
        )
        lines.append(f"{split}: {len(items):,} rows in {_shard_count(items, first)} files; first row: {columns}")
    return "\n".join(lines)


def write_parquet_folder(
    folder: str | Path,
    splits: Splits,
    row: Callable[[Any], Row],
    card: DatasetCard,
    labels: Mapping[str, str] | None = None,
) -> Path:
    """Write a dataset that `datasets.load_dataset(folder)` opens with image columns; a few rows are in memory at once.

    Everything goes into a temporary folder which is renamed when it is whole: after an error nothing is left.

    Args:
        folder: must not exist yet.
        splits: split: what stands for each of its rows, as a file name or an index.
        row: makes a row of one of these: column ("image", and "mask" or "target"): file.
        card: for README.md.
        labels: grey value of the masks: class name, for labels.json.

    Raises:
        EMError: the folder exists, a split is empty or shares items with another, or a row cannot be read.
    """
    folder = Path(folder)
    check_parquet_folder(folder, splits)
    place = folder.absolute().parent
    while not place.exists():
        place = place.parent
    temporary = Path(tempfile.mkdtemp(dir=place, prefix=f".{folder.name}-"))
    try:
        temporary.chmod(0o755)  # mkdtemp makes it private
        (temporary / "data").mkdir()
        facts = RowFacts()
        for split, items in splits.items():
            _write_split(temporary / "data", split, items, row, facts)
        if labels:
            write_text(temporary / "labels.json", json.dumps(dict(labels), indent=1))
        counts = {split: len(items) for split, items in splits.items()}
        write_text(temporary / "README.md", card_text(card, counts, facts, labels))
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _shard_count(items: Sequence[Hashable], first: Row) -> int:
    """Return in how many files to write a split, taking its first row for all."""
    size = len(items) * sum(len(image.content) for image in first.values())
    return min(len(items), max(SHARDS, -(-size // SHARD_BYTES)))


def _write_split(
    folder: Path, split: str, items: Sequence[Hashable], row: Callable[[Any], Row], facts: RowFacts
) -> None:
    from datasets import Features, Image, Value

    first = row(items[0])
    schema = Features({column: Image() for column in first} | {PIXEL_SIZE: Value("float64")}).arrow_schema
    count = _shard_count(items, first)
    with tqdm(total=len(items), desc=f"writing {split}", unit="image", leave=False) as bar:

        def counted_row(item: Any) -> Row:
            made = row(item)
            facts.add(made)
            bar.update()
            return made

        for shard in range(count):
            part = items[shard * len(items) // count : (shard + 1) * len(items) // count]
            _write_shard(folder / f"{split}-{shard:05d}-of-{count:05d}.parquet", part, counted_row, schema)


def _write_shard(path: Path, items: Sequence[Hashable], row: Callable[[Any], Row], schema: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, schema) as writer:
        group: list[dict[str, Any]] = []
        size = 0
        for index, item in enumerate(items, start=1):
            encoded = row(item)
            cells: dict[str, Any] = {
                name: {"bytes": image.content, "path": image.name} for name, image in encoded.items()
            }
            group.append(cells | {PIXEL_SIZE: encoded["image"].pixel_size})
            size += sum(len(image.content) for image in encoded.values())
            if len(group) == ROW_GROUP or size >= ROW_GROUP_BYTES or index == len(items):
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
                group, size = [], 0
