"""From a network's maps to objects: a watershed that grows them from their middles.

Boundaries divide a micrograph into regions. A region belongs to objects where its foreground does
so on the average: a few pixels inside that the network mistakes change nothing.

A micrograph is done in parts. Middles are found in bands of rows and joined across them before
anything grows. Then objects grow block by block; each block looks beyond itself, so an object has
one number however large the micrograph is. Its size alone decides on bands and blocks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.segmentation import watershed

from emfm.io.large_images import release_pages
from emfm.tasks.separation import Separation

USUAL = Separation()
# A region without boundaries belongs to objects where its mean foreground is above this.
SURELY = 0.7
# A hole is filled where it is smaller than this share of its object.
HOLE = 0.25
# What smooths the distance along each axis before, and how many pixels it sees on each side.
BINOMIAL, HALO = (1, 4, 6, 4, 1), 2
# Pixels of a band, and the fewest and most rows of it.
BAND_PIXELS, BAND_ROWS = 2**22, (256, 2048)
# Rows and columns of a block, and how far it looks beyond itself. A pixel farther than that from
# the middle of its object may be missed, at the rim of objects of more than about 800 pixels.
BLOCK, BEYOND = (768, 1536), 192
# Classes of objects that a packed map can hold.
MOST_CLASSES = 256
Write = Callable[[int, int, np.ndarray], None]


def packed(maps: np.ndarray) -> np.ndarray:
    """Return foreground, boundary, distance and classes (3 + K, H, W) as one uint32 map (H, W).

    All are 0 to 1; of the classes the most likely one is kept.
    """
    levels = np.rint(np.clip(maps[:3], 0, 1) * 255).astype(np.uint32)
    likeliest = maps[3:].argmax(axis=0).astype(np.uint32) if len(maps) > 3 else 0
    return levels[0] | levels[1] << 8 | levels[2] << 16 | likeliest << 24


def unpacked(values: np.ndarray) -> np.ndarray:
    """Return foreground, boundary and distance (3, H, W) float32 of what `packed` made."""
    return np.stack([values & 255, values >> 8 & 255, values >> 16 & 255]).astype(np.float32) / 255


def separate(maps: Any, write: Write, classes: int = 0, how: Separation = USUAL) -> np.ndarray:
    """Find the objects in packed maps and write their numbers; return what says their classes.

    Numbers follow the first row of an object's middle, from 1 on; some may be missing. An object
    has the class of the most of its pixels.

    Args:
        maps: (H, W) uint32 as `packed` makes them; read in bands.
        write: receives row, column and a block (h, w) uint32.
        classes: how many there are.
        how: the thresholds.

    Returns:
        (N + 1, K) how many of an object's pixels are most likely of each class, by number; all 0
        without classes.
    """
    cores = _cores(maps, how)
    middles = _middles(maps, cores, how)
    votes = np.zeros((middles.count + 1, max(1, classes)), dtype=np.int64)
    for top in range(0, maps.shape[0], BLOCK[0]):
        rows = _Span.of(top, BLOCK[0], maps.shape[0])
        numbers, core = middles.rows(rows.first, rows.last), cores.rows(rows.first, rows.last) > 0
        for left in range(0, maps.shape[1], BLOCK[1]):
            columns = _Span.of(left, BLOCK[1], maps.shape[1])
            across = slice(columns.first, columns.last)
            seen = np.asarray(maps[rows.first : rows.last, across])
            grown = _grown(seen, numbers[:, across], core[:, across], how, (*rows.goes_on, *columns.goes_on))
            grown = grown[rows.own, columns.own]
            write(top, left, grown.astype(np.uint32))
            if classes:
                inside = grown > 0
                likeliest = np.minimum(seen[rows.own, columns.own][inside] >> 24, classes - 1)
                np.add.at(votes, (grown[inside], likeliest), 1)
            release_pages(maps)
    return votes


@dataclass(frozen=True)
class _Span:
    """Rows or columns of a block: those that are seen, and its own among these."""

    first: int
    last: int  # one past the last that is seen
    own: slice
    goes_on: tuple[bool, bool]  # whether there are others before the first, and after the last

    @classmethod
    def of(cls, start: int, step: int, whole: int) -> "_Span":
        first, last = max(0, start - BEYOND), min(whole, start + step + BEYOND)
        own = slice(start - first, min(start + step, whole) - first)
        return cls(first, last, own, (first > 0, last < whole))


def _grown(
    maps: np.ndarray, middles: np.ndarray, core: np.ndarray, how: Separation, within: tuple[bool, ...]
) -> np.ndarray:
    """Return the objects (h, w) that grow from middles in a part of the packed maps.

    `within` tells of its first and last row and column whether the micrograph goes on there.
    """
    foreground, boundary, distance = _levels(maps)
    inside = np.where(boundary < how.boundary * 255, core, foreground > how.foreground * 255)
    grown = watershed(boundary.astype(np.float64) - distance, middles, mask=inside)
    if not grown.any():
        return grown
    areas = np.bincount(grown.ravel())
    wrong = areas < how.least_area
    if how.sure:
        wrong |= np.bincount(grown.ravel(), foreground.ravel()) < how.sure * 255 * areas
    # what reaches the end of what is seen here may be larger
    for edge, goes_on in zip((grown[0], grown[-1], grown[:, 0], grown[:, -1]), within, strict=True):
        if goes_on:
            wrong[edge] = False
    wrong[0] = False
    grown[wrong[grown]] = 0
    return _filled(grown, areas)


def _levels(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return foreground, boundary and distance (h, w) of packed maps, 0 to 255."""
    return (maps & 255).astype(np.int16), (maps >> 8 & 255).astype(np.int16), (maps >> 16 & 255).astype(np.int16)


