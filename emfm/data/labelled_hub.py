"""Datasets to fine-tune from, on the Hub or as a folder of parquet files: columns `image` and `mask` or `target`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emfm.data.classes import GreyValues, read_labels
from emfm.data.hub_images import decode, load_split, row_pixel_size
from emfm.data.labelled_folder import TRUTHS
from emfm.errors import EMError
from emfm.io.reading import Micrograph

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


def open_rows(source: str, split: str, streaming: bool) -> tuple["Dataset | IterableDataset", str | None]:
    """Open a split, undecoded; returns it with "masks" or "targets", None where it holds images alone.

    Raises:
        EMError: it cannot be loaded, or its columns are others.
    """
    rows, images = load_split(source, split, streaming)
    truths = [truth for truth, column in TRUTHS.items() if column in images]
    if "image" not in images or len(truths) > 1:
        raise EMError(
            f"the dataset '{source}' has the image columns {', '.join(images)}; expected 'image' and one of 'mask' "
            "(segmentation) and 'target' (restoration)"
        )
    return rows, truths[0] if truths else None


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
