"""A result in memory, with the methods of one in a file."""

from contextlib import AbstractContextManager, nullcontext

import numpy as np

from emfm.inference.processes import Processes


class ArrayResult:
    """A result (H, W) in memory, with the methods of a `ResultFile`."""

    def __init__(self, shape: tuple[int, int], dtype: np.dtype):
        self.shape, self.dtype = shape, dtype
        self._array = np.empty(shape, dtype)

    def write(self, row: int, column: int, block: np.ndarray) -> None:
        """Put a block (h, w) with its first pixel at a row and column."""
        self._array[row : row + block.shape[0], column : column + block.shape[1]] = block

    def read(self) -> np.ndarray:
        """Return the array (H, W)."""
        return self._array

    def filling(self, processes: Processes) -> AbstractContextManager[None]:
        """Return what stands around the writing."""
        return nullcontext()

    def between(self, shape: tuple[int, int], dtype: np.dtype, processes: Processes) -> AbstractContextManager:
        """Return a result for what this one is made of."""
        return nullcontext(ArrayResult(shape, dtype))
