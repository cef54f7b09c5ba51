"""Unlabelled micrographs for pretraining: folders or datasets, measured once, read at random."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from emfm.data.decoded_cache import decode_dataset, decode_files, fits
from emfm.data.sources import is_dataset
from emfm.io.reading import FileChoice, list_micrographs, open_stack, read_micrograph
from emfm.no_data import naming, say_data_bar, without
from emfm.processing import EMImageProcessor, IntensityStatistics

logger = logging.getLogger(__name__)
ALL = FileChoice()  # the only image of each file, and no colour


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
    """Micrographs read anew at each access, measured at the first: for data beyond the cache."""

    def __init__(
        self, files: Sequence[str], processor: EMImageProcessor, nodata: float | None = None, choice: FileChoice = ALL
    ):
        self._processor, self._nodata, self._choice = processor, nodata, choice
        self._places = [(file, index) for file in files for index in range(len(open_stack(file, choice)))]
        self._statistics: dict[int, IntensityStatistics] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[np.ndarray, IntensityStatistics]:
        file, number = self._places[index]
        micrograph = read_micrograph(file, number, dataset=self._choice.dataset_in(file), colour=self._choice.colour)
        if micrograph.data_bar:
            say_data_bar(file, micrograph.data_bar)
        image = without(micrograph.without_data_bar().array, self._nodata)
        if index not in self._statistics:
            with naming(file):
                self._statistics[index] = self._processor.statistics(image)
        return image, self._statistics[index]


def open_micrographs(
    source: str, processor: EMImageProcessor, nodata: float | None = None, choice: FileChoice = ALL
) -> Micrographs:
    """Open a folder of micrographs or of parquet files, or a dataset of the Hub (`owner/name`).

    Each slice of a stack counts. Pixels that are NaN or `nodata` hold no data: they are measured
    nowhere.

    Raises:
        EMError: nothing goes by this name, or a micrograph is broken.
    """
    if is_dataset(source):
        return decode_dataset(source, processor, nodata, choice.colour)
    files = tuple((str(path), *_size_and_time(path)) for path in list_micrographs(source))
    choice.check((path for path, _, _ in files), source)
    if not fits(sum(size for _, size, _ in files)):
        logger.warning("%s does not fit into the cache of datasets: every crop decodes its file anew", source)
        return Undecoded([path for path, _, _ in files], processor, nodata, choice)
    return decode_files(files, processor, nodata, choice)


def _size_and_time(path: Path) -> tuple[int, int]:
    """Return bytes and newest time of change (ns) of a file, or of all files of a Zarr folder."""
    stats = [file.stat() for file in (path.rglob("*") if path.is_dir() else [path])]
    return sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)
