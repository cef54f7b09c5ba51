"""Prediction of one file to a file, in memory bounded by the tile, by one process or by several together."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emfm.inference.arguments import PredictArguments
from emfm.inference.blocks import Blocks, with_progress
from emfm.inference.pixel_size import check_pixel_size, matched
from emfm.inference.plan import plan
from emfm.inference.predict import enlarged, result_dtype
from emfm.inference.processes import Processes
from emfm.inference.records import input_facts, read_record, write_record
from emfm.inference.resampling import Resampled, as_dtype, blocks_of
from emfm.inference.result_files import ResultFile, open_result
from emfm.io.reading import Micrograph, read_micrograph
from emfm.modeling import EMPreTrainedModel
from emfm.processing import IntensityStatistics
from emfm.reports.prediction import Prediction
from emfm.reports.results import write_results


@dataclass(frozen=True)
class Job:
    """One file to predict.

    Args:
        model: ready.
        source: the micrograph.
        target: the result; the suffix chooses the format.
        arguments: how.
        made_by: what the record says of model and settings.
    """

    model: EMPreTrainedModel
    source: Path
    target: Path
    arguments: PredictArguments
    made_by: dict[str, Any]


def predict_file(job: Job, processes: Processes) -> dict[str, Any]:
    """Predict a file, unless the same was done before.

    Returns:
        `output`, the paths that `write_results` returned, and whether it was `skipped`.

    Raises:
        EMError: the micrograph cannot be read or used.
        OSError: the result cannot be written.
    """
    model, target = job.model, job.target
    opened: list[Any] = []
    processes.together(lambda: opened.extend([_read(job), {"input": input_facts(job.source), **job.made_by}]))
    micrograph, made_from = opened
    record = read_record(target) or {}
    done = not job.arguments.overwrite and record.get("made_from") == made_from
    done = all(processes.gather(done))
    shown: dict[str, str] = record.get("shown", {}) if done else {}
    if not done:
        _predict(job, micrograph, processes)
        if processes.rank == 0:
            output = open_result(target)
            pixel_size = None if micrograph.pixel_size is None else micrograph.pixel_size / model.scale
            prediction = Prediction(micrograph.image, output, model.classes, pixel_size, micrograph.name)
            shown = {kind: path.name for kind, path in write_results(prediction, target.parent, target.stem).items()}
            facts = {"shape": list(output.shape), "dtype": str(output.dtype), "pixel_size": pixel_size, "shown": shown}
            write_record(target, made_from, {**facts, "classes": model.classes})
        processes.gather(None)
    paths = {kind: str(target.with_name(name)) for kind, name in shown.items()}
    return {"output": str(target), **paths, "skipped": done}


def _read(job: Job) -> Micrograph:
    micrograph = read_micrograph(job.source, job.arguments.index, colour=job.arguments.colour)
    if micrograph.pixel_size is None and job.arguments.pixel_size is not None:
        return replace(micrograph, pixel_size=job.arguments.pixel_size)
    return micrograph


def _predict(job: Job, given: Micrograph, processes: Processes) -> None:
    """Write the result of a micrograph into its place."""
    model, target = job.model, job.target
    held: list[Micrograph] = []
    if job.arguments.match_pixel_size:
        processes.together(lambda: held.append(matched(model, given)))
    elif processes.rank == 0:
        check_pixel_size(model, given)
    micrograph = held[0] if held else given
    pixel_size = None if given.pixel_size is None else given.pixel_size / model.scale
    result = ResultFile(target, enlarged(model, given.image), result_dtype(model, given.image.dtype), pixel_size)
    if micrograph is given:
        _stream(job, given.image, result, processes)
        return
    # until it is resampled back, the result is a file of its own
    size = enlarged(model, micrograph.image)
    scratch = ResultFile(
        target.with_name(f".{target.stem}.resampled.npy"), size, result_dtype(model, micrograph.image.dtype), None
    )
    try:
        _stream(job, micrograph.image, scratch, processes)
        back = Resampled(open_result(scratch.path), result.shape, nearest=model.classes is not None)
        with _filling(result, processes):
            processes.together(lambda: _copy_share(back, result, processes))
    finally:
        if processes.rank == 0:
            scratch.path.unlink(missing_ok=True)


@contextmanager
def _filling(result: ResultFile, processes: Processes) -> Iterator[None]:
    """Create a result for all processes to fill, and put it in its place, or leave nothing of it where that failed."""
    try:
        processes.together(lambda: result.create() if processes.rank == 0 else None)
        if processes.rank > 0:
            result.open()
        yield
        result.close()
        processes.together(lambda: None)
        processes.together(lambda: result.finish() if processes.rank == 0 else None)
    except BaseException:
        result.close()
        if processes.rank == 0:
            result.discard()
        raise


def _copy_share(image: Resampled, result: ResultFile, processes: Processes) -> None:
    """Write this process's blocks of a resampled image."""
    for number, (rows, columns) in enumerate(blocks_of(image.shape)):
        if number % processes.count == processes.rank:
            result.write(rows.start, columns.start, as_dtype(image[rows, columns], result.dtype))


def _stream(job: Job, image: Any, result: ResultFile, processes: Processes) -> None:
    """Write the model's result on an image block by block; each process does some of the rows of tiles."""
    model = job.model
    held: list[IntensityStatistics] = []
    processes.together(lambda: held.append(model.processor.statistics(image)))
    how = plan(model, image.shape, job.arguments.tile, processes.count)
    spans = how.tiling.spans(image.shape[0])
    first, last = processes.share(len(spans))
    blocks = Blocks(model, image, held[0], how, (first, last))

    def tail(row: int) -> Path:  # what is exchanged between the rows of tiles of two processes
        return result.path.with_name(f".{result.path.stem}.above-{row}.npy")

    def write(row: int, column: int, maps: np.ndarray) -> None:
        result.write(row, column, model.result(maps, held[0], result.dtype))

    def mine() -> None:
        if first < last:
            _write_behind(with_progress(blocks, processes.rank == 0), write)
            if last < len(spans):
                np.save(tail(last), blocks.blend.tail)

    def join() -> None:
        if 0 < first < last:
            row, maps = blocks.blend.join(np.load(tail(first)))
            write(row, 0, maps)

    with _filling(result, processes):
        try:
            processes.together(mine)
            processes.together(join)
        finally:
            tail(last).unlink(missing_ok=True)


def _write_behind(blocks: Iterator[tuple[int, int, np.ndarray]], write: Callable[[int, int, np.ndarray], None]) -> None:
    """Write each block while the next one is computed."""
    with ThreadPoolExecutor(1) as writing:
        before: Future[None] | None = None
        for block in blocks:
            if before is not None:
                before.result()
            before = writing.submit(write, *block)
        if before is not None:
            before.result()
