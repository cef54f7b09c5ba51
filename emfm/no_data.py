"""Pixels without data: NaN, as in the padding of aligned images, or a value that is stated.

They take no part in statistics, training and measurement.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from emfm.errors import EMError
from emfm.io.large_images import READ_PIXELS, LazyImage, release_pages

logger = logging.getLogger(__name__)
# Integers of so many bytes at most are float32 without loss.
EXACT_BYTES = 2
SHOWN = 5  # files of many


def no_data(image: np.ndarray) -> np.ndarray | None:
    """Return where an image (H, W) has no data, None where it has data everywhere."""
    if image.dtype.kind != "f":
        return None
    missing = np.isnan(image)
    return missing if missing.any() else None


def without(image: Any, value: float | None) -> Any:
    """Return an image with NaN where it holds a value, as floats; the image itself without a value.

    Up to 16 bits and float32 become float32, others float64. Large images stay in their files.
    """
    if value is None:
        return image
    small = image.dtype == np.float32 or (image.dtype.kind in "biu" and image.dtype.itemsize <= EXACT_BYTES)
    dtype = np.dtype(np.float32 if small else np.float64)

    def read(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        part = np.asarray(image[top:bottom, left:right])
        return np.where(part == value, np.nan, part).astype(dtype)

    height, width = image.shape
    if isinstance(image, np.ndarray) and not isinstance(image, np.memmap):
        return read(0, height, 0, width)
    return LazyImage(image.shape, dtype, getattr(image, "_block", (1, width)), read)


def count_no_data(image: Any) -> int:
    """Return how many pixels of an image (H, W) of any size hold no data."""
    if image.dtype.kind != "f":
        return 0
    rows = max(1, READ_PIXELS // image.shape[1])
    found = 0
    for top in range(0, image.shape[0], rows):
        found += int(np.isnan(np.asarray(image[top : top + rows, :])).sum())
        release_pages(image)
    return found


def say_no_data(name: str, images: Sequence[Any], files: Sequence[str]) -> None:
    """Warn of the pixels that are taken as no data, and in which files."""
    counts = {file: count_no_data(image) for image, file in zip(images, files, strict=True)}
    some = [f"{file} ({count})" for file, count in counts.items() if count]
    if some:
        more = f" and {len(some) - SHOWN} more" if len(some) > SHOWN else ""
        logger.warning("%s: pixels without data are left out: %s", name, ", ".join(some[:SHOWN]) + more)


@lru_cache
def say_data_bar(name: str, rows: int) -> None:
    """Warn, once a file, of the rows that are left out."""
    logger.warning("%s: the %d rows of the microscope's data bar are left out", name, rows)


def filled(image: np.ndarray, missing: np.ndarray | None) -> np.ndarray:
    """Return an image with its median where data are missing, so that filters can run over it."""
    if missing is None:
        return image
    return np.where(missing, np.nanmedian(image), image).astype(image.dtype)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put the name of a file before an error that does not hold it."""
    try:
        yield
    except EMError as error:
        if name in str(error):
            raise
        raise type(error)(f"{name}: {error}") from error
