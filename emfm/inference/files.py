"""Prediction from files to files of any size: one or many, by one process or several, going on where a run stopped."""

import glob
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from emfm.errors import EMError
from emfm.files import write_text
from emfm.inference.arguments import PredictArguments
from emfm.inference.one_file import Job, predict_file
from emfm.inference.predict import ready_model
from emfm.inference.processes import Processes
from emfm.inference.records import fingerprint
from emfm.io.reading import SUFFIXES, list_micrographs
from emfm.modeling import EMPreTrainedModel


def expand_inputs(given: list[str], output: Path) -> list[Path]:
    """Return the files that names, patterns and folders stand for; what lies in the output folder is left out.

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
            found = [Path(match) for match in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207  (absolute ones, too)
            found = [match for match in found if match.suffix.lower() in SUFFIXES]
            if not found:
                raise EMError(f"no micrograph matches {name}; looked for {', '.join(SUFFIXES)}")
        files += [file for file in found if output.resolve() not in file.resolve().parents]
    return list(dict.fromkeys(files))


def predict_files(
    model: EMPreTrainedModel | str | Path,
    inputs: list[Path],
    output: Path,
    arguments: PredictArguments | None = None,
) -> list[dict[str, Any]]:
    """Predict micrographs of any size to files, in memory bounded by the tile.

    For each input `NAME.tif` (class indices, or the restored micrograph; pixel size kept), what the task's report
    makes of it, and the record `NAME.tif.json` are written. A result whose record says that it was made from the same
    input, model and settings is left as it is. Under torchrun or accelerate the
    files are divided among the processes, and what does not divide evenly is done by all of them together.

    Args:
        model: a model, or the name or folder of one.
        inputs: micrograph files.
        output: folder for the results; made if needed.
        arguments: how; the defaults if None.

    Returns:
        One entry per input, in their order and in every process: `input`, `output`, the paths of the report and
        `skipped`; or `input` and `error` where a file could not be predicted, which does not stop the others.

    Raises:
        EMError: two inputs have one name, or the model does not load.
    """
    arguments = arguments or PredictArguments()
    processes = Processes.join()
    first: dict[str, Path] = {}
    for path in inputs:
        if path.stem in first:
            raise EMError(
                f"{first[path.stem]} and {path} would both become {path.stem}.{arguments.format}: predict them apart, "
                "or give the folder of the micrographs alone"
            )
        first[path.stem] = path
    model = ready_model(model)
    settings = {key: value for key, value in asdict(arguments).items() if key not in ("tile", "overwrite", "format")}
    made_by = {"model": fingerprint(model), **settings}
    jobs = [Job(model, path, output / f"{path.stem}.{arguments.format}", arguments, made_by) for path in inputs]
    entries = _all(jobs, processes)
    if processes.rank == 0 and model.classes is not None and any("output" in entry for entry in entries):
        write_text(output / "labels.json", json.dumps(model.classes, indent=1))
    return entries


def _all(jobs: list[Job], processes: Processes) -> list[dict[str, Any]]:
    """Do every job: an equal number of files in each process, then the rest together."""
    divided = len(jobs) // processes.count * processes.count
    mine = list(range(processes.rank, divided, processes.count))
    alone, single = Processes(0, 1), len(jobs) == 1
    found = {}
    bar = tqdm(total=len(mine) + len(jobs) - divided, unit="image", disable=single or processes.rank > 0, leave=False)
    for index in (*mine, *range(divided, len(jobs))):
        found[index] = _one(jobs[index], alone if index < divided else processes)
        bar.update()
    bar.close()
    together: dict[int, dict[str, Any]] = {}
    for part in processes.gather(found):
        together.update(part)
    return [together[index] for index in range(len(jobs))]


def _one(job: Job, processes: Processes) -> dict[str, Any]:
    """Predict one file, unless that was done before; what is wrong with it becomes an entry."""
    try:
        return {"input": str(job.source), **predict_file(job, processes)}
    except (EMError, OSError) as error:
        return {"input": str(job.source), "error": _told(error, job.source)}


def _told(error: Exception, source: Path) -> str:
    message = " ".join(str(error).split())
    return message if str(source) in message else f"{source}: {message}"
