"""Resampling of micrographs of any size, above all to a pixel size that a model was trained at.

It is done region by region, with the same result as for the whole.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from emfm.errors import EMError
from emfm.io.large_images import release_pages
from emfm.io.reading import Micrograph
from emfm.modeling import EMPreTrainedModel

logger = logging.getLogger(__name__)
# Rounded header fields do not make a pixel size another one.
TOLERANCE = 0.02
# Keys' cubic convolution (1981) reaches two pixels; it is widened where the image shrinks.
CUBIC_REACH = 2.0
BLOCK = 1024


def _cubic(x: np.ndarray) -> np.ndarray:
    """Return Keys' kernel with a = -0.5 at distances x in pixels."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _taps(start: int, stop: int, length: int, new_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the source pixels of new pixels start..stop and their weights, (new, taps) each."""
    ratio = length / new_length
    widened = max(1.0, ratio)
    centres = (np.arange(start, stop) + 0.5) * ratio - 0.5
    first = np.floor(centres - CUBIC_REACH * widened).astype(np.int64)
    indices = first[:, None] + np.arange(int(2 * np.ceil(CUBIC_REACH * widened)) + 2)
    weights = _cubic((indices - centres[:, None]) / widened)
    weights[(indices < 0) | (indices >= length)] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    return np.clip(indices, 0, length - 1), weights.astype(np.float32)


class Resampled:
    """A micrograph with another number of pixels, computed on demand: `image[rows, columns]`.

    Args:
        source: (H, W), any array that can be sliced.
        shape: new height and width; the image covers the same field.
        nearest: take the nearest pixel (class indices); else cubic convolution in float32.
    """

    ndim = 2

    def __init__(self, source: Any, shape: tuple[int, int], nearest: bool = False):
        self._source, self.nearest = source, nearest
        self.shape = (int(shape[0]), int(shape[1]))
        self.size = self.shape[0] * self.shape[1]
        self.dtype = np.dtype(source.dtype) if nearest else np.dtype(np.float32)

    def __getitem__(self, region: tuple[slice, slice]) -> np.ndarray:
        (top, bottom, down), (left, right, along) = (
            part.indices(side) for part, side in zip(region, self.shape, strict=True)
        )
        if top >= bottom or left >= right:
            return np.empty((max(0, bottom - top), max(0, right - left)), dtype=self.dtype)[::down, ::along]
        part = self._closest if self.nearest else self._convolved
        return part((top, bottom), (left, right))[::down, ::along]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:, :] if dtype is None else self[:, :].astype(dtype)

    def _region(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the source between the smallest and the largest indices."""
        found = np.asarray(self._source[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1])
        release_pages(self._source)
        return found

    def _closest(self, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
        indices = [
            ((2 * np.arange(*span) + 1) * old // (2 * new))
            for span, old, new in zip((rows, columns), self._source.shape, self.shape, strict=True)
        ]
        region = self._region(*indices)
        return region[(indices[0] - indices[0][0])[:, None], indices[1] - indices[1][0]]

    def _convolved(self, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
        (row_taps, row_weights), (column_taps, column_weights) = (
            _taps(*span, old, new)
            for span, old, new in zip((rows, columns), self._source.shape, self.shape, strict=True)
        )
        region = self._region(row_taps, column_taps).astype(np.float32)
        row_taps, column_taps = row_taps - row_taps.min(), column_taps - column_taps.min()
        upright = np.zeros((len(row_taps), region.shape[1]), dtype=np.float32)
        for tap, weight in zip(row_taps.T, row_weights.T, strict=True):
            upright += weight[:, None] * region[tap]
        result = np.zeros((len(row_taps), len(column_taps)), dtype=np.float32)
        for tap, weight in zip(column_taps.T, column_weights.T, strict=True):
            result += weight * upright[:, tap]
        return result


def blocks_of(shape: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of blocks that cover an image of some shape."""
    for top in range(0, shape[0], BLOCK):
        for left in range(0, shape[1], BLOCK):
            yield slice(top, min(top + BLOCK, shape[0])), slice(left, min(left + BLOCK, shape[1]))


def _fitting(model: EMPreTrainedModel, pixel_size: float) -> float:
    """Return the pixel size in nm, the nearest within the range that the model was trained at."""
    smallest, largest = model.config.pixel_size_range
    if smallest / (1 + TOLERANCE) <= pixel_size <= largest * (1 + TOLERANCE):
        return pixel_size
    return min(max(pixel_size, smallest), largest)


def check_pixel_size(model: EMPreTrainedModel, micrograph: Micrograph) -> None:
    """Log a warning where a micrograph's pixel size is known and not one of the training."""
    known, trained_at = micrograph.pixel_size, model.config.pixel_size_range
    if known is not None and trained_at is not None and _fitting(model, known) != known:
        message = "%s has %.4g nm per pixel, the model was trained at %.4g to %.4g: --match-pixel-size resamples it"
        logger.warning(message, micrograph.name, known, *trained_at)


def matched(model: EMPreTrainedModel, micrograph: Micrograph) -> Micrograph:
    """Return a micrograph at a pixel size of the training: itself, or resampled as it is read.

    Raises:
        EMError: the model's or the micrograph's pixel size is not known.
    """
    if model.config.pixel_size_range is None:
        raise EMError("this model does not say which pixel sizes it was trained at: leave --match-pixel-size out")
    if micrograph.pixel_size is None:
        raise EMError(f"{micrograph.name} does not say its pixel size: give it with --pixel-size NM")
    target = _fitting(model, micrograph.pixel_size)
    if target == micrograph.pixel_size:
        return micrograph
    height, width = (max(1, round(side * micrograph.pixel_size / target)) for side in micrograph.image.shape)
    image: Any = Resampled(micrograph.image, (height, width))
    return replace(micrograph, image=image, pixel_size=target)
