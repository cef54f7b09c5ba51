"""Unlabelled micrographs for pretraining: folders or datasets, decoded and measured once, then read at random.

The decoded pixels go into an Arrow file in the cache of `datasets`, in their own dtype (uint8 for most), and are
memory-mapped: every process and data worker of a machine shares one copy, memory stays flat, and a second run starts
at once.
"""

import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from emfm.data.sources import is_dataset
from emfm.errors import EMError
from emfm.io.image_header import check_decodable
from emfm.io.reading import Micrograph, decode_micrograph, list_micrographs, read_micrograph
from emfm.processing import EMImageProcessor, IntensityStatistics
from emfm.retries import with_retries

# Column: side of a pixel of `image` in nm, null where it is not known.
# The unit is in its name for those without emfm.
PIXEL_SIZE = "pixel_size_nm"
logger = logging.getLogger(__name__)
# Decoded pixels take about twice the space of PNG files; more for JPEG.
EXPANSION = 4
# Large micrographs make large rows: few are held in memory before they are written.
ROWS_IN_MEMORY = 16


@dataclass(frozen=True)
class ImageStream:
    """Undecoded images as they come.

    Attributes:
        rows: a `datasets.IterableDataset` with the undecoded column `image`.
        name: of the dataset, or of all whose rows it mixes.
    """

    rows: Any
    name: str


