"""How the defaults of fine-tuning were chosen: the same short run with one setting changed, best validation figure.

Each run is one line of JSON in the results file; a stopped benchmark goes on where it was. Example:

    python -m benchmarks.finetune_settings --data DOWNSTREAM
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from emfm.finetuning.finetune import FinetuneArguments, finetune

GENERATOR = "unet4-rf200-w16"
COMMON = {"steps": 100, "batch_size": 8, "crop": 128, "learning_rate": 1e-3}
MEMBRANE, PRECIPITATES = "isbi_membrane", "superalloy_precipitates"
DEGRADE = {"denoising": "dose", "super-resolution": "downsample", "background-removal": "background"}


def runs() -> list[dict[str, Any]]:
    """Return every run: task, data, start and what differs from the defaults."""
    found: list[dict[str, Any]] = []
    for task, degrade in DEGRADE.items():
        for start in ("pretrained", "scratch"):
            for residual in (False, True):
                changed = {"residual": residual, "degrade": degrade}
                found.append({"task": task, "data": MEMBRANE, "start": start, "changed": changed})
    for data in (PRECIPITATES, MEMBRANE):
        for jitter in (0.2, 0.0):
            changed = {"intensity_jitter": jitter, "num_images": 5}
            found.append({"task": "segmentation", "data": data, "start": "pretrained", "changed": changed})
    return found


def measure(run: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the run with its best validation figure."""
    start = {"model" if run["start"] == "pretrained" else "scratch": GENERATOR}
    with tempfile.TemporaryDirectory() as temporary:
        output = str(Path(temporary) / "model")
        data = str(folder / run["data"])
        facts = finetune(FinetuneArguments(run["task"], data, output, **start, **run["changed"], **COMMON))
    merit = facts["figure_of_merit"]
    return {**run, "merit": merit, "best": facts["best"][merit]}


def table(results: list[dict[str, Any]]) -> str:
    """Return a row per run."""
    rows = ["| task | data | start | changed | best validation |", "|---|---|---|---|---|"]
    for result in results:
        changed = ", ".join(f"{name} {value}" for name, value in result["changed"].items() if name != "degrade")
        figure = f"{result['merit']} {result['best']:.4f}"
        rows.append(f"| {result['task']} | {result['data']} | {result['start']} | {changed} | {figure} |")
    return "\n".join(rows)


def main() -> None:
    """Do the runs that the results file lacks, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the labelled folders")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/finetune_settings.jsonl"))
    arguments = parser.parse_args()
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    lines = arguments.results.read_text().splitlines() if arguments.results.exists() else []
    done = [json.loads(line) for line in lines]
    for run in runs():
        if not any(all(result[name] == run[name] for name in run) for result in done):
            done.append(measure(run, arguments.data))
            with arguments.results.open("a") as results:
                results.write(json.dumps(done[-1]) + "\n")
    sys.stdout.write(table(done) + "\n")


if __name__ == "__main__":
    main()
