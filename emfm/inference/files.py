"""Prediction from files to files of any size: one or many, by one process or several.

A small JSON file beside each result tells what it was made from, so a stopped run can go on.
"""

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from emfm.errors import EMError
from emfm.files import reason_of, writable_folder, write_text
from emfm.inference.arguments import PredictArguments
from emfm.inference.batch import check_batch_table, write_batch
from emfm.inference.domain import place_seen, warn_outside
from emfm.inference.ensemble import ready_models
from emfm.inference.inputs import Input, check_names
from emfm.inference.owner import Place, check_labels, result_labels
from emfm.inference.predict import Flow
from emfm.inference.processes import ALONE, Processes
from emfm.inference.result_files import ResultFile
from emfm.inference.result_form import no_data_value, result_form, say_few_levels
from emfm.inference.seen import Seen
from emfm.inference.stacks import Stack, stack_endings
from emfm.inference.stated_slices import StatedSlices
from emfm.io.bar_look import say_seen_bars, with_seen_bar
from emfm.io.reading import MRC_SUFFIXES, ZARR, FileChoice, Micrograph, open_stack, read_micrograph
from emfm.io.scale_bar import offer_scale_bar, pixel_size_by_bar
from emfm.modeling import EMPreTrainedModel
from emfm.no_data import count_no_data, without
from emfm.reports.outlines import write_outlines
from emfm.reports.prediction import Prediction
from emfm.tasks import task_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Job:
    """One file to predict: what the record says of model and settings is in `made_by`."""

    model: EMPreTrainedModel
    source: Input
    target: Path  # its suffix chooses the format
    arguments: PredictArguments
    made_by: dict[str, Any]
    others: tuple[EMPreTrainedModel, ...] = ()  # predicted together with the model


def predict_files(
    model: EMPreTrainedModel | str | Path | Sequence[EMPreTrainedModel | str | Path],
    inputs: Sequence[str | Path | Input],
    output: Path,
    arguments: PredictArguments | None = None,
) -> list[dict[str, Any]]:
    """Predict micrographs of any size to files, in memory bounded by the tile.

    For each input `NAME.tif` (class indices, or the restored micrograph; pixel size kept), what the
    task's report makes of it, and the record `NAME.tif.json` are written; of objects in several
    files also `objects.csv` and `sizes.png` of all. NAME is that of the file,
    with its sub-folder, its dataset and the slice that was chosen. A result whose record says that
    it was made from the same input, model and settings is left as it is; one of another input or
    model is replaced only by `overwrite`. Under torchrun or accelerate the processes divide the
    files; all share those that do not divide evenly.

    Args:
        model: a model, or the name or folder of one; of several of one kind the mean is taken.
        inputs: micrograph files, `FILE::DATASET`, or what `expand_inputs` returned.
        output: folder for the results; made if needed.
        arguments: how; the defaults if None.

    Returns:
        One entry per input, in order and in every process: `input`, `output`, the report's paths,
        `confidence` and `domain` where they are known, and `skipped`; or `input` and `error` for a
        failure, which does not stop the others.

    Raises:
        EMError: there is no input, two results would have one name, the results' folder holds other
            classes, the model does not load, or several are of different kinds.
    """
    arguments = arguments or PredictArguments()
    writable_folder(output)
    processes = Processes.join()
    if not inputs:
        raise EMError("no micrograph was given")
    choice = FileChoice(arguments.dataset)
    sources = [Input.of(given).choosing(choice) for given in inputs]
    choice.check((source.file for source in sources), "the input")
    targets = [(source, source.result(output, _format(source, arguments), arguments.slice)) for source in sources]
    check_names(targets)
    model, *others = ready_models(model)
    if arguments.outlines and not task_of(model).separates:
        raise EMError(f"--outlines are of numbered objects; {type(model).__name__} finds none: leave it out")
    settings = {key: value for key, value in asdict(arguments).items() if key not in ("tile", "overwrite", "format")}
    made_by = {"model": _fingerprint([model, *others]), **settings}
    check_labels(output, model.classes, arguments.overwrite)
    together = len(sources) > 1 and not arguments.every_slice  # tables of volumes have other columns
    if task_of(model).separates and together:
        check_batch_table(output, arguments.overwrite)
    jobs = [_Job(model, source, target, arguments, made_by, tuple(others)) for source, target in targets]
    entries = _all(jobs, processes)
    tables = [Path(entry["objects"]) for entry in entries if "objects" in entry]
    if processes.rank == 0 and together and len(tables) > 1:
        write_batch(output, tables)
    if processes.rank == 0 and model.classes is not None and any("output" in entry for entry in entries):
        write_text(output / "labels.json", json.dumps(result_labels(model.classes, targets), indent=1))
    return entries


def _format(source: Input, arguments: PredictArguments) -> str:
    """Return the suffix of a result: of a whole stack by default that of its file's kind."""
    if arguments.format is not None or not arguments.every_slice:
        return arguments.format or "tif"
    suffix = source.file.suffix.lower()
    return "mrc" if suffix in MRC_SUFFIXES else "zarr" if suffix == ZARR else "tif"


