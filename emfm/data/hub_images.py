"""Image columns of datasets: on the Hub, or as a folder of parquet files."""

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emfm.data.splits import split_among
from emfm.errors import EMError, MissingSplitError, nearest
from emfm.io.image_header import check_decodable
from emfm.io.reading import Micrograph, decode_micrograph
from emfm.retries import with_retries

if TYPE_CHECKING:
    from datasets import IterableDataset

# Column: side of a pixel of `image` in nm, null where it is not known.
# The unit is in its name for those without emfm.
PIXEL_SIZE = "pixel_size_nm"
# A file of a split in a folder of parquet files: its split.
SHARD = re.compile(r"(.+?)(?:-\d+-of-\d+|-\d+)?\.parquet")


@dataclass(frozen=True)
class ImageStream:
    """Undecoded images as they come."""

    rows: "IterableDataset"  # with the undecoded column `image`
    name: str  # of the dataset, or of all whose rows it mixes
    colour: str | None = None  # how colour becomes grey; None refuses it

    def decode(self, sample: dict[str, Any] | None, place: str) -> Micrograph:
        """Decode an image of the stream above its data bar; the place in it stands in errors."""
        reader = partial(decode_micrograph, colour=self.colour)
        return decode(sample, f"{self.name}, {place}", reader).without_data_bar()


def load_split(source: str, split: str, streaming: bool) -> tuple[Any, list[str]]:
    """Load one split of a dataset of the Hub, or of a folder of parquet files.

    Returns:
        A `Dataset` or, `streaming`, an `IterableDataset` of the images, undecoded, and their pixel
        sizes where it has them; the names of the image columns, at least one.

    Raises:
        MissingSplitError: there is no such split.
        EMError: it cannot be loaded, or has no image column.
    """
    import datasets

    rows = _load(source, split, streaming)
    features = rows.features or {}
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    if not images:
        raise EMError(
            f"the dataset '{source}' has no image column; its columns are "
            f"{', '.join(features) or 'unknown'}: cast that of the images to datasets.Image"
        )
    rows = rows.select_columns([*images, PIXEL_SIZE] if PIXEL_SIZE in features else images)
    for name in images:
        rows = rows.cast_column(name, datasets.Image(decode=False))
    return rows, images


def _load(source: str, split: str, streaming: bool) -> Any:
    """Load a split in whatever spelling the dataset has it."""
    import datasets

    files: dict[str, list[str]] = defaultdict(list)
    if Path(source).is_dir():  # labels.json and other files beside them are no data
        for path in sorted(Path(source).rglob("*.parquet")):
            files[SHARD.fullmatch(path.name)[1]].append(str(path))  # type: ignore[index]
    spelled = split_among(split, files, source)
    where: dict[str, Any] = {"path": source}
    if spelled is not None:
        where = {"path": "parquet", "data_files": {spelled: files[spelled]}}
    try:
        return with_retries(lambda: datasets.load_dataset(**where, split=spelled or split, streaming=streaming))
    except Exception as error:  # the Hub, the network and each file format have errors of their own
        known = [] if spelled else _known_splits(source)
        if known and split not in known:
            spelled = split_among(split, known, f"the dataset '{source}'")
            if spelled is None:
                raise MissingSplitError(
                    f"the dataset '{source}' has no split '{split}'; {nearest(split, known)}"
                ) from error
            return _load(source, spelled, streaming)
        raise EMError(
            f"cannot load the split '{split}' of the dataset '{source}' ({type(error).__name__}: "
            f"{error}); expected a folder of images or parquet files, or a dataset's id on the Hub"
        ) from error


def _known_splits(source: str) -> list[str]:
    """Return the splits of a dataset, none where it cannot be asked for them."""
    import datasets

    try:
        return datasets.get_dataset_split_names(source)
    except Exception:  # as when loading, whose error says more
        return []


def load_images(source: str, streaming: bool) -> tuple[Any, str]:
    """Load the first image column of "train", undecoded, as `image`; return it and its name.

    Raises:
        EMError: it cannot be loaded, or has no image column.
    """
    rows, images = load_split(source, "train", streaming)
    rows = rows.select_columns(images[:1])
    return (rows if images[0] == "image" else rows.rename_column(images[0], "image")), images[0]


def decode(
    sample: dict[str, Any] | None, name: str, reader: Callable[[bytes, str], Micrograph] = decode_micrograph
) -> Micrograph:
    """Decode a row's image, its `bytes` or the file at its `path`; errors begin with `name`.

    The reader is `decode_micrograph`, or `decode_mask` for masks.

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
    return replace(reader(content, label), name=path or name)
