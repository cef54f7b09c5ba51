"""Every task beside the answer that needs no network: the best single class, the input itself, bicubic enlargement.

Segmentation runs on a labelled folder; the restoration tasks on its images, damaged, and on
simulated atomic columns. Each cell is one line of JSON in the results file; a stopped run goes on
where it was. Example:

    python -m benchmarks.tasks --data FOLDER --start unet4-rf200-w16 --start scratch:hrnet-w18-small
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from emfm.finetuning.evaluate import evaluate
from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.simulate.folder import write_simulated_folder

DEGRADE = {"denoising": "dose", "super-resolution": "downsample", "background-removal": "background"}
FORMS = {"dice": ".3f", "iou": ".3f", "boundary_f1": ".3f", "l1": ".4f", "psnr": ".2f", "ssim": ".3f"}
SIMULATED = "atomic-stem"
RATE = 1e-3


def cells(data: str, starts: list[str]) -> list[dict[str, Any]]:
    """Return task, data and start of every run."""
    rows: list[tuple[str, str, str | None]] = [("segmentation", data, None)]
    rows += [(task, data, degrade) for task, degrade in DEGRADE.items()]
    rows += [(task, SIMULATED, None) for task in DEGRADE]
    return [
        {"task": task, "data": where, "degrade": degrade, "start": start}
        for start in starts
        for task, where, degrade in rows
    ]


def run_cell(cell: dict[str, Any], folder: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Fine-tune and measure on the test split; returns the cell with its figures."""
    scratch = cell["start"].startswith("scratch:")
    start = {"scratch" if scratch else "model": cell["start"].removeprefix("scratch:")}
    fixed = {"degrade": cell["degrade"], "learning_rate": RATE, **start, **settings}
    with tempfile.TemporaryDirectory() as temporary:
        output = str(Path(temporary) / "model")
        facts = finetune(FinetuneArguments(cell["task"], folder, output, **fixed))
        test = evaluate(output, folder, "test", degrade=cell["degrade"])
    return {**cell, "seconds": facts["seconds"], "test": test}


def table(results: list[dict[str, Any]]) -> str:
    """Return a row per run: the model's figures beside those without a network."""
    rows = ["| task | data | start | steps | n | model | without a network |", "|---|---|---|---|---|---|---|"]
    for result in results:
        test = result["test"]
        shown = [
            ", ".join(f"{name} {figures[name]:{form}}" for name, form in FORMS.items() if name in figures)
            for figures in (test, test["trivial"])
        ]
        data = result["data"] + (f", {result['degrade']}" if result["degrade"] else "")
        start = f"{result['start']} | {result['steps']} | {test['n']}"
        rows.append(f"| {result['task']} | {data} | {start} | {shown[0]} | {shown[1]} |")
    return "\n".join(rows)


def main() -> None:
    """Run the cells that the results file lacks, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="labelled folder with a test split")
    parser.add_argument("--start", action="append", required=True, help="a model, or scratch:GENERATOR; repeatable")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/tasks.jsonl"))
    arguments = parser.parse_args()
    settings = {name: getattr(arguments, name) for name in ("steps", "crop", "batch_size", "seed")}
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    lines = arguments.results.read_text().splitlines() if arguments.results.exists() else []
    done = {json.dumps({**json.loads(line), "seconds": 0, "test": 0}): json.loads(line) for line in lines}
    with tempfile.TemporaryDirectory() as temporary:
        simulated = write_simulated_folder(SIMULATED, Path(temporary), 60, (256, 256), arguments.seed)
        shown = []
        for cell in cells(Path(arguments.data).resolve().name, arguments.start):
            key = {**cell, **settings}
            found = done.get(json.dumps({**key, "seconds": 0, "test": 0}))
            if found is None:
                folder = str(simulated / cell["task"]) if cell["data"] == SIMULATED else arguments.data
                found = {**key, **run_cell(cell, folder, settings)}
                with arguments.results.open("a") as results:
                    results.write(json.dumps(found) + "\n")
            shown.append(found)
    sys.stdout.write(table(shown) + "\n")


if __name__ == "__main__":
    main()