def _all(jobs: list[_Job], processes: Processes) -> list[dict[str, Any]]:
    """Do every job: an equal number of files in each process, then the rest together."""
    divided = len(jobs) // processes.count * processes.count
    mine = [*range(processes.rank, divided, processes.count), *range(divided, len(jobs))]
    silent = len(jobs) == 1 or processes.rank > 0
    found = {}
    for index in tqdm(mine, unit="image", disable=silent, leave=False):
        found[index] = _one(jobs[index], Processes(0, 1) if index < divided else processes)
    together: dict[int, dict[str, Any]] = {}
    for part in processes.gather(found):
        together.update(part)
    return [together[index] for index in range(len(jobs))]


def _one(job: _Job, processes: Processes) -> dict[str, Any]:
    """Predict one file, unless that was done before; what is wrong with it becomes an entry."""
    entry: dict[str, Any] = {"input": str(job.source)}
    try:
        micrograph = None if job.arguments.every_slice else processes.together(lambda: _read(job))
        place = processes.together(lambda: _place(job))
        done = all(processes.gather(not job.arguments.overwrite and place.finished()))
        shown = place.record().get("shown", {}) if done else _predict(job, micrograph, place, processes)
    except (EMError, OSError) as error:
        message = " ".join((str(error) if isinstance(error, EMError) else reason_of(error) or str(error)).split())
        named = str(job.source.file) in message
        return {**entry, "error": message if named else f"{entry['input']}: {message}"}
    paths = {kind: str(job.target.with_name(name)) for kind, name in shown.items()}
    record = place.record()
    told: dict[str, Any] = {name: record[name] for name in ("confidence", "domain") if name in record}
    return {**entry, "output": str(job.target), **paths, **told, "skipped": done}


def _read(job: _Job) -> Micrograph:
    """Read the micrograph; what the user says of its pixel size wins over the file."""
    arguments = job.arguments
    micrograph = read_micrograph(job.source.file, arguments.slice, dataset=job.source.dataset, colour=arguments.colour)
    if task_of(job.model).separates:
        micrograph = with_seen_bar(micrograph)
    elif not micrograph.data_bar:
        say_seen_bars([micrograph.image], [str(job.source)])
    micrograph = _as_stated(micrograph, job)
    if task_of(job.model).nearest:  # what is measured
        offer_scale_bar(micrograph)
    return micrograph


def _as_stated(micrograph: Micrograph, job: _Job) -> Micrograph:
    """Return a micrograph with what the user says of its pixels."""
    micrograph = replace(micrograph, image=without(micrograph.image, job.arguments.nodata))
    stated = job.arguments.pixel_size
    if job.arguments.scale_bar is not None:
        stated = pixel_size_by_bar(micrograph.image, job.arguments.scale_bar, str(job.source))
    return with_pixel_size(micrograph, stated, str(job.source))


def with_pixel_size(micrograph: Micrograph, stated: float | None, name: str) -> Micrograph:
    """Return a micrograph with the pixel size in nm that the user states, if any.

    Where the file says another one, a warning names both.
    """
    if stated is None:
        return micrograph
    said = micrograph.pixel_size
    if said is not None and not math.isclose(said, stated, rel_tol=1e-3):
        logger.warning("%s says %.4g nm per pixel; the %.4g nm that you state are taken", name, said, stated)
    return replace(micrograph, pixel_size=stated)


def _place(job: _Job) -> Place:
    facts = job.source.facts(job.target.parent)
    names = task_of(job.model).report().names(job.target.stem)
    if job.arguments.every_slice:
        names = tuple(f"{job.target.stem}_{ending}" for ending in stack_endings(job.model))
    if job.arguments.uncertainty:
        names += _beside(job.target).name, f"{job.target.stem}_unsure.png"
    names += (_outlines(job.target).name,) if job.arguments.outlines else ()
    return Place(job.target, {"input": facts, **job.made_by}, names)


def _beside(target: Path) -> Path:
    """Return where the map of uncertainty goes."""
    return target.with_name(f"{target.stem}_uncertainty{target.suffix}")


def _outlines(target: Path) -> Path:
    """Return where the outlines of objects go."""
    return target.with_name(f"{target.stem}_outlines.zip")


def _predict(job: _Job, micrograph: Micrograph | None, place: Place, processes: Processes) -> dict[str, str]:
    """Write a result, what shows it, and its record; return the names of what shows it."""
    first = processes.rank == 0
    if not job.arguments.overwrite:
        processes.together(place.check)
    made = [folder for folder in (job.target.parent, *job.target.parent.parents) if not folder.exists()]
    old = processes.together(lambda: place.begin() if first else {})
    try:
        if micrograph is None:
            return _write_stack(job, place, processes, old)
        shown = _write(job, micrograph, place, processes, old)
    except BaseException:
        if first:
            place.give_up(old)
            with suppress(OSError):  # what another file has been written into stays
                for folder in made:
                    folder.rmdir()
        raise
    return processes.gather(shown)[0]


