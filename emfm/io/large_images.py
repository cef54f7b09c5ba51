"""Reading from images that may be larger than memory: arrays, memory maps, and files read as far as they are used."""

import mmap
from typing import Any

import numpy as np

# So many pixels are read at a time.
READ_PIXELS = 4_000_000
# Side in pixels of the blocks in which a compressed file is sampled.
BLOCK = 1024


def release_pages(image: Any) -> None:
    """Give the pages of a memory map that were read back to the system; they come again when they are needed.

    Without it, the whole of a file that is read tile by tile ends in the process's memory. Other arrays are left alone.
    """
    while isinstance(image, np.ndarray):
        if isinstance(image, np.memmap) and image.mode == "c":  # changes that live in memory alone would be lost
            return
        image = image.base
    if isinstance(image, mmap.mmap) and not image.closed and hasattr(mmap, "MADV_DONTNEED"):
        image.madvise(mmap.MADV_DONTNEED)


def thinned(image: Any, step: int) -> np.ndarray:
    """Return every `step`-th pixel of every `step`-th row, in the image's dtype.

    Args:
        image: (H, W); an array, a memory map, or anything with `shape`, `dtype` and `image[rows, columns]`.
        step: 1 returns all pixels.
    """
    height, width = image.shape
    result = np.empty((-(-height // step), -(-width // step)), dtype=image.dtype)
    # a chunk of a compressed file is unpacked once for all its pixels, so such files are read in blocks
    rows, columns = (READ_PIXELS // width, width) if isinstance(image, np.ndarray) else (BLOCK, BLOCK)
    rows, columns = (max(1, side // step) * step for side in (rows, columns))
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            if isinstance(image, np.ndarray):
                part = np.asarray(image[top : top + rows : step, left : left + columns : step])
            else:
                part = np.asarray(image[top : top + rows, left : left + columns])[::step, ::step]
            row, column = top // step, left // step
            result[row : row + part.shape[0], column : column + part.shape[1]] = part
        release_pages(image)
    return result
