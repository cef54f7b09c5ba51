"""Prediction on a micrograph of any size; the result goes to an array in memory or to a file."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from emfm.inference.above_bar import AboveBar
from emfm.inference.arguments import PredictArguments
from emfm.inference.array_result import ArrayResult
from emfm.inference.blocks import Block, Blocks
from emfm.inference.domain import place_seen, warn_outside
from emfm.inference.drawn import Blanked, drawn_boxes
from emfm.inference.ensemble import ready_models
from emfm.inference.plan import plan
from emfm.inference.precision import number_format
from emfm.inference.processes import Processes
from emfm.inference.resampling import Resampled, blocks_of, check_pixel_size, matched
from emfm.inference.result_files import ResultFile
from emfm.inference.result_form import hide_no_data, result_form, result_shape
from emfm.inference.seen import Seen
from emfm.io.bar_look import with_seen_bar
from emfm.io.reading import Micrograph, read_micrograph
from emfm.modeling import EMPreTrainedModel
from emfm.no_data import say_data_bar, without
from emfm.processing import as_array, as_dtype
from emfm.reports.prediction import ObjectClasses, Prediction
from emfm.tasks import task_of
from emfm.tasks.separation import Separation
from emfm.tasks.watershed import separate

Progress = bool | Callable[[Iterable[Block], int], Iterable[Block]]
Watch = Callable[[int, int, np.ndarray], None]


def predict(
    model: EMPreTrainedModel | str | Path | Sequence[EMPreTrainedModel | str | Path],
    micrograph: Micrograph | np.ndarray | str | Path,
    tile: int | None = None,
    progress: Progress = False,
    match_pixel_size: bool = False,
    nodata: float | None = None,
    tta: bool = False,
    uncertainty: bool = False,
    compare: bool = True,
    precision: str = "auto",
    watch: Watch | None = None,
) -> Prediction:
    """Run a model on one micrograph and return an array; `predict_files` writes files of any size.

    Intensity statistics are taken once over the whole micrograph. A large one is cut into tiles
    that overlap by twice the model's reach, or by half a tile where that is less, and fade into
    each other. With twice the reach the result equals that of the whole image. What instance norm
    needs is measured once, too: over up to 1024 x 1024 pixels, or squares spread over a larger one.

    Args:
        model: a model, or the name or folder of one; of several of one kind the mean is taken.
        micrograph: a file, a 2-D array, or what `read_micrograph` returned.
        tile: largest side of a tile in pixels; None chooses by the free memory.
        progress: show a bar; or what goes through the tiles in its place, told how many there are.
        match_pixel_size: resample to the pixel sizes of the training, and the result back.
        nodata: value of pixels without data, beside NaN. The result there is NaN, or 255 (65535
            with more than 255 classes) in a class map.
        uncertainty: tell how unsure the result is, too, from several models, or else from the eight
            symmetries: the standard deviation of a restored micrograph, in its units; of classes
            and objects the entropy, 0 where sure and 1 where all are alike.
        compare: warn where the micrograph is unlike those of the model's training.
        watch: is given row, column and finished maps (C, h, w) of every block, as they come.
        tta: take the mean over the eight symmetries of the square, which costs eight times as much.
        precision: "fp32", "bf16", or "auto": bf16 where the hardware has units for it and next to
            nothing changes, see `number_format`.

    Raises:
        EMError: the micrograph cannot be read or used, the tile is too small for the model, or the
            pixel size is to be matched and not known; or several models are of different kinds.
    """
    PredictArguments(tile=tile, precision=precision)  # which checks them
    model, *others = ready_models(model)
    if isinstance(micrograph, (str, Path)):
        micrograph = read_micrograph(micrograph)
    elif not isinstance(micrograph, Micrograph):
        micrograph = Micrograph(as_array(micrograph), None, "array")
    micrograph = replace(micrograph, image=without(micrograph.image, nodata))
    if task_of(model).separates:
        micrograph = with_seen_bar(micrograph)
    result = ArrayResult(*result_form(model, micrograph.image))
    doubt = ArrayResult(result.shape, np.dtype(np.float32)) if uncertainty else None
    seen = Seen([model, *others], watch=[compare and one.domain is not None for one in (model, *others)])
    how = tile, match_pixel_size, progress, Processes(0, 1), tta, doubt
    options: dict[str, Any] = {"precision": precision, "others": tuple(others), "seen": seen, "watch": watch}
    kinds = Flow(model, *how, **options).run(micrograph, result)
    pixel_size = None if micrograph.pixel_size is None else micrograph.pixel_size / model.scale
    unsure = None if doubt is None else doubt.read()
    place = place_seen(seen)
    warn_outside(place, micrograph.name)
    found = micrograph.array, result.read(), model.classes, pixel_size, micrograph.name
    return Prediction(*found, unsure, place, kinds, micrograph.data_bar * model.scale, seen.sureness())


Result = ArrayResult | ResultFile | AboveBar


@dataclass(frozen=True)
class Flow:
    """How micrographs become results; fields as in `predict`, the processes share the work."""

    model: EMPreTrainedModel
    tile: int | None
    match_pixel_size: bool
    progress: Progress
    processes: Processes
    tta: bool = False
    doubt: "Result | None" = None  # of the result's shape, float32: filled with how unsure it is
    warn: bool = True  # of what the micrograph says of itself; of a stack that is said once
    precision: str = "auto"
    others: tuple[EMPreTrainedModel, ...] = ()  # of the model's kind; means over all are taken
    seen: Seen | None = None  # what is learnt beside the result
    watch: Watch | None = None  # is given every finished block

    def run(self, given: Micrograph, result: Result) -> ObjectClasses | None:
        """Fill a result that has the `result_form` of the micrograph; return its objects' classes.

        These are None where objects have none, and in every process but the first.

        Raises:
            EMError: the micrograph cannot be used, or its pixel size is to be matched and unknown.
            OSError: the result cannot be written.
        """
        if given.data_bar:
            if self.warn:
                say_data_bar(given.name, given.data_bar)
            flow = self._above_bar(given)
            return flow.run(given.without_data_bar(), AboveBar(result, given, self.model))
        micrograph = given
        if self.match_pixel_size:
            micrograph = self.processes.together(lambda: matched(self.model, given))
        elif self.processes.rank == 0 and self.warn:
            check_pixel_size(self.model, given)
        if micrograph is given:
            return self._fill(given.image, result, given)
        with result.between(result_shape(self.model, micrograph.image), result.dtype, self.processes) as between:
            with self._doubt_between(between.shape) as doubt:
                kinds = replace(self, doubt=doubt)._fill(micrograph.image, between, given)
                if doubt is not None and self.doubt is not None:
                    self._resample(doubt, self.doubt, nearest=False)
            self._resample(between, result, task_of(self.model).nearest)
        return kinds

    def _above_bar(self, given: Micrograph) -> "Flow":
        """Return the flow for a micrograph without its data bar, of which nothing is unsure."""
        return self if self.doubt is None else replace(self, doubt=AboveBar(self.doubt, given, self.model, blank=True))

    def _doubt_between(self, shape: tuple[int, ...]) -> AbstractContextManager:
        if self.doubt is None:
            return nullcontext(None)
        return self.doubt.between(shape, self.doubt.dtype, self.processes)

    def _fill(self, image: Any, result: Result, given: Micrograph) -> ObjectClasses | None:
        """Fill a result of the image's own size; objects are made of maps by the first process.

        What was drawn into the given micrograph, of another size perhaps, is no object.
        """
        if not task_of(self.model).separates:
            self._predict(image, result)
            return None
        names = self.model.object_classes
        with result.between(result.shape, np.dtype(np.uint32), self.processes) as maps:
            self._predict(image, maps)

            def objects() -> np.ndarray | None:
                if self.processes.rank > 0:
                    return None
                seen = Blanked(maps.read(), drawn_boxes(given, image.shape))
                return separate(seen, result.write, len(names), Separation.of(self.model.config.separation))

            with result.filling(self.processes):
                votes = self.processes.together(objects)
        return ObjectClasses.by_votes(votes, names) if names and votes is not None else None

    def _predict(self, image: Any, result: Result) -> None:
        """Write the result block by block; each process does some of the rows of tiles."""
        model, processes = self.model, self.processes
        statistics = processes.together(lambda: model.processor.statistics(image))
        how = plan(model, image.shape, self.tile, processes.count, self.others)
        if self.seen is not None:
            self.seen.look(image, statistics)
        rows = len(how.tiling.spans(image.shape[0]))
        first, last = processes.rank * rows // processes.count, (processes.rank + 1) * rows // processes.count
        unsure = None if self.doubt is None else task_of(model).doubt
        dtype = processes.together(lambda: number_format(model, image, statistics, self.precision))
        dtype = processes.gather(dtype)[0]  # one for all
        # several models tell themselves how unsure they are
        symmetries = self.tta or (unsure is not None and not self.others)
        sums = [] if self.seen is None else self.seen.sums
        blocks = Blocks(model, image, statistics, how, (first, last), symmetries, unsure, dtype, self.others, sums)
        unit = statistics.scale if task_of(model).doubts_in_units else 1.0

        def write(row: int, column: int, maps: np.ndarray) -> None:
            if self.doubt is not None:
                doubt = (unit * maps[-1]).astype(np.float32)
                self.doubt.write(row, column, hide_no_data(doubt, model, image, (row, column)))
                maps = maps[:-1]
            part = hide_no_data(model.result(maps, statistics, result.dtype), model, image, (row, column))
            result.write(row, column, part)
            self._look_at(maps, part)
            if self.watch is not None:
                self.watch(row, column, maps)

        def share() -> None:
            if first < last:
                _write_behind(self._through(blocks), write)

        def join() -> None:
            """Write the ramp between these rows of tiles and those of the process above."""
            if 0 < first < last:
                above = [tail for tail in tails[: processes.rank] if tail is not None]
                row, maps = blocks.blend.join(above[-1])
                write(row, 0, maps)

        with result.filling(processes), self._doubt_filling():
            processes.together(share)
            tails = processes.gather(blocks.blend.tail if first < last else None)
            processes.together(join)
        if self.seen is not None:
            self.seen.join(processes)

    def _look_at(self, maps: np.ndarray, part: np.ndarray) -> None:
        """Count how sure a block is."""
        confidence = task_of(self.model).confidence(maps)
        if self.seen is not None and confidence is not None:
            self.seen.add(confidence, np.zeros_like(part) if task_of(self.model).separates else part)

    def _through(self, blocks: Blocks) -> Iterable[Block]:
        if callable(self.progress):
            return self.progress(blocks, len(blocks))
        return tqdm(blocks, total=len(blocks), unit="tile", disable=not self.progress, leave=False)

    def _doubt_filling(self) -> AbstractContextManager:
        return nullcontext() if self.doubt is None else self.doubt.filling(self.processes)

    def _resample(self, between: "Result", result: "Result", nearest: bool) -> None:
        """Write what lies between in the result's size; each process does some of the blocks."""
        image = Resampled(between.read(), result.shape, nearest=nearest)

        def share() -> None:
            for number, (rows, columns) in enumerate(blocks_of(image.shape)):
                if number % self.processes.count == self.processes.rank:
                    result.write(rows.start, columns.start, as_dtype(image[rows, columns], result.dtype))

        with result.filling(self.processes):
            self.processes.together(share)


def _write_behind(blocks: Iterable[Block], write: Callable[[int, int, np.ndarray], None]) -> None:
    """Write each block while the next one is computed."""
    with ThreadPoolExecutor(1) as writing:
        before = writing.submit(lambda: None)
        for block in blocks:
            before.result()
            before = writing.submit(write, *block)
        before.result()
