"""Images larger than memory: arrays, memory maps, and files read as far as they are used."""

import mmap
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

# So many pixels are read at a time.
READ_PIXELS = 4_000_000
# Side in pixels of the blocks in which a compressed file is sampled.
BLOCK = 1024
# Decoded blocks that an image keeps for the next region while it is open, at most.
CACHE_BYTES = 128 << 20
# Blocks are whole chunks, at least so large: a call for a small chunk takes longer than decoding.
BLOCK_BYTES = 1 << 20
ReadRegion = Callable[[int, int, int, int], np.ndarray]  # top, bottom, left and right


class LazyImage:
    """A 2-D image that stays in its file: `image[rows, columns]` and `np.asarray(image)` read it.

    It is read in blocks, of which the newest (up to 128 MiB) are kept, so neighbouring regions of a
    compressed file do not decode it twice. Threads may share it.

    Args:
        shape: (height, width) in pixels.
        dtype: of the pixels, in native byte order.
        chunk: (height, width) of what the file can decode at once.
        read: returns the pixels of `top, bottom, left, right` as an array of that size and dtype.
    """

    ndim = 2

    def __init__(self, shape: tuple[int, int], dtype: np.dtype, chunk: tuple[int, int], read: ReadRegion):
        self.shape, self.dtype, self.size = shape, dtype, shape[0] * shape[1]
        self.nbytes = self.size * dtype.itemsize
        self._block = rows, columns = block_shape(shape, chunk, dtype.itemsize)

        # the cache may not hold the image itself: its file is closed when the image is gone
        @lru_cache(CACHE_BYTES // (rows * columns * dtype.itemsize))
        def decoded(i: int, j: int) -> np.ndarray:
            return read(i * rows, min((i + 1) * rows, shape[0]), j * columns, min((j + 1) * columns, shape[1]))

        self._decoded = decoded

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"LazyImage(shape={self.shape}, dtype={self.dtype})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("an image in its file cannot become an array without a copy")
        return self[:, :].astype(self.dtype if dtype is None else dtype, copy=False)

    def __getitem__(self, region: Any) -> np.ndarray:
        """Return `image[rows, columns]`; slices with positive steps, the second may be left out."""
        parts = region if isinstance(region, tuple) else (region,)
        if len(parts) > 2 or not all(isinstance(part, slice) and (part.step or 1) > 0 for part in parts):
            raise IndexError(f"expected image[rows, columns], slices of positive step, got {region!r}")
        wanted: list[slice] = [*parts, slice(None)]
        rows, columns = range(self.shape[0])[wanted[0]], range(self.shape[1])[wanted[1]]
        result = np.empty((len(rows), len(columns)), self.dtype)
        for i, into_rows, take_rows in _parts(rows, self._block[0]):
            for j, into_columns, take_columns in _parts(columns, self._block[1]):
                result[into_rows, into_columns] = self._decoded(i, j)[take_rows, take_columns]
        return result


def block_shape(shape: tuple[int, int], chunk: tuple[int, int], itemsize: int) -> tuple[int, int]:
    """Return (height, width) of a block within the image: chunks of about 1 MiB, or one chunk."""
    height, width = (min(max(part, 1), length) for part, length in zip(chunk, shape, strict=True))
    while 2 * height * width * itemsize <= BLOCK_BYTES and (height, width) != shape:
        if width < shape[1] and (width <= height or height >= shape[0]):
            width = min(2 * width, shape[1])
        else:
            height = min(2 * height, shape[0])
    return height, width


def _parts(wanted: range, block: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield each block of an axis with wanted pixels: index, where they go and where they lie."""
    done = 0
    while done < len(wanted):
        index, first = divmod(wanted[done], block)
        count = min(len(wanted) - done, -(-(block - first) // wanted.step))
        yield index, slice(done, done + count), slice(first, first + count * wanted.step, wanted.step)
        done += count


def release_pages(image: Any) -> None:
    """Give the pages of a memory map that were read back to the system, to come again when needed.

    Without it, a file that is read tile by tile ends in memory. Other arrays are left alone.
    """
    while isinstance(image, np.ndarray):
        if isinstance(image, np.memmap) and image.mode == "c":  # has changes in memory
            return
        image = image.base
    if isinstance(image, mmap.mmap) and not image.closed and hasattr(mmap, "MADV_DONTNEED"):
        image.madvise(mmap.MADV_DONTNEED)


def thinned(image: Any, step: int) -> np.ndarray:
    """Return every `step`-th pixel of every `step`-th row, in the image's dtype.

    The image (H, W) is anything with `shape`, `dtype` and `image[rows, columns]`.
    """
    height, width = image.shape
    result = np.empty((-(-height // step), -(-width // step)), dtype=image.dtype)
    # compressed files are read in blocks, so a chunk is unpacked once for all its pixels
    rows, columns = (READ_PIXELS // width, width) if isinstance(image, np.ndarray) else (BLOCK, BLOCK)
    rows, columns = (max(1, side // step) * step for side in (rows, columns))
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            part = np.asarray(image[top : top + rows, left : left + columns])[::step, ::step]
            row, column = top // step, left // step
            result[row : row + part.shape[0], column : column + part.shape[1]] = part
        release_pages(image)
    return result
