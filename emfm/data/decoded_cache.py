"""Decoded and measured micrographs in the cache of `datasets`.

The pixels go into an Arrow file in their own dtype and are memory-mapped: all processes and data
workers of a machine share one copy, memory stays flat, and a second run starts at once.
"""

import logging
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emfm.data.hub_images import decode, load_images
from emfm.errors import EMError
from emfm.files import reason_of, writable_folder
from emfm.io.bar_look import say_seen_bars
from emfm.io.reading import FileChoice, Micrograph, decode_micrograph, read_slices
from emfm.no_data import count_no_data, naming, say_data_bar, without
from emfm.processing import EMImageProcessor, IntensityStatistics

if TYPE_CHECKING:
    from datasets import Dataset, Features

logger = logging.getLogger(__name__)
# Decoded pixels take about twice the space of PNG files; more for JPEG.
EXPANSION = 4
# Large micrographs make large rows: few are held in memory before they are written.
ROWS_IN_MEMORY = 16
ANOTHER_CACHE = "set HF_HOME or HF_DATASETS_CACHE to a folder on a larger disk"
COLUMNS = {
    "pixels": "large_binary",
    "height": "int64",
    "width": "int64",
    "dtype": "string",
    "offset": "float64",
    "scale": "float64",
}
File = tuple[str, int, int]  # path, size in bytes, time of change in ns
Percentiles = tuple[float, float, float]  # low, high and clip of the processor


class Decoded:
    """Micrographs by index, with statistics, out of a memory-mapped Arrow table of `COLUMNS`."""

    def __init__(self, rows: "Dataset"):
        self._rows = rows.with_format("arrow")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, IntensityStatistics]:
        row = self._rows[index]
        height, width, dtype, offset, scale = (row[name][0].as_py() for name in list(COLUMNS)[1:])
        pixels = np.frombuffer(row["pixels"][0].as_buffer(), dtype=dtype).reshape(height, width)
        return pixels, IntensityStatistics(offset, scale)


def decode_dataset(
    source: str, processor: EMImageProcessor, nodata: float | None = None, colour: str | None = None
) -> Decoded:
    """Decode the images of a dataset.

    Raises:
        EMError: it cannot be loaded, does not fit on the disk, or an image is broken.
    """
    check_cache()
    data, column = load_images(source, streaming=False)
    if not fits(data.data.nbytes):
        raise EMError(f"decoded, the dataset '{source}' does not fit on this disk: use --streaming")

    def decoded_row(sample: dict[str, Any], index: int, percentiles: Percentiles) -> dict[str, Any]:
        name = f"{source}, row {index}, {column}"
        micrograph = decode(sample["image"], name, partial(decode_micrograph, colour=colour))
        return _row(micrograph, EMImageProcessor(*percentiles), name, nodata)

    rows = data.map(
        decoded_row,
        with_indices=True,
        fn_kwargs={"percentiles": _percentiles(processor)},
        remove_columns=["image"],
        features=_features(),
        writer_batch_size=ROWS_IN_MEMORY,
        desc="decoding",
    )
    return Decoded(rows)


def decode_files(
    files: tuple[File, ...], processor: EMImageProcessor, nodata: float | None, choice: FileChoice
) -> Decoded:
    """Decode image files, all slices of stacks; an edited file is seen by its size and time.

    The files are a tuple, for `datasets` would take a list for shards.

    Raises:
        EMError: a file is broken, or the cache cannot be written.
    """
    from datasets import Dataset, are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from datasets.exceptions import DatasetGenerationError

    check_cache()
    bars_were_shown = not are_progress_bars_disabled()
    disable_progress_bars()  # its own bar counts rows without a total
    try:
        rows = Dataset.from_generator(
            _decoded_rows,
            gen_kwargs={"files": files, "percentiles": _percentiles(processor), "nodata": nodata, "choice": choice},
            features=_features(),
            writer_batch_size=ROWS_IN_MEMORY,
        )
    except DatasetGenerationError as error:
        cause = error.__cause__
        if isinstance(cause, EMError):
            raise cause from error
        reason = reason_of(cause or error) or cause
        raise EMError(f"cannot write decoded micrographs to {cache_folder()}: {reason}: {ANOTHER_CACHE}") from error
    finally:
        if bars_were_shown:
            enable_progress_bars()
    return Decoded(rows)


def cache_folder() -> Path:
    """Return the folder in which `datasets` keeps what is decoded."""
    from datasets.config import HF_DATASETS_CACHE

    return Path(HF_DATASETS_CACHE)


def check_cache() -> None:
    """Raise an EMError, before anything is decoded, where the cache cannot be made or written."""
    writable_folder(cache_folder(), "cache with HF_HOME or HF_DATASETS_CACHE")


def fits(encoded_bytes: int) -> bool:
    """Tell whether so many bytes of image files fit, decoded, on the disk of the cache."""
    place = cache_folder()
    while not place.exists():
        place = place.parent
    return EXPANSION * encoded_bytes < shutil.disk_usage(place).free


def _decoded_rows(
    files: tuple[File, ...], percentiles: Percentiles, nodata: float | None, choice: FileChoice
) -> Iterator[dict[str, Any]]:
    from tqdm.auto import tqdm

    measure = EMImageProcessor(*percentiles)
    # decoders and percentiles let other threads work; few rows at a time, for they may be large
    with ThreadPoolExecutor() as pool, tqdm(total=len(files), desc="decoding", unit="image", leave=False) as bar:
        for start in range(0, len(files), ROWS_IN_MEMORY):
            paths = [path for path, _, _ in files[start : start + ROWS_IN_MEMORY]]
            for rows in pool.map(lambda path: _rows_of(path, choice, measure, nodata), paths):
                yield from rows
                bar.update()


def _rows_of(
    path: str, choice: FileChoice, processor: EMImageProcessor, nodata: float | None
) -> Iterable[dict[str, Any]]:
    """Return the row of a file's only image; those of a stack are decoded when asked for."""
    slices = read_slices(path, choice)
    first = next(slices)
    if first.index is None:
        return [_row(first, processor, path, nodata)]
    return (_row(each, processor, f"{path}[{each.index}]", nodata) for each in chain([first], slices))


def _percentiles(processor: EMImageProcessor) -> Percentiles:
    return processor.low, processor.high, processor.clip


def _features() -> "Features":
    from datasets import Features, Value

    return Features({name: Value(kind) for name, kind in COLUMNS.items()})


def _row(micrograph: Micrograph, processor: EMImageProcessor, name: str, nodata: float | None) -> dict[str, Any]:
    if micrograph.data_bar:
        say_data_bar(name, micrograph.data_bar)
    else:
        say_seen_bars([micrograph.image], [name])
    image = without(micrograph.without_data_bar().array, nodata)
    with naming(name):
        statistics = processor.statistics(image)
    missing = count_no_data(image)
    if missing:
        logger.warning("%s: %d pixels hold no data", name, missing)
    kept = image.astype(np.float32) if image.dtype == np.float64 else image
    return {
        "pixels": np.ascontiguousarray(kept).tobytes(),
        "height": image.shape[0],
        "width": image.shape[1],
        "dtype": kept.dtype.str,
        "offset": statistics.offset,
        "scale": statistics.scale,
    }
