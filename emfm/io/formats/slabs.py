"""Stacks whose chunks hold many slices: whole chunks are read, and kept until their slices are.

Slice by slice, every chunk would be decoded again for each slice that lies in it.
"""

import math
from threading import Lock
from typing import Any

import numpy as np

# Of decoded slices that are kept, at most.
SLAB_BYTES = 64 << 20
Place = tuple[int | slice, ...]


def by_slabs(array: Any, axis: int) -> Any:
    """Return an array whose slices along an axis are read together as far as their chunks go.

    The array itself, where chunks hold one slice, or two slices take more than `SLAB_BYTES`.

    Args:
        array: with `shape`, `dtype`, `chunks` (their lengths along each axis) and basic indexing.
        axis: along which slices are read, one after the other.
    """
    deep = int(array.chunks[axis])
    slice_bytes = math.prod(array.shape) // array.shape[axis] * np.dtype(array.dtype).itemsize
    together = min(deep, SLAB_BYTES // max(1, slice_bytes))
    return Slabs(array, axis, deep, together) if together > 1 else array


class Slabs:
    """Slices of an array, `array[3, 0:64, 0:64]`, that come one after the other.

    Threads may share it. A first slice is read alone, for it may be the only one. If one after it
    is asked for, that is read with those behind it, up to the end of the chunk; they are forgotten
    with the last one.
    """

    def __init__(self, array: Any, axis: int, deep: int, together: int):
        self._array, self._axis, self._deep, self._together = array, axis, deep, together
        self._lock = Lock()
        self._last: tuple[Place, int] | None = None  # where in a slice was read, and of which
        self._first = 0
        self._slab: np.ndarray | None = None

    def __getitem__(self, place: Place) -> np.ndarray:
        """Return part of a slice; `place` has its number on the axis of slices."""
        number, axis = int(place[self._axis]), self._axis  # type: ignore[arg-type]
        within = (*place[:axis], *place[axis + 1 :])
        with self._lock:
            last, self._last = self._last, (within, number)
            follows = last is not None and last[0] == within and 0 < number - last[1] <= self._deep
            if not follows:
                self._slab = None
                return self._read(place, number)
            slab = self._slab
            if slab is None or number >= self._first + slab.shape[axis]:
                end = min(number + self._together, number // self._deep * self._deep + self._deep)
                self._first, slab = number, self._read(place, slice(number, end))
            at = number - self._first
            self._slab = slab if at < slab.shape[axis] - 1 else None
            return slab.take(at, axis)

    def _read(self, place: Place, numbers: int | slice) -> np.ndarray:
        return np.asarray(self._array[(*place[: self._axis], numbers, *place[self._axis + 1 :])])
