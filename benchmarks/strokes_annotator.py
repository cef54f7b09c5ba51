"""A simulated annotator: strokes along the middle of true regions, and corrections of the largest error."""

import numpy as np
from scipy import ndimage

LENGTH = 24  # of a stroke at most, in pixels along its middle
BRUSH = np.ones((3, 3), bool)  # what is painted around each of these
NEIGHBOURS = np.ones((3, 3), int)  # that belong together: along rows, columns and diagonals


class Annotator:
    """Paints on a micrograph whose truth it knows.

    Args:
        truth: class indices (H, W), negative where nobody knows.
        seed: decides where strokes begin and which way they go.

    Attributes:
        labels: class indices (H, W) int16, -1 where nothing is painted.
        strokes: how many were painted.
    """

    def __init__(self, truth: np.ndarray, seed: int):
        self._truth, self._rng = truth, np.random.default_rng(seed)
        self.labels, self.strokes = np.full(truth.shape, -1, np.int16), 0
        self.classes = [int(index) for index in np.unique(truth) if index >= 0]
        self._middles = {index: middle(truth == index) for index in self.classes}

    def paint(self, share: float) -> None:
        """Paint strokes until a share of all pixels is labelled, equally much of each class."""
        wanted = share * self._truth.size / len(self.classes)
        for index in self.classes:
            left = self._middles[index] & (self.labels < 0)
            while left.any() and (self.labels == index).sum() < wanted:
                starts = np.flatnonzero(left)
                start = np.unravel_index(int(self._rng.choice(starts)), left.shape)
                room = int(wanted - (self.labels == index).sum())
                self.stroke(left, (int(start[0]), int(start[1])), index, max(1, min(LENGTH, room // len(BRUSH))))
                left &= self.labels < 0

    def begin(self) -> None:
        """Paint one stroke of each class."""
        for index in self.classes:
            starts = np.argwhere(self._middles[index])
            row, column = starts[int(self._rng.integers(len(starts)))]
            self.stroke(self._middles[index], (int(row), int(column)), index, LENGTH)

    def paint_at(self, row: int, column: int) -> None:
        """Paint a stroke of the class at a place, along the middle of its region that is nearest."""
        index = int(self._truth[row, column])
        if index < 0:
            return  # nobody knows what is there
        places = np.argwhere(self._middles[index])
        nearest = places[int(((places - (row, column)) ** 2).sum(axis=1).argmin())]
        self.stroke(self._middles[index], (int(nearest[0]), int(nearest[1])), index, LENGTH)

    def correct(self, found: np.ndarray) -> bool:
        """Paint a stroke in the largest connected part that is wrong in one way; False: all is right.

        Args:
            found: class indices (H, W) that a method gave.
        """
        best, size = None, 0
        for index in self.classes:
            parts, count = ndimage.label((self._truth == index) & (found != index) & (self.labels < 0), NEIGHBOURS)
            sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
            if count and sizes.max() > size:
                best, size = (index, parts == 1 + int(sizes.argmax())), int(sizes.max())
        if best is None:
            return False
        index, region = best
        depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)
        along = middle(region)
        along[row, column] = True
        self.stroke(along, (int(row), int(column)), index, LENGTH)
        return True

    def stroke(self, along: np.ndarray, start: tuple[int, int], index: int, length: int) -> None:
        """Paint from a place on, along the middle of a region, within the true region."""
        top, left = max(0, start[0] - length), max(0, start[1] - length)
        reach = slice(top, start[0] + length + 1), slice(left, start[1] + length + 1)
        part, truth = along[reach], self._truth[reach] == index
        here = start[0] - top, start[1] - left
        walked = np.zeros(part.shape, bool)
        for _ in range(length):
            walked[here] = True
            box = slice(max(0, here[0] - 1), here[0] + 2), slice(max(0, here[1] - 1), here[1] + 2)
            ways = np.argwhere(part[box] & ~walked[box])
            if not len(ways):
                break
            step = ways[int(self._rng.integers(len(ways)))]
            here = int(step[0]) + box[0].start, int(step[1]) + box[1].start
        painted = ndimage.binary_dilation(walked, BRUSH) & truth
        self.labels[reach][painted] = index
        self.strokes += 1


def middle(region: np.ndarray) -> np.ndarray:
    """Return the skeleton of a region (H, W)."""
    from skimage.morphology import skeletonize

    return skeletonize(region)
