"""Outlines of pixels: polygons along their edges, which programs fill to the same pixels again."""

from collections import defaultdict

import numpy as np
from scipy import ndimage

from emfm.labels.shapes import Region

Point = tuple[int, int]


def parts_of(region: Region) -> list[Region]:
    """Return the parts of a region whose pixels share sides."""
    numbers, _ = ndimage.label(region.mask)
    found = []
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        rows, columns = box
        found.append(Region(region.top + rows.start, region.left + columns.start, numbers[box] == number))
    return found


def outline(part: Region) -> list[np.ndarray]:
    """Return the rings (N, 2) x, y of a region of one part: its outline, then its holes."""
    following = _edges(part)
    rings = []
    while following:
        start = next(iter(following))
        rings.append(_ring(start, following))
    rings.sort(key=_area, reverse=True)  # holes run the other way round
    return rings


def _edges(part: Region) -> dict[Point, list[Point]]:
    """Return where the edges lead that have a pixel on their right and none on their left."""
    mask = np.pad(part.mask, 1)
    sides = {  # of a pixel at row and column: start and end as (x, y), and its neighbour
        (0, 0, 1, 0): (-1, 0),
        (1, 0, 1, 1): (0, 1),
        (1, 1, 0, 1): (1, 0),
        (0, 1, 0, 0): (0, -1),
    }
    following: dict[Point, list[Point]] = defaultdict(list)
    for (x0, y0, x1, y1), (down, right) in sides.items():
        neighbour = np.roll(mask, (-down, -right), axis=(0, 1))
        rows, columns = np.nonzero(mask & ~neighbour)
        top, left = part.top - 1, part.left - 1  # the frame that was added
        for row, column in zip((rows + top).tolist(), (columns + left).tolist(), strict=True):
            following[column + x0, row + y0].append((column + x1, row + y1))
    return following


def _ring(start: Point, following: dict[Point, list[Point]]) -> np.ndarray:
    """Take a ring's edges out of those that are left; return its corners."""
    corners: list[Point] = []
    at, before = start, None
    while True:
        ends = following[at]
        end = ends[0] if len(ends) == 1 else _right_turn(at, before, ends)
        ends.remove(end)
        if not ends:
            del following[at]
        step = (end[0] - at[0], end[1] - at[1])
        if step != before:
            corners.append(at)
        at, before = end, step
        if at == start:
            break
    (x0, y0), (x1, y1) = corners[0], corners[1]
    first = (np.sign(x1 - x0), np.sign(y1 - y0))
    return np.array(corners[1:] if first == before else corners, dtype=int)


def _right_turn(at: Point, before: Point | None, ends: list[Point]) -> Point:
    """Return the edge of the same pixel, where two pixels touch at a corner alone."""
    if before is None:
        return ends[0]
    wanted = (at[0] - before[1], at[1] + before[0])
    return wanted if wanted in ends else ends[0]


def _area(ring: np.ndarray) -> float:
    x, y = ring[:, 0].astype(float), ring[:, 1].astype(float)
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)