class Micrographs(Protocol):
    """Micrographs by index, each with its own statistics."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, IntensityStatistics]: ...


class InMemory:
    """A few micrographs held as arrays, measured once.

    Args:
        images: (H, W) arrays in their own dtype.
        processor: measures them.
    """

    def __init__(self, images: Sequence[np.ndarray], processor: EMImageProcessor):
        self._images = [(image, processor.statistics(image)) for image in images]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, IntensityStatistics]:
        return self._images[index]


class Decoded:
    """Micrographs out of a memory-mapped Arrow table, decoded and measured when it was made.

    Args:
        rows: a `datasets.Dataset` of decoded rows.
    """

    def __init__(self, rows: Any):
        self._rows = rows.with_format("arrow")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, IntensityStatistics]:
        row = self._rows[index]
        height, width, dtype, offset, scale = (
            row[name][0].as_py() for name in ("height", "width", "dtype", "offset", "scale")
        )
        pixels = np.frombuffer(row["pixels"][0].as_buffer(), dtype=dtype).reshape(height, width)
        return pixels, IntensityStatistics(offset, scale)


class Undecoded:
    """Micrographs read anew at every access, for data that are too large for the cache.

    Args:
        files: paths of the files.
        processor: measures each at its first access.
    """

    def __init__(self, files: Sequence[str], processor: EMImageProcessor):
        self._files, self._processor = files, processor
        self._statistics: dict[int, IntensityStatistics] = {}

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, IntensityStatistics]:
        image = read_micrograph(self._files[index]).array
        if index not in self._statistics:
            self._statistics[index] = self._processor.statistics(image)
        return image, self._statistics[index]


def open_micrographs(source: str, processor: EMImageProcessor) -> Micrographs:
    """Open a folder of micrographs, a folder of parquet files, or a dataset of the Hub by its id.

    Args:
        source: the folder, or `owner/name`.
        processor: measures every micrograph once.

    Raises:
        EMError: nothing goes by this name, or a micrograph is broken.
    """
    if is_dataset(source):
        return _open_dataset(source, processor)
    # a tuple: datasets would take a list for shards
    files = tuple((str(path), *_size_and_time(path)) for path in list_micrographs(source))
    if not _fits(sum(size for _, size, _ in files)):
        logger.warning("%s does not fit into the cache of datasets: every crop decodes its file anew", source)
        return Undecoded([path for path, _, _ in files], processor)
    return Decoded(_from_files(files, processor))


def load_images(source: str, streaming: bool) -> tuple[Any, str]:
    """Load the split "train" of a dataset and return it, undecoded, with the name of its image column.

    Raises:
        EMError: it cannot be loaded, or has no image column.
    """
    import datasets

    try:
        data = with_retries(lambda: datasets.load_dataset(source, split="train", streaming=streaming))
    except Exception as error:  # the Hub, the network and each file format have errors of their own
        raise EMError(
            f"cannot load the dataset '{source}' ({type(error).__name__}: {error}); expected a folder of micrographs, "
            "a folder of parquet files, or the id of a dataset on the Hub with a split 'train'"
        ) from error
    features = data.features or {}
    columns = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    if not columns:
        raise EMError(f"the dataset '{source}' has no image column; its columns are {', '.join(features) or 'unknown'}")
    data = data.select_columns(columns[:1]).cast_column(columns[0], datasets.Image(decode=False))
    return (data if columns[0] == "image" else data.rename_column(columns[0], "image")), columns[0]


def decode(sample: dict[str, Any] | None, name: str) -> Micrograph:
    """Decode a row of an image column that was loaded undecoded: `bytes`, or a `path` to read them from.

    Args:
        sample: the row's image.
        name: of dataset and row, for the error.

    Raises:
        EMError: the row holds no image, or one that is damaged or would fill the memory.
    """
    content, path = (sample["bytes"], sample["path"]) if sample else (None, None)
    label = f"{name} ({path})" if path else name
    if not content:
        if not path:
            raise EMError(f"{label}: the row holds no image; take it out of the dataset")
        content = _read(path, label)
    check_decodable(content, label)
    return replace(decode_micrograph(content, label), name=path or name)


def _read(path: str, label: str) -> bytes:
    import fsspec

    try:
        with fsspec.open(path, "rb") as file:
            return file.read()
    except Exception as error:  # each file system has errors of its own
        raise EMError(f"{label}: the row has no bytes, and its path cannot be read ({error})") from error


def row_pixel_size(row: dict[str, Any]) -> float | None:
    """Return what the column `pixel_size_nm` of a row says, None where it says nothing that can be a pixel size."""
    value = row.get(PIXEL_SIZE)
    return float(value) if isinstance(value, (int, float)) and 0 < value < math.inf else None


def _open_dataset(source: str, processor: EMImageProcessor) -> Micrographs:
    data, column = load_images(source, streaming=False)
    if not _fits(data.data.nbytes):
        raise EMError(f"decoded, the dataset '{source}' does not fit on this disk: use --streaming")

    def decoded_row(sample: dict[str, Any], index: int, percentiles: tuple[float, float, float]) -> dict[str, Any]:
        return _row(decode(sample["image"], f"{source}, row {index}, {column}"), EMImageProcessor(*percentiles))

    rows = data.map(
        decoded_row,
        with_indices=True,
        fn_kwargs={"percentiles": (processor.low, processor.high, processor.clip)},
        remove_columns=["image"],
        features=_features(),
        writer_batch_size=ROWS_IN_MEMORY,
        desc="decoding",
    )
    return Decoded(rows)


def _size_and_time(path: Path) -> tuple[int, int]:
    """Return the bytes and the newest time of change (ns) of a file, or of all files of a Zarr folder."""
    stats = [file.stat() for file in (path.rglob("*") if path.is_dir() else [path])]
    return sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)


def _from_files(files: tuple[tuple[str, int, int], ...], processor: EMImageProcessor) -> Any:
    from datasets import Dataset, are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from datasets.exceptions import DatasetGenerationError
    from tqdm.auto import tqdm

    def decoded_rows(files: tuple[tuple[str, int, int], ...], percentiles: tuple) -> Iterator[dict[str, Any]]:
        measure = EMImageProcessor(*percentiles)
        # decoders and percentiles let other threads work; few rows at a time, for they may be large
        with ThreadPoolExecutor() as pool, tqdm(total=len(files), desc="decoding", unit="image", leave=False) as bar:
            for start in range(0, len(files), ROWS_IN_MEMORY):
                paths = [path for path, _, _ in files[start : start + ROWS_IN_MEMORY]]
                for row in pool.map(lambda path: _row(read_micrograph(path), measure), paths):
                    yield row
                    bar.update()

    bars_were_shown = not are_progress_bars_disabled()
    disable_progress_bars()  # its own bar counts rows without a total
    try:
        return Dataset.from_generator(
            decoded_rows,
            # sizes and times of change are part of the cache's key: an edited file is decoded again
            gen_kwargs={"files": files, "percentiles": (processor.low, processor.high, processor.clip)},
            features=_features(),
            writer_batch_size=ROWS_IN_MEMORY,
        )
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, EMError):
            raise error.__cause__ from error
        raise EMError(
            f"the decoded micrographs could not be written to the cache of datasets: {error.__cause__}"
        ) from error
    finally:
        if bars_were_shown:
            enable_progress_bars()


def _features() -> Any:
    from datasets import Features, Value

    kinds = {"pixels": "large_binary", "height": "int64", "width": "int64", "dtype": "string"}
    return Features({name: Value(kind) for name, kind in (kinds | {"offset": "float64", "scale": "float64"}).items()})


def _row(micrograph: Micrograph, processor: EMImageProcessor) -> dict[str, Any]:
    image = micrograph.array
    try:
        statistics = processor.statistics(image)
    except EMError as error:
        raise EMError(f"{micrograph.name}: {error}") from error
    kept = image.astype(np.float32) if image.dtype == np.float64 else image
    return {
        "pixels": np.ascontiguousarray(kept).tobytes(),
        "height": image.shape[0],
        "width": image.shape[1],
        "dtype": kept.dtype.str,
        "offset": statistics.offset,
        "scale": statistics.scale,
    }


def _fits(encoded_bytes: int) -> bool:
    """Tell whether the decoded pixels of so many bytes of image files fit on the disk of the cache."""
    from datasets.config import HF_DATASETS_CACHE

    place = Path(HF_DATASETS_CACHE)
    while not place.exists():
        place = place.parent
    return EXPANSION * encoded_bytes < shutil.disk_usage(place).free
