"""How a micrograph is predicted, whatever its size and wherever the result goes: an array in memory, or a file."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from emfm.inference.blocks import Block, Blocks
from emfm.inference.pixel_size import check_pixel_size, matched
from emfm.inference.plan import plan
from emfm.inference.processes import Processes
from emfm.inference.resampling import Resampled, as_dtype, blocks_of
from emfm.inference.result_files import ResultFile
from emfm.io.reading import Micrograph
from emfm.modeling import EMPreTrainedModel
from emfm.processing import IntensityStatistics
from emfm.tasks import task_of


class ArrayResult:
    """A result in memory.

    Args:
        shape: (H, W).
        dtype: of the values.
    """

    def __init__(self, shape: tuple[int, int], dtype: np.dtype):
        self.shape, self.dtype = shape, dtype
        self._array = np.empty(shape, dtype)

    @contextmanager
    def filling(self, processes: Processes) -> Iterator[None]:
        """Do nothing: there is one process, and a failed prediction returns no result."""
        yield

    def write(self, row: int, column: int, block: np.ndarray) -> None:
        """Put a block (h, w) with its first pixel at a row and column."""
        self._array[row : row + block.shape[0], column : column + block.shape[1]] = block

    def read(self) -> np.ndarray:
        """Return the array (H, W)."""
        return self._array

    @contextmanager
    def between(self, shape: tuple[int, int], dtype: np.dtype, processes: Processes) -> Iterator["ArrayResult"]:
        """Yield a result of another size, for what this one is made of."""
        yield ArrayResult(shape, dtype)


Result = ArrayResult | ResultFile


def result_form(model: EMPreTrainedModel, image: Any) -> tuple[tuple[int, int], np.dtype]:
    """Return the shape (H, W) and the dtype of a model's result on an image."""
    pixel = np.zeros((len(model.classes) if model.classes else 1, 1, 1), dtype=np.float32)
    given = np.dtype(image.dtype).newbyteorder("=")
    dtype = model.result(pixel, IntensityStatistics(0.0, 1.0), given).dtype
    return (image.shape[0] * model.scale, image.shape[1] * model.scale), dtype


@dataclass(frozen=True)
class Flow:
    """How micrographs become results.

    Args:
        model: ready.
        tile: largest side of a tile in pixels; None chooses by the free memory.
        match_pixel_size: resample micrographs to the pixel sizes that the model was trained at, and the results back.
        progress: show a bar that counts tiles.
        processes: that do this together.
    """

    model: EMPreTrainedModel
    tile: int | None
    match_pixel_size: bool
    progress: bool
    processes: Processes

    def run(self, given: Micrograph, result: Result) -> None:
        """Fill a result that has the `result_form` of the micrograph.

        Raises:
            EMError: the micrograph cannot be read or used, or the pixel size is to be matched and not known.
            OSError: the result cannot be written.
        """
        micrograph = given
        if self.match_pixel_size:
            micrograph = self.processes.together(lambda: matched(self.model, given))
        elif self.processes.rank == 0:
            check_pixel_size(self.model, given)
        if micrograph is given:
            self._predict(given.image, result)
            return
        with result.between(*result_form(self.model, micrograph.image), self.processes) as between:
            self._predict(micrograph.image, between)
            self._resample(between, result)

    def _predict(self, image: Any, result: Result) -> None:
        """Write the model's result on an image block by block; each process does some of the rows of tiles."""
        model, processes = self.model, self.processes
        statistics = processes.together(lambda: model.processor.statistics(image))
        how = plan(model, image.shape, self.tile, processes.count)
        first, last = processes.share(len(how.tiling.spans(image.shape[0])))
        blocks = Blocks(model, image, statistics, how, (first, last))

        def write(row: int, column: int, maps: np.ndarray) -> None:
            result.write(row, column, model.result(maps, statistics, result.dtype))

        def share() -> None:
            if first < last:
                bar = tqdm(blocks, total=len(blocks), unit="tile", disable=not self.progress, leave=False)
                _write_behind(bar, write)

        def join() -> None:
            """Write the ramp between these rows of tiles and those of the process above."""
            if 0 < first < last:
                above = [tail for tail in tails[: processes.rank] if tail is not None]
                row, maps = blocks.blend.join(above[-1])
                write(row, 0, maps)

        with result.filling(processes):
            processes.together(share)
            tails = processes.gather(blocks.blend.tail if first < last else None)
            processes.together(join)

    def _resample(self, between: Result, result: Result) -> None:
        """Write what lies between at the size of the result; each process does some of the blocks."""
        image = Resampled(between.read(), result.shape, nearest=task_of(self.model).nearest)

        def share() -> None:
            for number, (rows, columns) in enumerate(blocks_of(image.shape)):
                if number % self.processes.count == self.processes.rank:
                    result.write(rows.start, columns.start, as_dtype(image[rows, columns], result.dtype))

        with result.filling(self.processes):
            self.processes.together(share)


def _write_behind(blocks: Iterable[Block], write: Callable[[int, int, np.ndarray], None]) -> None:
    """Write each block while the next one is computed."""
    with ThreadPoolExecutor(1) as writing:
        before: Future[None] | None = None
        for block in blocks:
            if before is not None:
                before.result()
            before = writing.submit(write, *block)
        if before is not None:
            before.result()
