"""Which pixels a polygon covers, by the rules of the programs that people draw with.

The centre of the first pixel is (0.5, 0.5), its corner (0, 0).
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from emfm.labels.shapes import EMPTY, Region, box_of

# To ImageJ a pixel whose centre lies exactly on a left or upper edge is outside, on others inside.
IMAGEJ_TIE = 1e-8
# Java counts in such parts of a pixel.
JAVA_PARTS = 1024
# Its ellipses: lines of each quarter, and where the curves' control points lie.
JAVA_LINES, JAVA_CONTROL = 8, 0.5522847498307933
JavaBox = tuple[float, float, float, float]  # left, top, right, bottom
# COCO draws outlines at so many times the resolution.
COCO_SCALE = 5.0
# Upper and lower ends (x0, y0, x1, y1) of edges: the first row, the row after the last, and a
# function of an edge and a row that gives the first column to the right of the edge.
Crossings = tuple[np.ndarray, np.ndarray, Callable[[np.ndarray, np.ndarray], np.ndarray]]


def fill_centres(
    rings: Sequence[np.ndarray], shape: tuple[int, int], non_zero: bool = False, tie: float = 0.0
) -> Region:
    """Return the pixels whose centres lie inside polygons.

    Args:
        rings: (N, 2) x, y of each; what lies in two of them is a hole.
        shape: (H, W) of the image.
        non_zero: by the winding number: it is a hole only where the rings run in opposite ways.
        tie: so far to the right and down edges are shifted.
    """

    def crossings(x0: np.ndarray, y0: np.ndarray, x1: np.ndarray, y1: np.ndarray) -> Crossings:
        slope = np.divide(x1 - x0, y1 - y0, out=np.zeros_like(x0), where=y1 > y0)

        def column(edge: np.ndarray, row: np.ndarray) -> np.ndarray:
            return np.ceil(x0[edge] + (row + 0.5 - y0[edge]) * slope[edge] + tie - 0.5)

        return np.ceil(y0 + tie - 0.5), np.ceil(y1 + tie - 0.5), column

    return _fill(rings, shape, crossings, non_zero)


def fill_java(rings: Sequence[np.ndarray], shape: tuple[int, int]) -> Region:
    """Return the pixels that Java's `Graphics2D.fill` paints, as QuPath calls it; holes are kept.

    By default Java takes the pixels whose upper left corners lie inside, in whole 1024ths of a
    pixel, each row's edge from the one above: so slanted edges drift by up to a pixel. Where a
    shape reaches beyond the image Java rounds otherwise, and single pixels of its edge may differ.
    """

    def crossings(x0: np.ndarray, y0: np.ndarray, x1: np.ndarray, y1: np.ndarray) -> Crossings:
        ends = [np.trunc(values.astype(np.float32) * np.float32(JAVA_PARTS)) for values in (x0, y0, x1, y1)]
        x0, y0, x1, y1 = (values.astype(np.int64) for values in ends)
        width, height = (x1 - x0).astype(np.float32), (y1 - y0).astype(np.float32)
        slope = np.divide(width, height, out=np.zeros_like(width), where=height > 0)
        step = np.trunc(slope * np.float32(JAVA_PARTS)).astype(np.int64)
        first, last = -(-y0 // JAVA_PARTS), -(-y1 // JAVA_PARTS)
        start = x0 + np.trunc((first * JAVA_PARTS - y0).astype(np.float32) * slope).astype(np.int64)

        def column(edge: np.ndarray, row: np.ndarray) -> np.ndarray:
            return -(-(start[edge] + (row - first[edge]) * step[edge]) // JAVA_PARTS)

        return first, last, column

    return _fill(rings, shape, crossings, non_zero=False)


def fill_java_box(box: JavaBox, shape: tuple[int, int]) -> Region:
    """Return the pixels that Java's `Graphics2D.fill` paints of a rectangle along the axes.

    It moves the edges to a quarter of a pixel, so they differ from those of a polygon.
    """
    left, top, right, bottom = (int(np.floor(edge + 0.25)) for edge in box)
    top, left, bottom, right = max(top, 0), max(left, 0), min(bottom, shape[0]), min(right, shape[1])
    if top >= shape[0] or left >= shape[1] or bottom < 0 or right < 0:
        return EMPTY
    if top >= bottom or left >= right:  # between the edges of pixels
        return Region(min(top, shape[0] - 1), min(left, shape[1] - 1), np.zeros((1, 1), dtype=bool))
    return Region(top, left, np.ones((bottom - top, right - left), dtype=bool))


def fill_java_ellipse(box: JavaBox, shape: tuple[int, int]) -> Region:
    """Return the pixels that Java's `Graphics2D.fill` paints of an ellipse in a box.

    It is four curves, each of which Java draws as eight straight lines.
    """
    left, top, right, bottom = box
    at = np.arange(JAVA_LINES)[:, None] / JAVA_LINES
    ends = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)], dtype=float)
    parts = []
    for start, end in zip(ends, np.roll(ends, -1, axis=0), strict=True):
        curve = (start, start + JAVA_CONTROL * end, end + JAVA_CONTROL * start, end)
        weights = ((1 - at) ** 3, 3 * at * (1 - at) ** 2, 3 * at**2 * (1 - at), at**3)
        parts.append(sum(weight * point for weight, point in zip(weights, curve, strict=True)))
    unit = np.concatenate(parts)
    return fill_java([(unit + 1) * [(right - left) / 2, (bottom - top) / 2] + [left, top]], shape)


def _fill(
    rings: Sequence[np.ndarray], shape: tuple[int, int], crossings: Callable[..., Crossings], non_zero: bool
) -> Region:
    """Fill row by row: each edge that a row crosses counts for all pixels to its right."""
    top, bottom, left, right = box_of(np.concatenate(rings), shape)
    if top >= bottom or left >= right:
        return EMPTY
    starts = np.concatenate(rings).astype(float)
    ends = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings]).astype(float)
    up = starts[:, 1] > ends[:, 1]
    upper, lower = np.where(up[:, None], ends, starts), np.where(up[:, None], starts, ends)
    first, last, column = crossings(upper[:, 0], upper[:, 1], lower[:, 0], lower[:, 1])
    begin = np.clip(first, top, bottom).astype(int)
    count = np.clip(last, top, bottom).astype(int) - begin
    edge = np.repeat(np.arange(len(count)), np.maximum(count, 0))
    row = np.arange(len(edge)) - np.repeat(np.cumsum(np.maximum(count, 0)) - np.maximum(count, 0), np.maximum(count, 0))
    row += begin[edge]
    at = np.clip(column(edge, row), left, right).astype(int)
    winding = np.zeros((bottom - top, right - left + 1), dtype=np.int32)
    np.add.at(winding, (row - top, at - left), np.where(up[edge], -1, 1))
    winding = np.cumsum(winding, axis=1)[:, :-1]
    return Region(top, left, winding != 0 if non_zero else winding % 2 == 1)


def fill_coco(polygons: Sequence[np.ndarray], shape: tuple[int, int]) -> Region:
    """Return the pixels of an object of COCO's: those that any of its polygons covers.

    COCO's own tools draw the outline at five times the resolution and, in each column of pixels,
    fill from where the outline crosses its middle to where it crosses it again.
    """
    top, bottom, left, right = box_of(np.concatenate(polygons), shape)
    if top >= bottom or left >= right:
        return EMPTY
    mask = np.zeros((bottom - top, right - left), dtype=bool)
    for points in polygons:
        columns, rows = _coco_crossings(points, shape)
        changes = np.zeros((bottom - top + 1, right - left), dtype=np.int32)
        inside = (columns >= left) & (columns < right)
        np.add.at(changes, (np.clip(rows[inside], top, bottom) - top, columns[inside] - left), 1)
        mask |= np.cumsum(changes, axis=0)[:-1] % 2 == 1
    return Region(top, left, mask)


def _coco_crossings(points: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns whose middles an outline crosses, and the first rows below that."""
    fine = np.trunc(COCO_SCALE * points.astype(float) + 0.5)
    lines = [_fine_line(start, end) for start, end in zip(fine, np.roll(fine, -1, axis=0), strict=True)]
    x, y = np.concatenate(lines).T
    before, after = x[:-1], x[1:]
    middle = (np.where(after < before, after, after - 1) + 0.5) / COCO_SCALE - 0.5
    row = np.ceil(np.clip((np.minimum(y[:-1], y[1:]) + 0.5) / COCO_SCALE - 0.5, 0, shape[0]))
    kept = (before != after) & (np.floor(middle) == middle) & (middle >= 0) & (middle <= shape[1] - 1)
    return middle[kept].astype(int), row[kept].astype(int)


