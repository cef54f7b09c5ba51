"""Write and check datasets: `data/SPLIT-00000-of-00008.parquet`, a card, `labels.json`."""

import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from huggingface_hub import metadata_load
from tqdm.auto import tqdm

from emfm.data.hub_images import PIXEL_SIZE
from emfm.data.labelled_folder import TRUTHS
from emfm.errors import EMError
from emfm.files import writable_folder, write_text, writing
from emfm.hub.card import UNKNOWN_LICENSE
from emfm.hub.datasets.card import DatasetCard, ImageCounts, Row, dataset_card
from emfm.hub.privacy import private_content

if TYPE_CHECKING:
    import pyarrow as pa

# Eight processes can share a split; a file of half a gigabyte is still quick to download again.
SHARDS, SHARD_BYTES = 8, 500_000_000
# Rows that are in memory at once, and that a reader must load to see one of them.
ROW_GROUP, ROW_GROUP_BYTES = 100, 32_000_000
Splits = Mapping[str, Sequence[Hashable]]


def check_parquet_folder(folder: Path, splits: Splits) -> None:
    """Raise an EMError, before anything is written, where the folder or a split is wrong."""
    if folder.exists():
        raise EMError(f"{folder} exists already: choose another folder, or remove it first")
    writable_folder(folder)
    check_splits(splits)


def check_splits(splits: Splits) -> None:
    """Raise an EMError where a split is empty, or an item is in two splits or twice in one."""
    split_of: dict[Hashable, str] = {}
    for split, items in splits.items():
        if not items:
            raise EMError(f"the split '{split}' has no images; expected at least one")
        for item in items:
            if item in split_of:
                raise EMError(f"'{item}' is in the split '{split_of[item]}' and again in '{split}'; expected it once")
            split_of[item] = split


def describe_parquet_folder(splits: Splits, row: Callable[[Any], Row]) -> str:
    """Return what would be written: per split the rows, the files, and what its first row holds."""
    lines = []
    for split, items in splits.items():
        first = row(items[0])
        cells = []
        for column, image in first.items():
            height, width = image.shape
            cells.append(f"{column} {image.name} {height} x {width} {image.dtype}")
        files = _shard_count(items, first)
        lines.append(f"{split}: {len(items):,} rows in {files} files; first row: {', '.join(cells)}")
    return "\n".join(lines)


def write_parquet_folder(
    folder: str | Path,
    splits: Splits,
    row: Callable[[Any], Row],
    card: DatasetCard,
    labels: Mapping[str, str] | None = None,
) -> Path:
    """Write a dataset that `datasets.load_dataset(folder)` opens, a few rows in memory at once.

    Everything goes into a temporary folder, renamed when it is whole: an error leaves nothing.

    Args:
        folder: must not exist yet.
        splits: split: what stands for each of its rows, as a file name or an index.
        row: makes a row of one of these: column ("image", and "mask" or "target"): file.
        card: for README.md.
        labels: grey value of the masks: class name, for labels.json.

    Raises:
        EMError: the folder exists, a split is empty or shares items, or a row cannot be read.
    """
    folder = Path(folder)
    check_parquet_folder(folder, splits)
    place = folder.absolute().parent
    while not place.exists():
        place = place.parent
    with writing(folder), TemporaryDirectory(dir=place, prefix=f".{folder.name}-") as temporary:
        whole = Path(temporary) / folder.name
        (whole / "data").mkdir(parents=True)
        counts = ImageCounts()
        for split, items in splits.items():
            _write_split(whole / "data", split, items, row, counts)
        if labels:
            write_text(whole / "labels.json", json.dumps(dict(labels), indent=1))
        rows = {split: len(items) for split, items in splits.items()}
        write_text(whole / "README.md", dataset_card(card, rows, counts, labels))
        folder.parent.mkdir(parents=True, exist_ok=True)
        whole.rename(folder)
    return folder


