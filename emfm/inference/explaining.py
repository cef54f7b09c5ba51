"""In which respect a micrograph is unlike others: which change of those would make it."""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial

import numpy as np

from emfm.inference.looks import BORDERS, FREQUENCIES, NOTHING, QUANTILES, SQUARE
from emfm.loading.domain import Respect

# What is tried: white noise of these powers, beside a signal that is so much weaker; blur by these
# standard deviations in pixels; structures that are so many octaves larger.
NOISES, WEAKENED = np.geomspace(0.01, 3, 8), (1.0, 0.3, 0.1)
BLURS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
OCTAVES = (-2.0, -1.5, -1.0, 1.0, 1.5, 2.0)
# Standard deviations in decades of power: of each band, for no change is known better; and of all
# together, for the contrast of what is left, or of another part, is another.
VAGUE = 0.15
GAINS = {"texture": 0.3, "noise": 0.1, "scale": 1.2}
STEP = 1e-3  # by which a spectrum is varied to learn what becomes of its spread
Explanation = tuple[str, str]  # the respect, and what there is to say
Change = Callable[[np.ndarray], np.ndarray]  # of decimal logarithms of the power at `FREQUENCIES`


def explained(found: np.ndarray, known: Respect) -> Explanation:
    """Return which change of the training's micrographs makes a micrograph's spectrum likeliest.

    What these differ in is changed, too: where they vary in fine detail, their enlargements vary in
    coarser.

    Args:
        found: (N,) decimal logarithms of the power at `FREQUENCIES`.
        known: the same of the training's micrographs.
    """
    covariance = known.covariance()
    tried = [(_unlikely(found, known.mean, covariance, change, GAINS[why[0]]), why) for change, why in _changes()]
    return min(tried)[1]


def is_inverted(found: Mapping[str, np.ndarray], known: Mapping[str, Respect]) -> bool:
    """Return whether a micrograph were more like the training's if dark were bright.

    Args:
        found: "contrast" and "polarity" of its looks.
        known: these of the training's micrographs, or the first alone.
    """
    number = len(QUANTILES)
    levels, skewness = np.split(found["contrast"], [number])
    turned = {"contrast": np.concatenate([-levels[::-1], -skewness]), "polarity": -found["polarity"]}
    as_is, other = (
        max(known[kind].distance(one[kind]) / known[kind].limit for kind in turned if kind in known)
        for one in (found, turned)
    )
    return other < as_is


def _unlikely(found: np.ndarray, mean: np.ndarray, covariance: np.ndarray, change: Change, gain: float) -> float:
    """Return minus twice the logarithm of a spectrum's likelihood, up to a constant."""
    expected = change(mean)
    varied = [change(mean + STEP * one) for one in np.eye(len(mean))]
    slopes = (np.stack(varied, axis=1) - expected[:, None]) / STEP
    shares = 1 - NOTHING / 10**expected  # of the power that follows the contrast
    spread = slopes @ covariance @ slopes.T + VAGUE**2 * np.eye(len(mean)) + gain**2 * np.outer(shares, shares)
    apart = found - expected
    return float(apart @ np.linalg.solve(spread, apart) + np.linalg.slogdet(spread)[1])


def _changes() -> Iterator[tuple[Change, Explanation]]:
    """Yield what may have been done to a micrograph, and what it is called."""
    yield partial(_blurred, 0.0), ("texture", "another texture")
    for noise in NOISES:
        for share in WEAKENED:
            yield partial(_noisy, noise, share), ("noise", "more noise")
    for blur in BLURS:
        yield partial(_blurred, blur), ("texture", "less fine detail, as if blurred")
    for octaves in OCTAVES:
        yield partial(_scaled, octaves), ("scale", _sizes(octaves))


def _noisy(noise: float, share: float, levels: np.ndarray) -> np.ndarray:
    return np.log10(share * 10**levels + noise)


def _blurred(blur: float, levels: np.ndarray) -> np.ndarray:
    frequencies = np.hypot(*_grid())
    return _banded(_power(frequencies, levels) * np.exp(-((2 * np.pi * blur * frequencies) ** 2)))


def _scaled(octaves: float, levels: np.ndarray) -> np.ndarray:
    """Return the spectrum with all structures larger.

    Enlarged by interpolation with cubic splines, an image has no structures of its own above
    some frequency, but weak copies of those below.
    """
    times = 2.0**octaves
    across, down = (axis * times for axis in _grid())
    if octaves < 0:
        return _banded(times**2 * _power(np.hypot(across, down), levels))
    copied = np.hypot(across - np.round(across), down - np.round(down))
    return _banded(times**2 * _power(copied, levels) * _passed(across) * _passed(down))


def _passed(frequencies: np.ndarray) -> np.ndarray:
    """Return which share of the power a cubic spline passes, by frequency in cycles a knot."""
    return (np.sinc(frequencies) ** 4 * 3 / (2 + np.cos(2 * np.pi * frequencies))) ** 2


@lru_cache(1)
def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Return frequencies across and down in cycles a pixel, of one quarter of the plane."""
    one = np.arange(SQUARE // 2 + 1) / SQUARE
    down, across = np.meshgrid(one, one, indexing="ij")
    return across, down


@lru_cache(1)
def _bands() -> tuple[np.ndarray, np.ndarray]:
    """Return the band of each frequency of the grid, and how many lie in each band."""
    bands = np.digitize(np.hypot(*_grid()), BORDERS).ravel()
    bands[0] = len(FREQUENCIES)  # the mean is no structure
    return bands, np.bincount(bands)[:-1]


def _banded(power: np.ndarray) -> np.ndarray:
    """Return decimal logarithms of the mean power in each band, of that on the grid."""
    bands, counts = _bands()
    return np.log10(np.bincount(bands, power.ravel())[:-1] / counts + NOTHING)


def _power(frequencies: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return the power of a spectrum between its bands, and as its slope says below them."""
    places, asked = np.log2(FREQUENCIES), np.log2(np.maximum(frequencies, 2.0**-12))
    slope = min(0.0, float((levels[3] - levels[0]) / (places[3] - places[0])))
    found = np.interp(asked, places, levels) + slope * np.minimum(asked - places[0], 0)
    return (10**found - NOTHING).clip(0)


def _sizes(octaves: float) -> str:
    times = 2.0 ** abs(octaves)
    return f"structures are about {times:.2g} times {'larger' if octaves > 0 else 'smaller'}"
