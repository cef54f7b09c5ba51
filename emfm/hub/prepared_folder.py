"""Dataset folders that are ready for the Hub: parquet files with their card, as the preparing scripts write them."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from huggingface_hub import metadata_load

from emfm.data.unlabelled import PIXEL_SIZE
from emfm.errors import EMError
from emfm.hub.dataset_card import UNKNOWN
from emfm.hub.privacy import private_content

COLUMNS = ("image", "mask", "target", PIXEL_SIZE)


@dataclass(frozen=True)
class PreparedFolder:
    """A folder that has been checked.

    Attributes:
        files: path on the Hub: file; parquet files, README.md, and labels.json where there is one.
        rows: number of rows in the parquet files.
    """

    files: dict[str, Path]
    rows: int


def open_prepared_folder(folder: Path, license: str | None = None, citation: str | None = None) -> PreparedFolder:
    """Open a folder of parquet files in `data/` with a card that names licence and citation.

    Args:
        folder: to open.
        license: what the card must say; needed where it says "unknown".
        citation: what the card must hold, if given.

    Raises:
        EMError: the card is missing or says something else, or a parquet file is damaged, has other columns, or names
            files by absolute paths or with something private.
    """
    card = folder / "README.md"
    if not card.is_file():
        raise EMError(f"{folder} has no README.md: a dataset is pushed with its card, or as its folder of images")
    _check_card(card, license, citation)
    shards = sorted(folder.glob("data/*.parquet"))
    if not shards:
        raise EMError(f"{folder} has no data/*.parquet; expected a folder as the scripts in hub_scripts/ write it")
    files = [card, *(file for file in [folder / "labels.json"] if file.is_file()), *shards]
    rows = sum(_checked_rows(shard) for shard in shards)
    return PreparedFolder({file.relative_to(folder).as_posix(): file for file in files}, rows)


def _check_card(card: Path, license: str | None, citation: str | None) -> None:
    text = card.read_text(encoding="utf-8")
    try:
        said = (metadata_load(card) or {}).get("license")
    except Exception as error:  # of the YAML reader, or a header that is no mapping
        raise EMError(f"{card} has a header that is no YAML ({error}); expected lines like 'license: mit'") from error
    if license not in (None, said):
        raise EMError(f"the licence was given as '{license}', {card} says '{said}': correct one of them")
    if not said or (said == UNKNOWN and license is None):
        raise EMError(
            f"{card} says that the licence is '{said or 'missing'}': ask for it and enter it there, or say --license "
            f"{UNKNOWN}"
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
            if "image" not in names or not set(names) <= set(COLUMNS):
                raise EMError(f"{path} has the columns {', '.join(names)}; expected image, and of {COLUMNS[1:]} some")
            images = [f"{name}.path" for name in names if name != PIXEL_SIZE]
            for batch in file.iter_batches(columns=images):
                for row in batch.to_pylist():
                    _check_names(path, row)
            return file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise EMError(f"{path} is damaged or no parquet file ({error}); write the folder anew") from error


def _check_names(path: Path, row: dict[str, Any]) -> None:
    for cell in row.values():
        name = (cell or {}).get("path") or ""
        if PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute():
            raise EMError(f"{path} names a file by the absolute path {name}; expected file names alone")
        if found := private_content(name):
            raise EMError(f"{path} names a file {name}, which holds {' and '.join(found)}: write the folder anew")
