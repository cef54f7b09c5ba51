"""Image columns of datasets: on the Hub, or as a folder of parquet files."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emfm.errors import EMError, MissingSplitError
from emfm.io.image_header import check_decodable
from emfm.io.reading import Micrograph, decode_micrograph
from emfm.retries import with_retries

if TYPE_CHECKING:
    from datasets import IterableDataset

# Column: side of a pixel of `image` in nm, null where it is not known.
# The unit is in its name for those without emfm.
PIXEL_SIZE = "pixel_size_nm"


@dataclass(frozen=True)
class ImageStream:
    """Undecoded images as they come."""

    rows: "IterableDataset"  # with the undecoded column `image`
    name: str  # of the dataset, or of all whose rows it mixes


def load_split(source: str, split: str, streaming: bool) -> tuple[Any, list[str]]:
    """Load one split of a dataset of the Hub, or of a folder of parquet files.

    Returns:
        A `Dataset` or, `streaming`, an `IterableDataset` of the images, undecoded, and their pixel sizes where it has
        them; the names of the image columns, at least one.

    Raises:
        MissingSplitError: there is no such split.
        EMError: it cannot be loaded, or has no image column.
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
            f"cannot load the split '{split}' of the dataset '{source}' ({type(error).__name__}: {error}); "
            "expected a folder of images, a folder of parquet files, or the id of a dataset on the Hub"
        ) from error
    features = rows.features or {}
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    if not images:
        raise EMError(
            f"the dataset '{source}' has no image column; its columns are {', '.join(features) or 'unknown'}: cast "
            "that of the images to datasets.Image"
        )
    rows = rows.select_columns([*images, PIXEL_SIZE] if PIXEL_SIZE in features else images)
    for name in images:
        rows = rows.cast_column(name, datasets.Image(decode=False))
    return rows, images


def load_images(source: str, streaming: bool) -> tuple[Any, str]:
    """Load the first image column of the split "train", undecoded, as `image`; returns it with the column's own name.

    Raises:
        EMError: it cannot be loaded, or has no image column.
    """
    rows, images = load_split(source, "train", streaming)
    rows = rows.select_columns(images[:1])
    return (rows if images[0] == "image" else rows.rename_column(images[0], "image")), images[0]


def decode(sample: dict[str, Any] | None, name: str) -> Micrograph:
    """Decode a row's undecoded image: its `bytes`, or a `path` to read them from; errors begin with `name`.

    Raises:
        EMError: the row holds no image, or one that is damaged or would fill the memory.
    """
    import fsspec

    content, path = (sample["bytes"], sample["path"]) if sample else (None, None)
    label = f"{name} ({path})" if path else name
    if not content:
        if not path:
            raise EMError(f"{label}: the row holds no image; take it out of the dataset")
        try:
            with fsspec.open(path, "rb") as file:
                content = file.read()
        except Exception as error:  # each file system has errors of its own
            raise EMError(f"{label}: the row has no bytes, and its path cannot be read ({error})") from error
    check_decodable(content, label)
    return replace(decode_micrograph(content, label), name=path or name)
