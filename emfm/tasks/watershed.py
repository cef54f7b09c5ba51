"""From a network's maps to objects: a watershed that grows them from their middles.

A micrograph is done in parts. Middles are found in bands of rows and joined across them before
anything grows. Then objects grow block by block; each block looks beyond itself, so an object has
one number however large the micrograph is. Its size alone decides on bands and blocks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.segmentation import watershed

from emfm.io.large_images import release_pages

# A pixel belongs to an object where the foreground is more likely than not, and to the middle of
# one where the distance is above this share. Boundaries part objects where they are likely.
FOREGROUND, MIDDLE, AT_BOUNDARY = 0.5, 0.45, 0.5
# Smaller objects are left out, in pixels.
LEAST_AREA = 9
# A part of the foreground without a middle is an object if it is thicker than twice this (px).
RIM = 4
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


def separate(maps: Any, write: Write, classes: int = 0) -> np.ndarray:
    """Find the objects in packed maps and write their numbers; return what says their classes.

    Numbers follow the first row of an object's middle, from 1 on; some may be missing. An object
    has the class of the most of its pixels.

    Args:
        maps: (H, W) uint32 as `packed` makes them; read in bands.
        write: receives row, column and a block (h, w) uint32.
        classes: how many there are.

    Returns:
        (N + 1, K) how many of an object's pixels are most likely of each class, by number; all 0
        without classes.
    """
    middles = _middles(maps)
    votes = np.zeros((middles.count + 1, max(1, classes)), dtype=np.int64)
    for top in range(0, maps.shape[0], BLOCK[0]):
        rows = _Span.of(top, BLOCK[0], maps.shape[0])
        numbers = middles.rows(rows.first, rows.last)
        for left in range(0, maps.shape[1], BLOCK[1]):
            columns = _Span.of(left, BLOCK[1], maps.shape[1])
            seen = np.asarray(maps[rows.first : rows.last, columns.first : columns.last])
            grown = _grown(seen, numbers[:, columns.first : columns.last])[rows.own, columns.own]
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

    @classmethod
    def of(cls, start: int, step: int, whole: int) -> "_Span":
        first = max(0, start - BEYOND)
        return cls(first, min(whole, start + step + BEYOND), slice(start - first, min(start + step, whole) - first))


def _grown(maps: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """Return the objects (h, w) that grow from middles in a part of the packed maps."""
    inside = (maps & 255) > FOREGROUND * 255
    height = (maps >> 8 & 255).astype(np.float64) - (maps >> 16 & 255)
    grown = watershed(height, middles, mask=inside)
    if not grown.any():
        return grown
    areas = np.bincount(grown.ravel())
    small = areas < LEAST_AREA
    # what reaches the end of what is seen here may be larger
    small[np.concatenate([grown[0], grown[-1], grown[:, 0], grown[:, -1]])] = False
    grown[small[grown]] = 0
    return grown


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
        self._pieces = lru_cache(maxsize=4)(self._label)
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


def _middles(maps: Any) -> _Numbered:
    """Return the middles of all objects, one for each.

    Boundaries part the foreground. In a part the distance says where the middles are; where it
    says so nowhere, as of objects larger than those it has learnt, the part itself is one.
    """

    def parts_of(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        seen = np.asarray(maps[first:last])
        inside = ((seen & 255) > FOREGROUND * 255) & ((seen >> 8 & 255) < AT_BOUNDARY * 255)
        middle = inside & ((seen >> 16 & 255) > MIDDLE * 255)
        release_pages(maps)
        return inside, middle

    parts = _Numbered(maps.shape, lambda first, last: parts_of(first, last)[0])
    has_middle = np.zeros(parts.count + 1, dtype=bool)
    step = band_rows(maps.shape[1])
    for top in range(0, maps.shape[0], step):
        last = min(top + step, maps.shape[0])
        has_middle[parts.rows(top, last)[parts_of(top, last)[1]]] = True

    def select(first: int, last: int) -> np.ndarray:
        inside, middle = parts_of(first, last)
        alone = inside & ~has_middle[parts.rows(first, last)]
        # rims along boundaries are no objects
        return middle | ndimage.binary_erosion(alone, iterations=RIM, border_value=1)

    return _Numbered(maps.shape, select)