def _filled(objects: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Return objects (h, w) without the small holes that one object alone surrounds."""
    holes, count = ndimage.label(objects == 0)
    sizes = np.bincount(holes.ravel(), minlength=count + 1)
    lowest, highest = np.full(count + 1, len(areas)), np.zeros(count + 1, dtype=np.int64)
    for hole, owner in _neighbours(holes, objects):
        beside = (hole > 0) & (owner > 0)
        np.minimum.at(lowest, hole[beside], owner[beside])
        np.maximum.at(highest, hole[beside], owner[beside])
    # what reaches the end of what is seen here may be open
    highest[np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]])] = 0
    fills = (highest > 0) & (lowest == highest) & (sizes < HOLE * areas[highest])
    return np.where(fills[holes], highest[holes], objects)


def _neighbours(one: np.ndarray, other: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield values of one map and, of the other, those of the next pixels in each direction."""
    yield one[1:], other[:-1]
    yield one[:-1], other[1:]
    yield one[:, 1:], other[:, :-1]
    yield one[:, :-1], other[:, 1:]


def band_rows(width: int) -> int:
    """Return how many rows are labelled at a time; nothing but the micrograph's width decides."""
    return int(np.clip(BAND_PIXELS // width, *BAND_ROWS))


class _Numbered:
    """Numbers the connected parts of what a function selects, band by band, from 1 on.

    Parts that touch across two bands are one; numbers follow the first row of each.

    Args:
        shape: (H, W) of the whole.
        select: returns which pixels (rows, W) of the rows `first` to `last - 1` belong to parts.
    """

    def __init__(self, shape: tuple[int, int], select: Callable[[int, int], np.ndarray]):
        self._height, self._width = shape
        self._band, self._select = band_rows(shape[1]), select
        self._pieces = lru_cache(maxsize=2)(self._label)
        counts, joins = [0], [np.empty((0, 2), dtype=np.int64)]
        above: np.ndarray | None = None
        for band in range(-(-self._height // self._band)):
            pieces, count = self._pieces(band)
            if above is not None:
                touching = (above > 0) & (pieces[0] > 0)
                both = [above[touching] - 1 + counts[-2], pieces[0][touching] - 1 + counts[-1]]
                joins.append(np.unique(np.stack(both, axis=1), axis=0))
            above = pieces[-1]
            counts.append(counts[-1] + count)
        self._offsets = counts
        self.count, self._numbers = _joined(np.concatenate(joins), counts[-1])

    def _label(self, band: int) -> tuple[np.ndarray, int]:
        """Return the pieces in a band of rows, numbered from 1, and how many there are."""
        first = band * self._band
        return ndimage.label(self._select(first, min(first + self._band, self._height)))

    def rows(self, first: int, last: int) -> np.ndarray:
        """Return the parts' numbers in some rows (last - first, W) int32, 0 elsewhere."""
        found = np.zeros((last - first, self._width), dtype=np.int32)
        for band in range(first // self._band, -(-last // self._band)):
            pieces, _ = self._pieces(band)
            start = band * self._band
            top, bottom = max(first, start), min(last, start + len(pieces))
            part = pieces[top - start : bottom - start]
            inside = part > 0
            found[top - first : bottom - first][inside] = self._numbers[part[inside] + self._offsets[band]]
        return found


def _joined(pairs: np.ndarray, total: int) -> tuple[int, np.ndarray]:
    """Return how many parts pieces make, and the number of each piece; 0, no piece, stays 0."""
    if not total:
        return 0, np.zeros(1, dtype=np.int32)
    graph = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(total, total))
    count, part_of = connected_components(graph, directed=False)
    _, first = np.unique(part_of, return_index=True)
    order = np.empty(count, dtype=np.int64)  # by the first piece of each
    order[np.argsort(first)] = np.arange(count)
    return count, np.concatenate([[0], order[part_of] + 1]).astype(np.int32)


def _calm(maps: Any, how: Separation, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which pixels of some rows lie at no boundary, and their foreground."""
    foreground, boundary, _ = _levels(np.asarray(maps[first:last]))
    release_pages(maps)
    return boundary < how.boundary * 255, foreground


def _distance(maps: Any, how: Separation, first: int, last: int) -> np.ndarray:
    """Return the distance in some rows, 0 to 1; smoothed for peaks, so that noise makes none."""
    if not how.depth:
        return (np.asarray(maps[first:last]) >> 16 & 255) / np.float32(255)
    above, below = min(first, HALO), min(maps.shape[0] - last, HALO)
    seen = (np.asarray(maps[first - above : last + below]) >> 16 & 255).astype(np.int32)
    release_pages(maps)
    for axis in (0, 1):  # whole numbers: what is seen beside these rows changes no digit
        seen = ndimage.correlate1d(seen, BINOMIAL, axis=axis, mode="nearest")
    return seen[above : above + last - first] / np.float32(255 * sum(BINOMIAL) ** 2)


def _cores(maps: Any, how: Separation) -> _Numbered:
    """Return the parts of objects between boundaries."""
    regions = _Numbered(maps.shape, lambda first, last: _calm(maps, how, first, last)[0])
    pixels, sums = np.zeros(regions.count + 1), np.zeros(regions.count + 1)
    for top, last in _bands(maps.shape):
        numbers = regions.rows(top, last).ravel()
        pixels += np.bincount(numbers, minlength=len(pixels))
        sums += np.bincount(numbers, _calm(maps, how, top, last)[1].ravel(), len(pixels))
    surely = sums > SURELY * 255 * np.maximum(pixels, 1)
    surely[0] = False

    def select(first: int, last: int) -> np.ndarray:
        calm, foreground = _calm(maps, how, first, last)
        return calm & ((foreground > how.foreground * 255) | surely[regions.rows(first, last)])

    return _Numbered(maps.shape, select)


def _middles(maps: Any, cores: _Numbered, how: Separation) -> _Numbered:
    """Return the middles of all objects, one for each.

    In a core the distance says where the middles are. Where it says so nowhere, as of objects
    larger than those that the network has learnt, the core itself may be one.
    """

    def above(level: float, first: int, last: int) -> np.ndarray:
        return (cores.rows(first, last) > 0) & (_distance(maps, how, first, last) > level)

    found: list[tuple[_Numbered, np.ndarray]] = []  # parts above each level, and which are middles
    higher: tuple[_Numbered, np.ndarray] | None = None  # parts above the last level that hold one
    for level in how.levels():
        parts = _Numbered(maps.shape, partial(above, level))
        rises, holds = np.zeros(parts.count + 1, dtype=bool), np.zeros(parts.count + 1, dtype=bool)
        for top, last in _bands(maps.shape):
            numbers = parts.rows(top, last)
            rises[numbers[_distance(maps, how, top, last) > level + how.depth]] = True
            if higher is not None:
                holds[numbers[higher[1][higher[0].rows(top, last)]]] = True
        rises[0] = holds[0] = False
        found.append((parts, rises & ~holds))
        higher = parts, rises | holds
    assert higher is not None
    has_middle = np.zeros(cores.count + 1, dtype=bool)
    for top, last in _bands(maps.shape):
        has_middle[cores.rows(top, last)[higher[1][higher[0].rows(top, last)]]] = True

    def select(first: int, last: int) -> np.ndarray:
        middle = np.zeros((last - first, maps.shape[1]), dtype=bool)
        for parts, chosen in found:
            middle |= chosen[parts.rows(first, last)]
        if not how.rim:
            return middle
        numbers = cores.rows(first, last)
        alone = (numbers > 0) & ~has_middle[numbers]  # rims along boundaries are no objects
        return middle | ndimage.binary_erosion(alone, iterations=how.rim, border_value=1)

    return _Numbered(maps.shape, select)


def _bands(shape: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield the first row of each band, and one past its last."""
    for top in range(0, shape[0], band_rows(shape[1])):
        yield top, min(top + band_rows(shape[1]), shape[0])
