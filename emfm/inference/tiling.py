"""Tiles over a micrograph of any size, and their seamless blend. NumPy alone; knows nothing of networks.

A tile's outer `margin` pixels see too little of the micrograph, so they are never used at an inner cut. Between the
margins of two neighbours lies a ramp where one fades into the other. The fade is written `a + w (b - a)`: where both
tiles agree the result is their value to the last bit, so an identity network returns the image exactly.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from emfm.errors import EMError


@dataclass(frozen=True)
class Tiling:
    """How a micrograph is cut.

    Args:
        tile: side of a tile in pixels.
        margin: pixels at an inner cut that are computed but not used; half of the receptive field makes the tiled
            result equal to the untiled one.
        ramp: width in pixels of the fade between two tiles.
        align: tile origins are multiples of this, the network's stride, so that pooling grids coincide.
        scale: pixels that the network makes of one, along each axis; all other lengths are those of the micrograph.
    """

    tile: int
    margin: int
    ramp: int = 16
    align: int = 1
    scale: int = 1

    def __post_init__(self):
        if self.step < 1:
            raise EMError(
                f"a tile of {self.tile} px is too small for a margin of {self.margin} px and a ramp of {self.ramp} px: "
                f"use a tile of at least {2 * self.margin + self.ramp + 2 * self.align} px"
            )

    @property
    def step(self) -> int:
        """Distance between tile origins in pixels, a multiple of `align`."""
        return (self.tile - 2 * self.margin - self.ramp) // self.align * self.align

    def spans(self, length: int) -> list[tuple[int, int]]:
        """Return the (start, stop) of the tiles along an axis of `length` pixels; the first starts at 0."""
        if length <= self.tile:
            return [(0, length)]
        last = -(-(length - self.tile) // self.align) * self.align  # the tile that ends at the border
        starts = [*range(0, last, self.step), last]
        return [(start, min(start + self.tile, length)) for start in starts]

    def count(self, height: int, width: int) -> int:
        """Return how many tiles cover a micrograph of this size."""
        return len(self.spans(height)) * len(self.spans(width))


def _fade(before: np.ndarray, after: np.ndarray, overlap: int, tiling: Tiling, axis: int) -> np.ndarray:
    """Join two outputs that share `overlap` pixels along `axis`: ramp in the middle, margins cut."""
    ramp = min(tiling.ramp * tiling.scale, overlap)
    lead = (overlap - ramp) // 2
    weight = (np.arange(1, ramp + 1, dtype=np.float32) / (ramp + 1)).reshape([-1 if i == axis else 1 for i in range(3)])
    size = before.shape[axis]
    cut = size - overlap + lead

    def part(array: np.ndarray, start: int, stop: int) -> np.ndarray:
        return array[tuple(slice(start, stop) if i == axis else slice(None) for i in range(3))]

    old, new = part(before, cut, cut + ramp), part(after, lead, lead + ramp)
    rest = part(after, lead + ramp, after.shape[axis])
    return np.concatenate([part(before, 0, cut), old + weight * (new - old), rest], axis=axis)


def _row_of_tiles(
    image: np.ndarray, rows: tuple[int, int], tiling: Tiling, network: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Run the network on one row of tiles and fade them into a band (C, rows, W)."""
    band, covered, scale = np.empty((0, 0, 0)), 0, tiling.scale
    for start, stop in tiling.spans(image.shape[1]):
        output = network(np.ascontiguousarray(image[rows[0] : rows[1], start:stop]))
        if output.ndim != 3 or output.shape[1:] != ((rows[1] - rows[0]) * scale, (stop - start) * scale):
            raise EMError(
                f"the network returned shape {output.shape} for a tile of {rows[1] - rows[0]} x {stop - start} px; "
                f"expected (channels, height, width) of {scale} times the tile's size"
            )
        band = output if covered == 0 else _fade(band, output, (covered - start) * scale, tiling, axis=2)
        covered = stop
    return band


def tiled_bands(
    image: np.ndarray, tiling: Tiling, network: Callable[[np.ndarray], np.ndarray]
) -> Iterator[tuple[int, np.ndarray]]:
    """Run a network over a micrograph tile by tile and yield finished bands of rows, top to bottom.

    Only two rows of tiles are held at a time, whatever the micrograph's height.

    Args:
        image: (H, W), any dtype; may be memory-mapped.
        tiling: how to cut.
        network: maps a tile (h, w) to (C, h * scale, w * scale) floating point.

    Yields:
        The first row's index and the finished rows (C, rows, W * scale), in pixels of the output.
    """
    if image.ndim != 2 or 0 in image.shape:
        raise EMError(f"expected one micrograph (height, width), got shape {image.shape}")
    pending, top, bottom = np.empty((0, 0, 0)), 0, 0
    for rows in tiling.spans(image.shape[0]):
        band = _row_of_tiles(image, rows, tiling, network)
        if bottom:
            overlap = (bottom - rows[0]) * tiling.scale
            ready = pending.shape[1] - overlap
            yield top, pending[:, :ready]
            band = _fade(pending[:, ready:], band, overlap, tiling, axis=1)
            top += ready
        pending, bottom = band, rows[1]
    yield top, pending
