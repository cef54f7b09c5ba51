"""Prediction from files to files of any size: one or many, by one process or several.

A small JSON file beside each result tells what it was made from, so a stopped run can go on.
"""

import glob
import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from emfm.errors import EMError
from emfm.files import reason_of, writable_folder, write_text
from emfm.inference.arguments import PredictArguments
from emfm.inference.predict import Flow, ready_model, result_form
from emfm.inference.processes import Processes
from emfm.inference.result_files import ResultFile
from emfm.io.reading import SUFFIXES, Micrograph, list_micrographs, read_micrograph
from emfm.modeling import EMPreTrainedModel
from emfm.reports.prediction import Prediction
from emfm.tasks import task_of


@dataclass(frozen=True)
class _Job:
    """One file to predict: what the record says of model and settings is in `made_by`."""

    model: EMPreTrainedModel
    source: Path
    target: Path  # its suffix chooses the format
    arguments: PredictArguments
    made_by: dict[str, Any]


def expand_inputs(given: list[str], output: Path) -> list[Path]:
    """Return the files that names, patterns and folders stand for, but none of the output folder.

    Raises:
        EMError: a pattern or folder holds no micrograph.
    """
    files: list[Path] = []
    for name in given:
        path = Path(name)
        if path.is_dir() and path.suffix.lower() not in SUFFIXES:
            found = list_micrographs(path)
        elif path.exists() or not glob.has_magic(name):
            found = [path]  # one that is missing is reported when it is its turn
        else:
            # pathlib takes no absolute patterns
            matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207
            found = [Path(match) for match in matches if Path(match).suffix.lower() in SUFFIXES]
            if not found:
                raise EMError(f"no micrograph matches {name}; looked for {', '.join(SUFFIXES)}")
        files += [file for file in found if output.resolve() not in file.resolve().parents]
    return list(dict.fromkeys(files))


def predict_files(
    model: EMPreTrainedModel | str | Path, inputs: list[Path], output: Path, arguments: PredictArguments | None = None
) -> list[dict[str, Any]]:
    """Predict micrographs of any size to files, in memory bounded by the tile.

    For each input `NAME.tif` (class indices, or the restored micrograph; pixel size kept), what the
    task's report makes of it, and the record `NAME.tif.json` are written. A result whose record
    says that it was made from the same input, model and settings is left as it is. Under torchrun
    or accelerate the processes divide the files; all share those that do not divide evenly.

    Args:
        model: a model, or the name or folder of one.
        inputs: micrograph files.
        output: folder for the results; made if needed.
        arguments: how; the defaults if None.

    Returns:
        One entry per input, in order and in every process: `input`, `output`, the report's paths
        and `skipped`; or `input` and `error` for a failure, which does not stop the others.

    Raises:
        EMError: two inputs have one name, or the model does not load.
    """
    arguments = arguments or PredictArguments()
    writable_folder(output)
    processes = Processes.join()
    first: dict[str, Path] = {}
    for path in inputs:
        if path.stem in first:
            raise EMError(
                f"{first[path.stem]} and {path} would both become {path.stem}.{arguments.format}: "
                "predict them apart, or give the folder of the micrographs alone"
            )
        first[path.stem] = path
    model = ready_model(model)
    settings = {key: value for key, value in asdict(arguments).items() if key not in ("tile", "overwrite", "format")}
    made_by = {"model": _fingerprint(model), **settings}
    jobs = [_Job(model, path, output / f"{path.stem}.{arguments.format}", arguments, made_by) for path in inputs]
    entries = _all(jobs, processes)
    if processes.rank == 0 and model.classes is not None and any("output" in entry for entry in entries):
        write_text(output / "labels.json", json.dumps(model.classes, indent=1))
    return entries


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
        micrograph = processes.together(lambda: _read(job))
        made_from = processes.together(lambda: {"input": _input_facts(job.source), **job.made_by})
        record = _read_record(job.target)
        done = not job.arguments.overwrite and record.get("made_from") == made_from
        done = all(processes.gather(done))
        shown = record.get("shown", {}) if done else _predict(job, micrograph, made_from, processes)
    except (EMError, OSError) as error:
        message = (
            str(error) if isinstance(error, EMError) else f"{error.filename or entry['input']}: {reason_of(error)}"
        )
        message = " ".join(message.split())
        return {**entry, "error": message if entry["input"] in message else f"{entry['input']}: {message}"}
    paths = {kind: str(job.target.with_name(name)) for kind, name in shown.items()}
    return {**entry, "output": str(job.target), **paths, "skipped": done}


def _read(job: _Job) -> Micrograph:
    micrograph = read_micrograph(job.source, job.arguments.index, colour=job.arguments.colour)
    if micrograph.pixel_size is None and job.arguments.pixel_size is not None:
        return replace(micrograph, pixel_size=job.arguments.pixel_size)
    return micrograph


def _predict(job: _Job, micrograph: Micrograph, made_from: dict[str, Any], processes: Processes) -> dict[str, str]:
    """Write a result, what shows it, and its record; return the names of what shows it."""
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
        form = {"shape": list(output.shape), "dtype": str(output.dtype), "pixel_size": pixel_size, "shown": shown}
        record = {"made_from": made_from, **form, "classes": model.classes}
        write_text(_record_path(target), json.dumps(record, indent=1))
    return processes.gather(shown)[0]


def _fingerprint(model: EMPreTrainedModel) -> str:
    """Return the SHA-256 of a model's weights, processor and the task's configuration."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().contiguous().cpu().numpy().tobytes())
    config = model.config
    told = [type(model).__name__, config.norm, config.scale, model.classes, config.residual, config.pixel_size_range]
    processor = model.processor
    digest.update(json.dumps([told, processor.low, processor.high, processor.clip], default=str).encode())
    return digest.hexdigest()


def _input_facts(path: Path) -> dict[str, Any]:
    """Return name, size in bytes and time of change of a file, or of all in a folder (Zarr)."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    states = [file.stat() for file in files]
    changed = max((state.st_mtime_ns for state in states), default=0)
    return {"name": path.name, "bytes": sum(state.st_size for state in states), "changed": changed}


def _record_path(result: Path) -> Path:
    return result.with_name(f"{result.name}.json")


def _read_record(result: Path) -> dict[str, Any]:
    """Return the record of a finished result; an empty one if it or the result is gone."""
    try:
        found = json.loads(_record_path(result).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and result.exists() else {}
