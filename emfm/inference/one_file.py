"""Prediction of one file to a file, in memory bounded by the tile, by one process or by several together."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emfm.inference.arguments import PredictArguments
from emfm.inference.flow import Flow, result_form
from emfm.inference.processes import Processes
from emfm.inference.records import input_facts, read_record, write_record
from emfm.inference.result_files import ResultFile
from emfm.io.reading import Micrograph, read_micrograph
from emfm.modeling import EMPreTrainedModel
from emfm.reports.prediction import Prediction
from emfm.tasks import task_of


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
        `output`, the paths that the task's report returned, and whether it was `skipped`.

    Raises:
        EMError: the micrograph cannot be read or used.
        OSError: the result cannot be written.
    """
    target = job.target
    micrograph = processes.together(lambda: _read(job))
    made_from = processes.together(lambda: {"input": input_facts(job.source), **job.made_by})
    record = read_record(target) or {}
    done = not job.arguments.overwrite and record.get("made_from") == made_from
    done = all(processes.gather(done))
    shown: dict[str, str] = record.get("shown", {})
    if not done:
        shown = _predict(job, micrograph, made_from, processes)
    paths = {kind: str(target.with_name(name)) for kind, name in shown.items()}
    return {"output": str(target), **paths, "skipped": done}


def _read(job: Job) -> Micrograph:
    micrograph = read_micrograph(job.source, job.arguments.index, colour=job.arguments.colour)
    if micrograph.pixel_size is None and job.arguments.pixel_size is not None:
        return replace(micrograph, pixel_size=job.arguments.pixel_size)
    return micrograph


def _predict(job: Job, micrograph: Micrograph, made_from: dict[str, Any], processes: Processes) -> dict[str, str]:
    """Write a result, what shows it, and its record; return the names of what shows it, in the first process."""
    model, target, arguments = job.model, job.target, job.arguments
    pixel_size = None if micrograph.pixel_size is None else micrograph.pixel_size / model.scale
    result = ResultFile(target, *result_form(model, micrograph.image), pixel_size)
    Flow(model, arguments.tile, arguments.match_pixel_size, processes.rank == 0, processes).run(micrograph, result)
    shown: dict[str, str] = {}
    if processes.rank == 0:
        image: Any = micrograph.image  # what shows the result reads it in parts, too
        output = result.read()
        prediction = Prediction(image, output, model.classes, pixel_size, micrograph.name)
        written = task_of(model).report().write(prediction, target.parent, target.stem)
        shown = {kind: path.name for kind, path in written.items()}
        facts = {"shape": list(output.shape), "dtype": str(output.dtype), "pixel_size": pixel_size, "shown": shown}
        write_record(target, made_from, {**facts, "classes": model.classes})
    processes.gather(None)
    return shown