def _fine_line(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the whole points (N, 2) of a line, one for each step of its longer axis."""
    along = 0 if abs(end[0] - start[0]) >= abs(end[1] - start[1]) else 1
    flip = start[along] > end[along]
    low, high = (end, start) if flip else (start, end)
    length = int(high[along] - low[along])
    steps = np.arange(length + 1.0)
    slope = (high[1 - along] - low[1 - along]) / length if length else 0.0
    line = np.empty((length + 1, 2))
    line[:, along] = low[along] + steps
    line[:, 1 - along] = np.trunc(low[1 - along] + slope * steps + 0.5)
    return line[::-1] if flip else line


def fill_imagej(rings: Sequence[np.ndarray], shape: tuple[int, int]) -> Region:
    """Return the pixels of a polygon selection of ImageJ's, or of a composite one with holes."""
    return fill_centres(rings, shape, tie=IMAGEJ_TIE)


def fill_imagej_oval(box: tuple[int, int, int, int], shape: tuple[int, int]) -> Region:
    """Return the pixels of an oval of ImageJ's: (left, top, right, bottom) of its rectangle."""
    left, top, right, bottom = box
    return fill_ellipse(((left + right) / 2, (top + bottom) / 2), ((right - left) / 2, (bottom - top) / 2), 0.0, shape)


def fill_ellipse(
    centre: tuple[float, float], radii: tuple[float, float], angle: float, shape: tuple[int, int]
) -> Region:
    """Return the pixels whose centres lie in an ellipse, its edge included.

    Args:
        centre: x, y.
        radii: along its axes.
        angle: in radians, from the x axis to that of the first radius, clockwise as it is seen.
        shape: (H, W) of the image.
    """
    reach = max(radii)
    corners = np.array([[centre[0] - reach, centre[1] - reach], [centre[0] + reach, centre[1] + reach]])
    top, bottom, left, right = box_of(corners, shape)
    if top >= bottom or left >= right or min(radii) <= 0:
        return EMPTY
    rows, columns = np.mgrid[top:bottom, left:right] + 0.5
    x, y = columns - centre[0], rows - centre[1]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return Region(top, left, (along / radii[0]) ** 2 + (across / radii[1]) ** 2 <= 1.0)


def fill_box(left: float, top: float, right: float, bottom: float, shape: tuple[int, int]) -> Region:
    """Return the pixels whose centres lie in a rectangle."""
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=float)
    return fill_centres([corners], shape)


fill_canvas = partial(fill_centres, non_zero=True)  # as a page in a browser fills polygons
