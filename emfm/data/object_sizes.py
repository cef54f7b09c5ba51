"""How large objects are, and what a network should see of them."""

from collections.abc import Sequence

import numpy as np

# A network sees micrographs scaled down while their typical object, and almost all of them, stay
# at least so large, in pixels.
TYPICAL, ALMOST_ALL = 32.0, 5.0
# This share of the objects may be smaller than that.
SMALLER = 0.1
# Objects smaller than this share of all are exceptions.
SMALLEST = 0.02
SHRINKS = (4, 2)


def diameters(ids: np.ndarray) -> np.ndarray:
    """Return the equivalent diameters in pixels of numbered objects (H, W)."""
    areas = np.bincount(ids[ids > 0].ravel()) if (ids > 0).any() else np.zeros(0)
    return 2 * np.sqrt(areas[areas > 0] / np.pi)


def least_area(numbered: Sequence[np.ndarray], most: int) -> int:
    """Return half the area of the smallest usual objects, in pixels, at most so many."""
    found = np.concatenate([np.zeros(0), *map(diameters, numbered)])
    if not len(found):
        return most
    smallest = float(np.quantile(found, SMALLEST))
    return int(np.clip(np.pi / 8 * smallest**2, 1, most))


def shrink_for(numbered: Sequence[np.ndarray]) -> int:
    """Return how many times micrographs are scaled down for a network: 1, 2 or 4.

    What fits into a crop grows with it, and so does what is learnt of large objects in a time. The
    typical diameter is the geometric mean of the micrographs' medians, so that one with very many
    objects does not decide alone.
    """
    found = [sizes for sizes in map(diameters, numbered) if len(sizes)]
    if not found:
        return 1
    typical = float(np.exp(np.mean([np.log(np.median(sizes)) for sizes in found])))
    small = float(np.quantile(np.concatenate(found), SMALLER))
    return next((shrink for shrink in SHRINKS if typical >= TYPICAL * shrink and small >= ALMOST_ALL * shrink), 1)
