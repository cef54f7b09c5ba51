"""The perimeter of a region of pixels, near that of the shape whose pixels they are.

Cauchy and Crofton: a line's length is the mean, over all directions, of how often it is crossed by
parallel lines. Pixels that differ from the one a step further on are counted for many directions.
A step that is longer than one pixel misses corners; twice the step misses four times as much, so
both together say what no step would miss. In small regions twice the step is too much for round
ones, and part of that is added.
"""

import math
from functools import lru_cache

import numpy as np

# In regions at least so wide steps reach so many pixels, and this part of what they miss is added:
# many directions are right for straight edges at any angle, long steps are wrong in small regions.
REACHES = ((40, 5, 1.0), (20, 4, 1.0), (10, 3, 0.75), (0, 2, 0.5))


def perimeter_of(mask: np.ndarray, width: float) -> float:
    """Return the perimeter of a mask (h, w) in pixels; edges of the array are edges of the region.

    Of discs, ellipses and rectangles at any angle it is right within about 4 pixels or 1 %,
    whichever is more: a rectangle of one pixel more along each side has 4 more.

    Args:
        mask: of one region, holes and all.
        width: the smallest that the region is in any direction.
    """
    reach, added = next((reach, added) for least, reach, added in REACHES if width >= least)
    around = np.pad(mask, 2 * reach)
    total = 0.0
    for step, angle in _directions(reach):
        once, twice = _differing(around, step), _differing(around, (2 * step[0], 2 * step[1]))
        total += angle * (once + added * (2 * once - twice) / 2) / 2 / math.hypot(*step)
    return total


def _differing(mask: np.ndarray, step: tuple[int, int]) -> int:
    """Return how many pixels differ from the one a step (columns, rows) further on."""
    right, down = step
    height, width = mask.shape
    here = mask[max(0, -down) : height - max(0, down), : width - right]
    there = mask[max(0, down) : height - max(0, -down), right:]
    return int(np.count_nonzero(here != there))


@lru_cache
def _directions(reach: int) -> list[tuple[tuple[int, int], float]]:
    """Return the steps of all directions, and the angle that each one stands for."""
    grid = [(right, down) for right in range(reach + 1) for down in range(-reach, reach + 1)]
    steps = [(right, down) for right, down in grid if math.gcd(right, down) == 1 and (right or down > 0)]
    steps.sort(key=lambda step: math.atan2(step[1], step[0]))
    angles = np.array([math.atan2(down, right) for right, down in steps])
    around = np.concatenate([[angles[-1] - math.pi], angles, [angles[0] + math.pi]])
    return [(step, float(angle)) for step, angle in zip(steps, (around[2:] - around[:-2]) / 2, strict=True)]