def _shard_count(items: Sequence[Hashable], first: Row) -> int:
    """Return in how many files to write a split, taking its first row for all."""
    size = len(items) * sum(len(image.content) for image in first.values())
    return min(len(items), max(SHARDS, -(-size // SHARD_BYTES)))


def _write_split(
    folder: Path, split: str, items: Sequence[Hashable], row: Callable[[Any], Row], counts: ImageCounts
) -> None:
    from datasets import Features, Image, Value

    first = row(items[0])
    schema = Features({column: Image() for column in first} | {PIXEL_SIZE: Value("float64")}).arrow_schema
    shards = _shard_count(items, first)
    with tqdm(items, desc=f"writing {split}", unit="image", leave=False) as bar:
        rows = map(row, bar)
        for shard in range(shards):
            count = (shard + 1) * len(items) // shards - shard * len(items) // shards
            path = folder / f"{split}-{shard:05d}-of-{shards:05d}.parquet"
            _write_shard(path, islice(rows, count), schema, counts)


def _write_shard(path: Path, rows: Iterable[Row], schema: "pa.Schema", counts: ImageCounts) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    group: list[dict[str, Any]] = []
    size = 0
    with pq.ParquetWriter(path, schema) as writer:
        for row in rows:
            counts.add(row)
            cells: dict[str, Any] = {PIXEL_SIZE: row["image"].pixel_size}
            for column, image in row.items():
                cells[column] = {"bytes": image.content, "path": image.name}
                size += len(image.content)
            group.append(cells)
            if len(group) == ROW_GROUP or size >= ROW_GROUP_BYTES:
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
                group, size = [], 0
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def open_prepared_folder(
    folder: Path, license: str | None = None, citation: str | None = None
) -> tuple[dict[str, Path], int]:
    """Open a folder of parquet files in `data/` with a card that names licence and citation.

    Args:
        folder: to open.
        license: what the card must say; needed where it says "unknown".
        citation: what the card must hold, if given.

    Returns:
        Its files by their paths on the Hub, README.md and labels.json included, and their rows.

    Raises:
        EMError: the card is missing or says something else, or a parquet file is damaged, has
            other columns, or names files by absolute paths or with something private.
    """
    card = folder / "README.md"
    if not card.is_file():
        raise EMError(f"{folder} has no README.md: a dataset is pushed with its card, or as its folder of images")
    _check_card(card, license, citation)
    shards = sorted(folder.glob("data/*.parquet"))
    if not shards:
        raise EMError(f"{folder} has no data/*.parquet; expected a folder as the scripts in hub_scripts/ write it")
    labels = folder / "labels.json"
    files = [card, labels, *shards] if labels.is_file() else [card, *shards]
    rows = sum(_checked_rows(shard) for shard in shards)
    return {file.relative_to(folder).as_posix(): file for file in files}, rows


def _check_card(card: Path, license: str | None, citation: str | None) -> None:
    text = card.read_text(encoding="utf-8")
    try:
        said = (metadata_load(card) or {}).get("license")
    except Exception as error:  # of the YAML reader, or a header that is no mapping
        raise EMError(f"{card} has a header that is no YAML ({error}); expected lines like 'license: mit'") from error
    if license not in (None, said):
        raise EMError(f"the licence was given as '{license}', {card} says '{said}': correct one of them")
    if not said or (said == UNKNOWN_LICENSE and license is None):
        raise EMError(
            f"{card} says that the licence is '{said or 'missing'}': "
            f"ask for it and enter it there, or say --license {UNKNOWN_LICENSE}"
        )
    if citation and citation.strip() not in text:
        raise EMError(f"{card} has another citation: correct it there, or leave --citation out")
    if found := private_content(text):
        raise EMError(f"{card} holds {' and '.join(found)}: take it out before it is pushed")


def _checked_rows(path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            others = (*TRUTHS.values(), PIXEL_SIZE)
            if "image" not in names or not set(names) <= {"image", *others}:
                raise EMError(f"{path} has the columns {', '.join(names)}; expected image, and some of {others}")
            images = [f"{name}.path" for name in names if name != PIXEL_SIZE]
            for batch in file.iter_batches(columns=images):
                for row in batch.to_pylist():
                    _check_names(path, row)
            return file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise EMError(f"{path} is damaged or no parquet file ({error}): write it anew") from error


def _check_names(path: Path, row: dict[str, Any]) -> None:
    for cell in row.values():
        name = (cell or {}).get("path") or ""
        if PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute():
            raise EMError(f"{path} names a file by the absolute path {name}; expected file names alone")
        if found := private_content(name):
            raise EMError(f"{path} names a file {name}, which holds {' and '.join(found)}: write the folder anew")
