"""A result without the rows of a data bar, which are filled at the end."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from emfm.inference.array_result import ArrayResult
from emfm.inference.processes import Processes
from emfm.inference.result_files import ResultFile
from emfm.inference.result_form import no_data_value
from emfm.io.reading import Micrograph
from emfm.modeling import EMPreTrainedModel
from emfm.processing import as_dtype
from emfm.tasks import task_of


class AboveBar:
    """A result without the rows of a data bar, which are filled at the end.

    They hold no data in a class map; of a restoration they are the micrograph's own.
    """

    def __init__(
        self, result: "ArrayResult | ResultFile", micrograph: Micrograph, model: EMPreTrainedModel, blank: bool = False
    ):
        self._result, self._model, self.dtype, self._blank = result, model, result.dtype, blank
        self._bar = np.asarray(micrograph.image[micrograph.image.shape[0] - micrograph.data_bar :, :])
        self._rows = micrograph.data_bar * model.scale
        self.shape = (result.shape[0] - self._rows, result.shape[1])

    def write(self, row: int, column: int, block: np.ndarray) -> None:
        """Put a block (h, w) with its first pixel at a row and column."""
        self._result.write(row, column, block)

    def read(self) -> Any:
        """Return the array (H, W) above the bar."""
        return self._result.read()[: self.shape[0]]

    def between(self, shape: tuple[int, int], dtype: np.dtype, processes: Processes) -> AbstractContextManager:
        """Return a result of another size, for what this one is made of."""
        return self._result.between(shape, dtype, processes)

    @contextmanager
    def filling(self, processes: Processes) -> Iterator[None]:
        """Let all processes fill the result; the first one adds the rows of the bar."""
        with self._result.filling(processes):
            yield
            if processes.rank == 0:
                self._result.write(self.shape[0], 0, self._filled())

    def _filled(self) -> np.ndarray:
        if self._blank or task_of(self._model).nearest:
            return np.full((self._rows, self.shape[1]), no_data_value(self.dtype)).astype(self.dtype)
        scale = self._model.scale
        return as_dtype(self._bar.repeat(scale, axis=0).repeat(scale, axis=1), self.dtype)
