"""An image that stays in its file: regions are read when they are asked for."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

# Decoded blocks that an image keeps for the next region: as long as the micrograph is open, at most this much.
CACHE_BYTES = 128 << 20
# Blocks are made of whole chunks, and at least so large: a call for every small chunk would take longer than decoding.
BLOCK_BYTES = 1 << 20


class LazyImage:
    """A 2-D image of which `image[rows, columns]` reads a region, and `np.asarray(image)` the whole.

    It is read in blocks, and the newest decoded blocks (up to 128 MiB) are kept, so neighbouring regions of a
    compressed file do not decode it twice. Threads may share it.

    Args:
        shape: (height, width) in pixels.
        dtype: of the pixels, in native byte order.
        chunk: (height, width) of what the file can decode at once.
        read: returns the pixels of `top, bottom, left, right` as an array of that size and dtype.
    """

    ndim = 2

    def __init__(
        self,
        shape: tuple[int, int],
        dtype: np.dtype,
        chunk: tuple[int, int],
        read: Callable[[int, int, int, int], np.ndarray],
    ):
        self.shape, self.dtype = shape, dtype
        self._read = read
        self._block = block_shape(shape, chunk, dtype.itemsize)
        self._kept: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.shape[0] * self.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of the whole image, decoded."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"LazyImage(shape={self.shape}, dtype={self.dtype})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("an image that stays in its file cannot become an array without a copy")
        return self[:, :].astype(self.dtype if dtype is None else dtype, copy=False)

    def __getitem__(self, region: Any) -> np.ndarray:
        """Return `image[rows, columns]`; slices with positive steps, the second may be left out."""
        parts = region if isinstance(region, tuple) else (region,)
        if len(parts) > 2 or not all(isinstance(part, slice) for part in parts):
            raise IndexError(f"a lazily read image takes image[rows, columns] with slices, got {region!r}")
        rows, columns = (
            range(length)[part] for length, part in zip(self.shape, (*parts, slice(None))[:2], strict=True)
        )
        if rows.step < 1 or columns.step < 1:
            raise IndexError(f"a lazily read image takes slices with positive steps, got {region!r}")
        result = np.empty((len(rows), len(columns)), self.dtype)
        for i, into_rows, take_rows in _parts(rows, self._block[0]):
            for j, into_columns, take_columns in _parts(columns, self._block[1]):
                result[into_rows, into_columns] = self._decoded(i, j)[take_rows, take_columns]
        return result

    def _decoded(self, i: int, j: int) -> np.ndarray:
        """Return block (i, j), from memory or from the file."""
        with self._lock:
            if (i, j) in self._kept:
                self._kept.move_to_end((i, j))
                return self._kept[i, j]
        (height, width), (rows, columns) = self.shape, self._block
        box = i * rows, min((i + 1) * rows, height), j * columns, min((j + 1) * columns, width)
        block = self._read(*box)  # outside the lock: threads decode at the same time
        with self._lock:
            if (i, j) not in self._kept and block.nbytes <= CACHE_BYTES:
                self._kept[i, j] = block
                self._kept_bytes += block.nbytes
                while self._kept_bytes > CACHE_BYTES:
                    self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return block


def block_shape(shape: tuple[int, int], chunk: tuple[int, int], itemsize: int) -> tuple[int, int]:
    """Return (height, width) of a block: whole chunks, limited by the image, of about 1 MiB or one chunk."""
    height, width = (min(max(part, 1), length) for part, length in zip(chunk, shape, strict=True))
    while 2 * height * width * itemsize <= BLOCK_BYTES and (height, width) != shape:
        if width < shape[1] and (width <= height or height >= shape[0]):
            width = min(2 * width, shape[1])
        else:
            height = min(2 * height, shape[0])
    return height, width


def _parts(wanted: range, block: int) -> list[tuple[int, slice, slice]]:
    """Cut wanted pixels of an axis by blocks: index of the block, where its pixels go, and which of it are taken."""
    parts = []
    done = 0
    while done < len(wanted):
        index = wanted[done] // block
        count = min(len(wanted) - done, -(-((index + 1) * block - wanted[done]) // wanted.step))
        first = wanted[done] - index * block
        take = slice(first, first + (count - 1) * wanted.step + 1, wanted.step)
        parts.append((index, slice(done, done + count), take))
        done += count
    return parts
