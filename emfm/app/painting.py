"""Strokes of a round brush on a mask, and how to take them back."""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from emfm.errors import EMError

# Half the diagonal of a pixel: a brush covers at least the pixel that it points at.
LEAST_RADIUS = 0.71
MOST_POINTS, MOST_RADIUS = 20_000, 500.0
UNDO_BYTES = 64 * 2**20  # of pixels that can be brought back, for each mask


@dataclass(frozen=True)
class Stroke:
    """What a brush covers on its way.

    Raises:
        EMError: there is no point, one is no number, or there is more than anybody paints.
    """

    value: int  #: grey value that it leaves
    radius: float  #: in pixels
    points: list[tuple[float, float]]  #: x, y in pixels; the first pixel's middle is (0.5, 0.5)

    def __post_init__(self):
        numbers = [self.radius, *(number for point in self.points for number in point)]
        if not self.points or len(self.points) > MOST_POINTS:
            raise EMError(f"the stroke has {len(self.points)} points; expected 1 to {MOST_POINTS}")
        if not all(math.isfinite(number) for number in numbers) or not 0 < self.radius <= MOST_RADIUS:
            raise EMError(f"the stroke has no place on a micrograph; expected a radius up to {MOST_RADIUS:g} px")

    def paint(self, mask: np.ndarray) -> "Painted | None":
        """Paint on a mask (H, W); returns what it replaced, None where the stroke is outside."""
        radius = max(self.radius, LEAST_RADIUS)
        height, width = mask.shape
        xs, ys = np.array(self.points).T
        top, left = max(0, math.floor(ys.min() - radius)), max(0, math.floor(xs.min() - radius))
        bottom, right = min(height, math.ceil(ys.max() + radius)), min(width, math.ceil(xs.max() + radius))
        if top >= bottom or left >= right:
            return None
        before = mask[top:bottom, left:right].copy()
        ends = self.points[1:] or self.points
        for start, end in zip(self.points, ends, strict=False):
            _paint_line(mask, start, end, radius, self.value)
        return Painted(top, left, before)


def _paint_line(
    mask: np.ndarray, start: tuple[float, float], end: tuple[float, float], radius: float, value: int
) -> None:
    """Set the pixels whose middles lie within a radius of a line."""
    height, width = mask.shape
    top, bottom = max(0, math.floor(min(start[1], end[1]) - radius)), math.ceil(max(start[1], end[1]) + radius)
    left, right = max(0, math.floor(min(start[0], end[0]) - radius)), math.ceil(max(start[0], end[0]) + radius)
    if top >= min(bottom, height) or left >= min(right, width) or bottom <= 0 or right <= 0:
        return
    part = mask[top:bottom, left:right]
    y = np.arange(top, top + part.shape[0])[:, None] + 0.5 - start[1]
    x = np.arange(left, left + part.shape[1])[None] + 0.5 - start[0]
    along = end[0] - start[0], end[1] - start[1]
    length = along[0] ** 2 + along[1] ** 2
    share = np.clip((x * along[0] + y * along[1]) / length, 0, 1) if length else np.zeros((1, 1))
    part[(x - share * along[0]) ** 2 + (y - share * along[1]) ** 2 <= radius**2] = value


@dataclass(frozen=True)
class Painted:
    """The pixels (h, w) that a stroke replaced, and where they were."""

    top: int
    left: int
    before: np.ndarray


class History:
    """Strokes that can be taken back, the last one first; very old ones cannot."""

    def __init__(self) -> None:
        self._strokes: deque[Painted] = deque()

    def __len__(self) -> int:
        return len(self._strokes)

    def add(self, painted: Painted) -> None:
        """Remember what a stroke replaced."""
        self._strokes.append(painted)
        while len(self._strokes) > 1 and sum(stroke.before.nbytes for stroke in self._strokes) > UNDO_BYTES:
            self._strokes.popleft()

    def take_back(self, mask: np.ndarray) -> bool:
        """Undo the last stroke on a mask; returns whether there was one."""
        if not self._strokes:
            return False
        last = self._strokes.pop()
        height, width = last.before.shape
        mask[last.top : last.top + height, last.left : last.left + width] = last.before
        return True

    def forget(self) -> None:
        """Take nothing back any more: the mask is another."""
        self._strokes.clear()
