"""In which respect a micrograph is unlike others: what would make their spectrum its own."""

from collections.abc import Iterator

import numpy as np

from emfm.inference.looks import FREQUENCIES, NOTHING

# What is tried: white noise of these powers, beside a signal that is so much weaker; blur by these
# standard deviations in pixels, beside which the rest is so much stronger; structures that are so
# many octaves larger.
NOISES, GAINS = np.geomspace(0.01, 3, 8), (1.0, 0.3, 0.1)
BLURS, BLURRED_GAINS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0), (1.0, 1.6, 2.5)
OCTAVES = (-2.0, -1.5, -1.0, 1.0, 1.5, 2.0)
# An enlarged image has less power between these frequencies, times the enlargement, and none above.
FADING, GONE, FADED = 0.35, 0.55, 0.8
Explanation = tuple[str, str]  # the respect, and what there is to say


def explained(found: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> Explanation:
    """Return which change of the training's spectrum comes nearest to a micrograph's.

    Args:
        found: (N,) decimal logarithms of the power at `FREQUENCIES`.
        mean: (N,) the same of the training's micrographs.
        spread: (N,) their standard deviations.
    """
    tried = [
        (float(np.sqrt((((found - expected) / spread) ** 2).mean())), why) for expected, why in _changed(found, mean)
    ]
    return min(tried)[1]


def _changed(found: np.ndarray, mean: np.ndarray) -> Iterator[tuple[np.ndarray, Explanation]]:
    """Yield spectra that the training's would become, and what it is called."""
    power = 10**mean - NOTHING
    yield mean, ("texture", "another texture")
    for noise in NOISES:
        for gain in GAINS:
            yield np.log10(gain * 10**mean + noise), ("noise", "more noise")
    for blur in BLURS:
        for gain in BLURRED_GAINS:
            left = gain * power.clip(0) * np.exp(-((2 * np.pi * blur * FREQUENCIES) ** 2))
            yield np.log10(left + NOTHING), ("texture", "less fine detail, as if blurred")
    for octaves in OCTAVES:
        yield _scaled(found, mean, octaves), ("scale", _sizes(octaves))


def _scaled(found: np.ndarray, mean: np.ndarray, octaves: float) -> np.ndarray:
    """Return the spectrum with all structures larger; its contrast is as found."""
    places = np.log2(FREQUENCIES)
    asked = places + octaves
    expected = np.interp(asked, places, mean) + 2 * octaves * np.log10(2)
    slope = min(0.0, float((mean[3] - mean[0]) / (places[3] - places[0])))
    expected += slope * np.minimum(asked - places[0], 0)  # of larger structures than were measured
    enlarged = FREQUENCIES * 2**octaves
    if octaves > 0:
        expected = np.where(enlarged > FADING, expected - FADED, expected)
        expected = np.where(enlarged > GONE, np.log10(NOTHING), expected)
    seen = enlarged <= FADING if octaves > 0 else np.ones(len(mean), dtype=bool)
    expected = np.where(enlarged > GONE, expected, expected + np.median((found - expected)[seen]))
    return np.maximum(expected, np.log10(NOTHING))


def _sizes(octaves: float) -> str:
    times = 2.0 ** abs(octaves)
    return f"structures are about {times:.2g} times {'larger' if octaves > 0 else 'smaller'}"
