"""What a micrograph looks like, in figures that have names: grey levels, spectrum and polarity."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import fft

from emfm.inference.blocks import spread
from emfm.io.large_images import release_pages
from emfm.no_data import filled, no_data
from emfm.processing import EMImageProcessor, IntensityStatistics

# Squares of this side in pixels are looked at, one for so many pixels of the micrograph, between so
# many: they lie all over it, and cost far less than a prediction.
SQUARE, PIXELS_EACH, FEWEST, MOST = 128, 256 * 256, 4, 16
# Grey levels are told by these quantiles, and by skewness at three sizes, which weighs less.
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SKEWNESS_WEIGHT = 0.3
# Borders of the spectrum's bands, half octaves, in cycles a pixel, and the middle of each band.
BORDERS = 2.0 ** np.arange(-6, -0.4, 0.5)
FREQUENCIES = np.concatenate([[BORDERS[0] * 2**-0.5], BORDERS[:-1] * 2**0.25, [0.75]])
# Less power than this, of network values, is nothing: rounding to 8 bits makes as much.
NOTHING = 1e-4
# Whether details are darker or brighter than what is around them is told at 2, 4 and 8 pixels.
POLARITIES = 3


@dataclass(frozen=True)
class Looks:
    """What a micrograph looks like, in network values, so units do not matter."""

    contrast: tuple[float, ...]  #: quantiles of the grey levels, skewness at 1, 4 and 16 pixels
    spectrum: tuple[float, ...]  #: decimal logarithm of the power at `FREQUENCIES`
    polarity: tuple[float, ...]  #: skewness of details, above 0 where bright ones stand out


def looks_of(image: Any, processor: EMImageProcessor, statistics: IntensityStatistics) -> Looks:
    """Describe a micrograph (H, W), which may lie in its file."""
    height, width = image.shape
    size = min(SQUARE, height), min(SQUARE, width)
    parts = []
    for row, column in spread((height, width), size, int(np.clip(height * width / PIXELS_EACH, FEWEST, MOST)), 1):
        part = np.asarray(image[row : row + size[0], column : column + size[1]])
        values = processor.normalize(filled(part, no_data(part)), statistics)
        parts.append(np.pad(values, ((0, SQUARE - size[0]), (0, SQUARE - size[1])), mode="symmetric"))
    release_pages(image)
    values = np.stack(parts)  # (N, SQUARE, SQUARE)
    return Looks(_contrast(values), _spectrum(values), _polarity(values))


def _contrast(values: np.ndarray) -> tuple[float, ...]:
    found = np.quantile(values, QUANTILES).tolist()
    for _ in range(3):
        found.append(SKEWNESS_WEIGHT * _skewness(values))
        values = _smaller(values, 4)
    return tuple(float(value) for value in found)


def _polarity(values: np.ndarray) -> tuple[float, ...]:
    """Return the skewness of what differs from its four neighbours, at each size.

    Membranes are dark lines, particles bright spots: that changes its sign where the contrast is
    inverted, also where dark and bright have equal shares.
    """
    found = []
    for _ in range(POLARITIES):
        values = _smaller(values, 2)
        around = values[:, :-2, 1:-1] + values[:, 2:, 1:-1] + values[:, 1:-1, :-2] + values[:, 1:-1, 2:]
        found.append(_skewness(values[:, 1:-1, 1:-1] - around / 4))
    return tuple(found)


def _smaller(values: np.ndarray, times: int) -> np.ndarray:
    """Return squares (N, S, S) at a fraction of their size, by means."""
    count, side = len(values), values.shape[-1] // times
    return values.reshape(count, side, times, side, times).mean(axis=(2, 4))


def _skewness(values: np.ndarray) -> float:
    """Return the cube root of the skewness: 0 where dark and bright are alike."""
    centred = values - values.mean()
    square = centred * centred
    return float(np.cbrt((square * centred).mean()) / max(np.sqrt(square.mean()), 1e-3))


@lru_cache(1)
def _bands() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the window, the band of each coefficient of `rfft2`, and how often each counts."""
    one = np.hanning(SQUARE + 2)[1:-1]
    window = np.outer(one, one) / np.mean(one * one)
    frequencies = np.hypot(np.fft.fftfreq(SQUARE)[:, None], np.fft.rfftfreq(SQUARE)[None])
    counted = np.full(frequencies.shape, 2.0)  # the other half is its mirror image
    counted[:, 0] = counted[:, -1] = 1
    counted[0, 0] = 0
    return window.astype(np.float32), np.digitize(frequencies, BORDERS).ravel(), counted.ravel()


def _spectrum(values: np.ndarray) -> tuple[float, ...]:
    window, bands, counted = _bands()
    found = fft.rfft2((values - values.mean(axis=(1, 2), keepdims=True)) * window)
    power = (found.real**2 + found.imag**2).mean(axis=0).ravel() / SQUARE**2
    sums = np.bincount(bands, power * counted, len(FREQUENCIES))
    mean = sums / np.bincount(bands, counted, len(FREQUENCIES))
    return tuple(np.log10(mean + NOTHING).tolist())
