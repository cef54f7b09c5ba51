"""From numbers of objects in each slice to numbers of objects in a volume.

An object of one slice goes on in that of the next which it overlaps most, if that holds the other
way round, too. What is in a single slice, between two parts of one object, belongs to that. Two
slices at a time are looked at, in bands of rows; of each pair it is kept which objects overlap.
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
    tables: list[tuple[np.ndarray, np.ndarray]] = []
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
            tables.append((pairs, shared))
        new = numbers[found[numbers] == 0]
        found[new] = np.arange(total + 1, total + 1 + len(new))
        total += len(new)
        links.append(found)
        above = below
    _take_in(links, tables, total)
    return _renumbered(links)


def _take_in(links: list[np.ndarray], tables: list[tuple[np.ndarray, np.ndarray]], total: int) -> None:
    """Give what is in one slice alone to the object that holds most of it above and below."""
    slices = np.zeros(total + 1, dtype=np.int64)
    for link in links:
        slices[link] += 1
    for number in range(1, len(links) - 1):
        link = links[number]
        above = links[number - 1][holders(*tables[number - 1], 1, len(link))]
        below = links[number + 1][holders(*tables[number], 0, len(link))]
        taken = (slices[link] == 1) & (above == below) & (above > 0)
        link[taken] = above[taken]


def holders(pairs: np.ndarray, shared: np.ndarray, side: int, size: int) -> np.ndarray:
    """Return which object of the other slice holds more than half of each number (size,), or 0.

    Arguments are those of `partners`, and the column of the numbers: 0 above, 1 below.
    """
    own, other = pairs[:, side], pairs[:, 1 - side]
    areas = np.bincount(own, weights=shared, minlength=size)
    held = (own > 0) & (other > 0) & (2 * shared > areas[own])
    found = np.zeros(size, dtype=np.int64)
    found[own[held]] = other[held]
    return found


def _renumbered(links: list[np.ndarray]) -> tuple[list[np.ndarray], int]:
    """Return the links with numbers that none is missing of, and the highest."""
    used = np.unique(np.concatenate([np.zeros(1, np.uint32), *links]))
    return [np.searchsorted(used, link).astype(np.uint32) for link in links], len(used) - 1


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
