"""From numbers of objects in each slice to numbers of objects in a volume.

An object of one slice goes on in that of the next which it overlaps most, if that holds the other
way round, too. Two slices at a time are looked at, in bands of rows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from emfm.io.large_images import release_pages

# Two objects are one where they share so much of the smaller of them.
LEAST_SHARE = 0.5
BAND_PIXELS = 2**21


def link_slices(count: int, read: Callable[[int], Any]) -> tuple[list[np.ndarray], int]:
    """Link the objects of consecutive slices.

    Numbers in the volume follow the first slice of an object, then its number there, from 1 on.

    Args:
        count: of the slices.
        read: returns the numbers of objects in a slice (H, W), 0 is the background.

    Returns:
        For each slice an array that holds an object's number in the volume at its number in the
        slice, 0 where there is none; and how many objects the volume has.
    """
    links: list[np.ndarray] = []
    total = 0
    above: Any = None
    for number in range(count):
        below = read(number)
        pairs, shared = overlaps(below if above is None else above, below)
        numbers = np.unique(pairs[:, 1])
        numbers = numbers[numbers > 0]
        found = np.zeros(int(numbers.max(initial=0)) + 1, dtype=np.uint32)
        if above is not None:
            first, second = partners(pairs, shared)
            found[second] = links[-1][first]
        new = numbers[found[numbers] == 0]
        found[new] = np.arange(total + 1, total + 1 + len(new))
        total += len(new)
        links.append(found)
        above = below
    return links, total


def overlaps(above: Any, below: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return each pair (N, 2) of numbers that share pixels of two slices, and how many (N,).

    The background, 0, counts as a number, too.
    """
    height, width = below.shape
    step = max(1, BAND_PIXELS // width)
    keys, counts = [], []
    for top in range(0, height, step):
        parts = [np.asarray(ids[top : top + step]).astype(np.uint64).ravel() for ids in (above, below)]
        found, times = np.unique(parts[0] << np.uint64(32) | parts[1], return_counts=True)
        keys.append(found)
        counts.append(times)
        for ids in (above, below):
            release_pages(ids)
    pairs, place = np.unique(np.concatenate(keys), return_inverse=True)
    shared = np.bincount(place, weights=np.concatenate(counts), minlength=len(pairs))
    split = np.stack([pairs >> np.uint64(32), pairs & np.uint64(2**32 - 1)], axis=1)
    return split.astype(np.int64), shared.astype(np.int64)


def partners(pairs: np.ndarray, shared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which objects of one slice (K,) go on as which of the next (K,).

    Of each other's partners they have the largest intersection over union, and they share at least
    half of the smaller of the two.

    Args:
        pairs: (N, 2) all numbers that share pixels.
        shared: (N,) how many.
    """
    areas = [np.bincount(side, weights=shared) for side in pairs.T]
    both = (pairs > 0).all(axis=1)
    pairs, shared = pairs[both], shared[both].astype(np.float64)
    first, second = areas[0][pairs[:, 0]], areas[1][pairs[:, 1]]
    overlap = shared / (first + second - shared)
    best = _largest(pairs[:, 0], overlap) & _largest(pairs[:, 1], overlap)
    best &= shared >= LEAST_SHARE * np.minimum(first, second)
    return pairs[best, 0], pairs[best, 1]


def _largest(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return which entry (N,) has the largest value of its group, of equal ones the first."""
    order = np.lexsort((np.arange(len(values)), -values, groups))
    first = np.ones(len(order), dtype=bool)
    first[1:] = groups[order][1:] != groups[order][:-1]
    chosen = np.zeros(len(order), dtype=bool)
    chosen[order[first]] = True
    return chosen


class LinkedSlice:
    """The objects of a slice by their numbers in the volume, looked up in parts: `ids[rows]`.

    Args:
        ids: (H, W) numbers in the slice.
        link: at each of them the number in the volume, as `link_slices` returns it.
    """

    ndim = 2

    def __init__(self, ids: Any, link: np.ndarray):
        self._ids, self._link = ids, link
        self.shape, self.dtype = ids.shape, link.dtype

    def __getitem__(self, region: Any) -> np.ndarray:
        found = self._link[np.asarray(self._ids[region])]
        release_pages(self._ids)
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)