def _write_stack(job: _Job, place: Place, processes: Processes, old: dict[str, Any]) -> dict[str, str]:
    """Write the volume of a stack, what shows it, and its record."""
    arguments, source = job.arguments, job.source
    choice = FileChoice(source.dataset, arguments.colour)
    slices = processes.together(lambda: open_stack(source.file, choice))
    first = processes.together(lambda: _as_stated(slices[0], job))
    distance = arguments.slice_distance or first.slice_distance
    stated = StatedSlices(slices, first.pixel_size, distance, arguments.nodata)
    how = arguments.tile, arguments.match_pixel_size, False, ALONE, arguments.tta
    flow = Flow(job.model, *how, warn=False, precision=arguments.precision, others=job.others)
    record = Stack(stated, job.target, place.made_from, flow, arguments).predict(processes)
    if processes.rank == 0:
        place.finish(old, {**record, "classes": job.model.classes})
    return record["shown"]


def _write(
    job: _Job, micrograph: Micrograph, place: Place, processes: Processes, old: dict[str, Any]
) -> dict[str, str]:
    model, target, arguments = job.model, job.target, job.arguments
    pixel_size = None if micrograph.pixel_size is None else micrograph.pixel_size / model.scale
    result = ResultFile(target, *result_form(model, micrograph.image), pixel_size)
    first = processes.rank == 0
    if first:
        say_few_levels(micrograph.image, result.dtype, str(job.source))
    doubt = None
    if arguments.uncertainty:
        doubt = ResultFile(_beside(target), result.shape, np.float32, pixel_size)
    models = (model, *job.others)
    seen = Seen(models, arguments.confidence, [one.domain is not None for one in models])
    how = arguments.tile, arguments.match_pixel_size, first, processes, arguments.tta, doubt
    options: dict[str, Any] = {"precision": arguments.precision, "others": job.others, "seen": seen}
    kinds = Flow(model, *how, **options).run(micrograph, result)
    if processes.rank > 0:
        return {}
    image: Any = micrograph.image  # what shows the result reads it in parts, too
    output = result.read()
    shown_as: dict[str, Any] = {
        "uncertainty": None if doubt is None else doubt.read(),
        "domain": place_seen(seen),
        "object_classes": kinds,
        "data_bar": micrograph.data_bar * model.scale,
        "confidence": seen.sureness(),
    }
    prediction = Prediction(image, output, model.classes, pixel_size, micrograph.name, **shown_as)
    written = task_of(model).report().write(prediction, target.parent, target.stem)
    shown = {kind: path.name for kind, path in written.items()}
    if arguments.outlines:
        shown["outlines"] = _outlines(target).name
        write_outlines(_outlines(target), output, kinds)
    if doubt is not None:
        shown["uncertainty"] = doubt.path.name
    place.finish(old, {**_record_of(prediction, micrograph, str(job.source)), "shown": shown})
    return shown


def _record_of(prediction: Prediction, micrograph: Micrograph, source: str) -> dict[str, Any]:
    """Return what the record says of a result; what speaks against it is said, too."""
    output = prediction.output
    form: dict[str, Any] = {
        "shape": list(output.shape),
        "dtype": str(output.dtype),
        "pixel_size": prediction.pixel_size,
        "classes": prediction.id2label,
    }
    warn_outside(prediction.domain, source)
    if prediction.domain is not None:
        form["domain"] = prediction.domain.to_dict()
    if prediction.confidence is not None:
        form["confidence"] = prediction.confidence
    missing = count_no_data(prediction.image)
    if prediction.id2label is not None:
        missing += micrograph.data_bar * prediction.image.shape[1]
    if missing:
        logger.warning("%s: %d pixels hold no data, and so does the result there", source, missing)
        form["no_data"] = {"pixels": missing, "value": str(no_data_value(output.dtype))}
    return form


def _fingerprint(models: Sequence[EMPreTrainedModel]) -> str:
    """Return the SHA-256 of models: their order does not matter."""
    found = sorted(_fingerprint_of(model) for model in models)
    return found[0] if len(found) == 1 else hashlib.sha256(" ".join(found).encode()).hexdigest()


def _fingerprint_of(model: EMPreTrainedModel) -> str:
    """Return the SHA-256 of a model's weights, processor and the task's configuration."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().contiguous().cpu().numpy().tobytes())
    config = model.config
    told = [type(model).__name__, config.norm, config.scale, model.classes, config.residual, config.pixel_size_range]
    if config.temperature != 1:
        told.append(config.temperature)
    if config.class_offsets is not None:
        told.append(list(config.class_offsets))
    processor = model.processor
    digest.update(json.dumps([told, processor.low, processor.high, processor.clip], default=str).encode())
    return digest.hexdigest()
