"""Tiles over a micrograph of any size, and their seamless blend. Knows nothing of networks.

A tile's outer `margin` pixels see too little of the micrograph: they are not used at inner cuts.
Between the margins of two neighbours lies a ramp where one fades into the other: `a + w (b - a)`.
Where both agree this is their value to the last bit, so an identity network returns the image.
"""

from dataclasses import dataclass

import numpy as np

from emfm.errors import EMError


@dataclass(frozen=True)
class Tiling:
    """How a micrograph is cut.

    Args:
        tile: largest side of a tile in pixels; tiles divide the micrograph evenly.
        margin: pixels at an inner cut that are computed but not used; half of the receptive field
            makes the tiled result equal to the untiled one.
        ramp: width in pixels of the fade between two tiles.
        align: the network's stride; tile origins are multiples of it, so pooling grids coincide.
        scale: pixels that the network makes of one, along each axis; other lengths are the input's.
    """

    tile: int
    margin: int
    ramp: int = 16
    align: int = 1
    scale: int = 1

    def __post_init__(self):
        if self.step < 1:
            raise EMError(
                f"a tile of {self.tile} px is too small for a margin of {self.margin} px and a "
                f"ramp of {self.ramp} px: use a tile of at least {self.overlap + 2 * self.align} px"
            )

    @property
    def overlap(self) -> int:
        """Pixels that two neighbours share."""
        return 2 * self.margin + self.ramp

    @property
    def step(self) -> int:
        """Largest distance between tile origins in pixels, a multiple of `align`."""
        return (self.tile - self.overlap) // self.align * self.align

    def spans(self, length: int) -> list[tuple[int, int]]:
        """Return (start, stop) of tiles along an axis of `length` px; the last may be smaller."""
        if length <= self.tile:
            return [(0, length)]
        inner = length - self.overlap
        count = -(-inner // self.step)
        step = -(-inner // (count * self.align)) * self.align  # the smallest for as few tiles
        return [(start, min(start + step + self.overlap, length)) for start in range(0, inner, step)]

    def count(self, height: int, width: int) -> int:
        """Return how many tiles cover a micrograph of this size."""
        return len(self.spans(height)) * len(self.spans(width))


class Blend:
    """Joins the outputs of tiles, given row by row, into finished blocks.

    Beside the tile at hand only ramps are kept: `ramp` rows of the micrograph's width, and `ramp`
    columns of a tile.

    The micrograph of so many pixels is cut as `tiling` says. Where others do the rest of it, `rows`
    are the first row of tiles and the one after the last.

    Attributes:
        head: ramp (C, ramp, W) at the top of the first row of tiles, for `join` to tiles above.
        tail: ramp (C, ramp, W) below the last row of tiles that was given.
    """

    def __init__(self, tiling: Tiling, height: int, width: int, rows: tuple[int, int] | None = None):
        self._scale, self._ramp = tiling.scale, tiling.ramp * tiling.scale
        self._spans = tiling.spans(height), tiling.spans(width)
        self._rows = rows or (0, len(self._spans[0]))
        # where each tile's part of the output begins, in its pixels; the last entry is the end
        first = tiling.margin * tiling.scale
        starts = [[span[0] * tiling.scale for span in spans[1:]] for spans in self._spans]
        ends = height * tiling.scale, width * tiling.scale
        self._cuts = [[0, *(start + first for start in axis), end] for axis, end in zip(starts, ends, strict=True)]
        self._weight = np.arange(1, self._ramp + 1, dtype=np.float32) / (self._ramp + 1)
        self.head = self.tail = np.empty((0, 0, 0), dtype=np.float32)
        self._side = np.empty((0, 0, 0), dtype=np.float32)

    def add(self, row: int, column: int, output: np.ndarray) -> tuple[int, int, np.ndarray]:
        """Take the next tile's output (C, h, w), which is changed, and return what is now finished.

        Returns:
            Row and column of the block in the result, and the block (C, rows, columns).
        """
        (top, bottom), (left, right) = self._spans[0][row], self._spans[1][column]
        if output.ndim != 3 or output.shape[1:] != ((bottom - top) * self._scale, (right - left) * self._scale):
            raise EMError(
                f"the network returned shape {output.shape} for a tile of {bottom - top} x "
                f"{right - left} px; expected (channels, height, width) of {self._scale} times that"
            )
        ramp = self._ramp
        start, stop = (cut - left * self._scale for cut in self._cuts[1][column : column + 2])
        if column > 0:
            _fade(self._side, output[:, :, start : start + ramp], self._weight)
        if column + 1 < len(self._spans[1]):
            self._side = output[:, :, stop : stop + ramp].copy()
        first, last = self._cuts[0][row : row + 2]
        block = self._rows_of(row, column, output[:, :, start:stop])
        begin = first + ramp if row == self._rows[0] and row > 0 else first
        return begin, self._cuts[1][column], block[:, begin - top * self._scale : last - top * self._scale]

    def _rows_of(self, row: int, column: int, block: np.ndarray) -> np.ndarray:
        """Fade finished columns into those of the row above; keep what the row below needs."""
        offset = self._spans[0][row][0] * self._scale
        first, last = (cut - offset for cut in self._cuts[0][row : row + 2])
        columns = slice(*self._cuts[1][column : column + 2])
        upper = block[:, first : first + self._ramp]
        if row > self._rows[0]:
            _fade(self.tail[:, :, columns], upper, self._weight[:, None])
        elif row > 0:
            self.head = self._kept(self.head, upper, columns)
        if row + 1 < len(self._spans[0]):
            self.tail = self._kept(self.tail, block[:, last : last + self._ramp], columns)
        return block

    def _kept(self, whole: np.ndarray, part: np.ndarray, columns: slice) -> np.ndarray:
        if whole.shape[0] != part.shape[0]:
            whole = np.empty((part.shape[0], self._ramp, self._cuts[1][-1]), dtype=part.dtype)
        whole[:, :, columns] = part
        return whole

    def join(self, tail_above: np.ndarray) -> tuple[int, np.ndarray]:
        """Return row and content (C, ramp, W) of the ramp to the tiles above with their `tail`."""
        _fade(tail_above, self.head, self._weight[:, None])
        return self._cuts[0][self._rows[0]], self.head


def _fade(before: np.ndarray, after: np.ndarray, weight: np.ndarray) -> None:
    """Let `after` begin as `before` and end as itself."""
    after[...] = before + weight * (after - before)
