"""How the noise of a micrograph is correlated, which decides how it can be learnt without truth."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from emfm.no_data import filled, no_data

# Correlations beyond this distance in pixels are not looked at.
LAGS = 8
# A correlation above this is one; along lines it must exceed that across them by as much.
CORRELATED = 0.15
# Pixels of a micrograph that are looked at, from its middle.
SIDE = 1024
# Neighbouring slices that resemble each other at least this much, smoothed, show the same place.
SAME_PLACE, SMOOTHED = 0.9, 3.0


@dataclass(frozen=True)
class NoiseCorrelation:
    """Autocorrelation of a micrograph's noise at distances of 1 to 8 pixels, 1 for equal."""

    rows: tuple[float, ...]  #: along rows, as scan-line noise has it
    columns: tuple[float, ...]  #: along columns

    @property
    def kind(self) -> str:
        """Return "pixels" for independent ones, "rows" or "columns" for lines."""
        across, down = self.rows[0], self.columns[0]
        if across > CORRELATED and across > down + CORRELATED:
            return "rows"
        if down > CORRELATED and down > across + CORRELATED:
            return "columns"
        return "pixels"

    @property
    def reach(self) -> int:
        """Return how many pixels along the lines are correlated with one, 1 at least."""
        values = self.rows if self.kind == "rows" else self.columns
        return next((lag for lag, value in enumerate(values, start=1) if value < CORRELATED), LAGS)


def noise_correlation(image: np.ndarray) -> NoiseCorrelation:
    """Measure the autocorrelation of the noise of a micrograph (H, W), its structure removed.

    What a pixel differs from the mean of its two neighbours across the direction is nearly all
    noise where structures are wider than three pixels.
    """
    top, left = (max(0, (length - SIDE) // 2) for length in image.shape)
    part = np.asarray(image[top : top + SIDE, left : left + SIDE], dtype=np.float64)
    part = filled(part, no_data(part))
    return NoiseCorrelation(_along_rows(part), _along_rows(part.T))


def _along_rows(image: np.ndarray) -> tuple[float, ...]:
    if image.shape[0] < 3 or image.shape[1] <= LAGS + 1:
        return (0.0,) * LAGS
    noise = image[1:-1] - (image[:-2] + image[2:]) / 2
    noise = noise - ndimage.uniform_filter1d(noise, 16 * LAGS + 1, axis=1)  # what is left of structure
    variance = float((noise * noise).mean())
    if variance == 0:
        return (0.0,) * LAGS
    return tuple(float((noise[:, lag:] * noise[:, :-lag]).mean()) / variance for lag in range(1, LAGS + 1))


def same_place(first: np.ndarray, second: np.ndarray) -> bool:
    """Tell whether two slices show the same place with noise of their own.

    Smoothed they must resemble each other; what the smoothing removes must not.
    """
    smooth = [ndimage.gaussian_filter(np.asarray(image, dtype=np.float64), SMOOTHED) for image in (first, second)]
    if min(image.std() for image in smooth) == 0:
        return False
    structure = np.corrcoef(smooth[0].ravel(), smooth[1].ravel())[0, 1]
    noises = [np.diff(np.asarray(image, dtype=np.float64), n=2, axis=1).ravel() for image in (first, second)]
    if min(noise.std() for noise in noises) == 0:
        return False
    return bool(structure > SAME_PLACE and np.corrcoef(noises[0], noises[1])[0, 1] < CORRELATED)


def noise_deviation(values: np.ndarray) -> float:
    """Return the standard deviation of the noise of values (H, W), from their finest structure.

    After Immerkaer 1996; the median over the pixels leaves edges out.
    """
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
    return float(np.median(np.abs(ndimage.convolve(values, kernel, mode="mirror")))) / 6 / 0.6745
