"""Datasets written as the Hub keeps them: `data/SPLIT-00000-of-00008.parquet`, a card, and the classes of the masks."""

import json
import shutil
import tempfile
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCardData
from tqdm.auto import tqdm

from emfm.data.encoded_image import EncodedImage
from emfm.data.io import write_text
from emfm.errors import EMError

# Eight processes can share a split; a file of half a gigabyte is still quick to download again.
SHARDS, SHARD_BYTES = 8, 500_000_000
# Rows that are in memory at once, and that a reader must load to see one of them.
ROW_GROUP, ROW_GROUP_BYTES = 100, 32_000_000
# Largest number of rows of each size category of the Hub, by its name.
SIZES = {1e3: "n<1K", 1e4: "1K<n<10K", 1e5: "10K<n<100K", 1e6: "100K<n<1M", 1e7: "1M<n<10M"}

CARD = """\
---
{header}
---

# {card.title}

{card.summary}

| split | images |
|---|---|
{table}

Columns: {columns}. The images are one-channel PNG or TIFF files in their own dtype.{labels}

```python
from datasets import load_dataset

rows = load_dataset("path/to/this/folder", split="train")
```

## Source and licence

{card.source}

Licence: {card.license}. Cite:

> {card.citation}

## How it was made

`{card.made_by}`

{card.notes}
"""


@dataclass(frozen=True)
class DatasetCard:
    """What the card says beside the figures that are counted.

    Attributes:
        title: heading.
        summary: one paragraph: what is on the images.
        task: the Hub's name of the task, as "image-segmentation".
        license: the Hub's name of the licence, as "cc0-1.0"; "unknown" where the source names none.
        source: where the images are from.
        citation: one line.
        made_by: the command that made the dataset.
        notes: how images were chosen, changed and split.
    """

    title: str
    summary: str
    task: str
    license: str
    source: str
    citation: str
    made_by: str
    notes: str


Row = Mapping[str, EncodedImage]
Splits = Mapping[str, Sequence[Hashable]]


def check_parquet_folder(folder: Path, splits: Splits) -> None:
    """Check what can be checked before anything is written.

    Raises:
        EMError: the folder exists, a split is empty, or an item is in two splits or twice in one.
    """
    if folder.exists():
        raise EMError(f"{folder} exists already: choose another folder, or remove it first")
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
        for split, items in splits.items():
            columns = _write_split(temporary / "data", split, items, row)
        if labels:
            write_text(temporary / "labels.json", json.dumps(dict(labels), indent=1))
        write_text(temporary / "README.md", _card_text(card, splits, columns, labels))
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _shard_count(items: Sequence[Hashable], first: Row) -> int:
    """Return in how many files to write a split, taking its first row for all."""
    size = len(items) * sum(len(image.content) for image in first.values())
    return min(len(items), max(SHARDS, -(-size // SHARD_BYTES)))


def _write_split(folder: Path, split: str, items: Sequence[Hashable], row: Callable[[Any], Row]) -> list[str]:
    """Write the files of a split; returns its columns."""
    from datasets import Features, Image

    first = row(items[0])
    schema = Features({column: Image() for column in first}).arrow_schema
    count = _shard_count(items, first)
    with tqdm(total=len(items), desc=f"writing {split}", unit="image", leave=False) as bar:
        for shard in range(count):
            part = items[shard * len(items) // count : (shard + 1) * len(items) // count]
            _write_shard(folder / f"{split}-{shard:05d}-of-{count:05d}.parquet", part, row, schema, bar)
    return list(first)


def _write_shard(path: Path, items: Sequence[Hashable], row: Callable[[Any], Row], schema: Any, bar: tqdm) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, schema) as writer:
        group: list[dict[str, Any]] = []
        size = 0
        for index, item in enumerate(items, start=1):
            encoded = row(item)
            group.append({name: {"bytes": image.content, "path": image.name} for name, image in encoded.items()})
            size += sum(len(image.content) for image in encoded.values())
            if len(group) == ROW_GROUP or size >= ROW_GROUP_BYTES or index == len(items):
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
                group, size = [], 0
            bar.update()


def _card_text(card: DatasetCard, splits: Splits, columns: Sequence[str], labels: Mapping[str, str] | None) -> str:
    total = sum(len(items) for items in splits.values())
    # no `configs`: `datasets` finds data/SPLIT-* anyway, and with them its cache confuses folders of the same name
    header = DatasetCardData(
        license=card.license,
        task_categories=[card.task],
        size_categories=[next((name for limit, name in SIZES.items() if total < limit), "n>10M")],
        pretty_name=card.title,
        tags=["electron-microscopy", "emfm"],
    )
    named = ", ".join(f"{value} is {name}" for value, name in (labels or {}).items())
    return CARD.format(
        header=header.to_yaml().strip(),
        card=card,
        table="\n".join(f"| {split} | {len(items):,} |" for split, items in splits.items()),
        columns=", ".join(f"`{column}`" for column in columns),
        labels=f" `labels.json` names the grey values of the masks: {named}." if named else "",
    )
