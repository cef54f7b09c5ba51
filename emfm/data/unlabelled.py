"""Unlabelled micrographs for pretraining: folders or datasets, measured once, then read at random."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from emfm.data.decoded_cache import decode_dataset, decode_files, fits
from emfm.data.sources import is_dataset
from emfm.io.reading import list_micrographs, read_micrograph
from emfm.processing import EMImageProcessor, IntensityStatistics

logger = logging.getLogger(__name__)


class Micrographs(Protocol):
    """Micrographs by index, each with its own statistics."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, IntensityStatistics]: ...


class InMemory:
    """A few micrographs held as arrays (H, W) in their own dtype, measured once."""

    def __init__(self, images: Sequence[np.ndarray], processor: EMImageProcessor):
        self._images = [(image, processor.statistics(image)) for image in images]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, IntensityStatistics]:
        return self._images[index]


class Undecoded:
    """Micrographs read anew at every access, each measured at the first: for data too large for the cache."""

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
    """Open a folder of micrographs, a folder of parquet files, or a dataset of the Hub (`owner/name`).

    Raises:
        EMError: nothing goes by this name, or a micrograph is broken.
    """
    if is_dataset(source):
        return decode_dataset(source, processor)
    files = tuple((str(path), *_size_and_time(path)) for path in list_micrographs(source))
    if not fits(sum(size for _, size, _ in files)):
        logger.warning("%s does not fit into the cache of datasets: every crop decodes its file anew", source)
        return Undecoded([path for path, _, _ in files], processor)
    return decode_files(files, processor)


def _size_and_time(path: Path) -> tuple[int, int]:
    """Return the bytes and the newest time of change (ns) of a file, or of all files of a Zarr folder."""
    stats = [file.stat() for file in (path.rglob("*") if path.is_dir() else [path])]
    return sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)
