"""Datasets to fine-tune from, on the Hub or as a folder of parquet files: columns `image` and `mask` or `target`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from emfm.data.classes import GreyValues, read_labels
from emfm.data.labelled_folder import TRUTHS
from emfm.data.unlabelled import PIXEL_SIZE, decode, row_pixel_size
from emfm.errors import EMError, MissingSplitError
from emfm.io.reading import Micrograph
from emfm.retries import with_retries


def open_rows(source: str, split: str, streaming: bool) -> tuple[Any, str | None]:
    """Open a split, undecoded; returns it with "masks" or "targets", None where it holds images alone.

    Raises:
        MissingSplitError: there is no such split.
        EMError: it cannot be loaded, or its columns are others.
    """
    import datasets

    where: dict[str, Any] = {"path": source}
    files = sorted(str(path) for path in Path(source).rglob(f"{split}-*.parquet")) if Path(source).is_dir() else []
    if files:  # labels.json and other files beside them are no data
        where = {"path": "parquet", "data_files": {split: files}}
    try:
        rows = with_retries(lambda: datasets.load_dataset(**where, split=split, streaming=streaming))
    except Exception as error:  # the Hub, the network and each file format have errors of their own
        kind = MissingSplitError if isinstance(error, ValueError) else EMError  # what `datasets` raises for one
        raise kind(
            f"cannot load the split '{split}' of the dataset '{source}' ({type(error).__name__}: {error}); expected a "
            "labelled folder, a folder of parquet files, or the id of a dataset on the Hub"
        ) from error
    features = rows.features or {}
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    truths = {folder: column for folder, column in TRUTHS.items() if column in images}
    if "image" not in images or len(truths) > 1:
        raise EMError(
            f"the dataset '{source}' has the columns {', '.join(features) or 'unknown'}; expected images in 'image' "
            "and in one of 'mask' (segmentation) and 'target' (restoration)"
        )
    kept = [name for name in (PIXEL_SIZE,) if name in features]
    rows = rows.select_columns(["image", *truths.values(), *kept])
    for name in ("image", *truths.values()):
        rows = rows.cast_column(name, datasets.Image(decode=False))
    return rows, next(iter(truths), None)


def row_record(row: dict[str, Any], name: str, truth: str | None) -> tuple[Micrograph, Micrograph, str]:
    """Decode a row into micrograph, its truth (without one itself), and the name of the truth.

    Raises:
        EMError: an image is missing, damaged or too large; the message names dataset, row and file.
    """
    micrograph = decode(row["image"], f"{name}, image")
    micrograph = replace(micrograph, pixel_size=row_pixel_size(row) or micrograph.pixel_size)
    if truth is None:
        return micrograph, micrograph, ""
    column = TRUTHS[truth]
    return micrograph, decode(row[column], f"{name}, {column}"), f"{name}, {column}"


def hub_labels(source: str) -> GreyValues | None:
    """Return what the dataset's `labels.json` says, None where it has none.

    Raises:
        EMError: the file is damaged, or the Hub does not answer.
    """
    if Path(source).is_dir():
        path = Path(source) / "labels.json"
        return read_labels(path) if path.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    try:
        return read_labels(Path(hf_hub_download(source, "labels.json", repo_type="dataset")))
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError) as error:
        raise EMError(f"cannot read labels.json of the dataset '{source}': {error}") from error
