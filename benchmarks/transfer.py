"""What pretraining is worth: the same network fine-tuned from its pretrained and from random weights.

Every cell (start, seed) is one line of JSON in the results file, appended when it is done; a stopped run goes on where
it was. Example:

    python -m benchmarks.transfer --data FOLDER --generator unet4-rf200-w16 --num-images 20 --steps 300
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from emfm.training.evaluate import evaluate
from emfm.training.finetune import FinetuneArguments, finetune

CELL = ("data", "generator", "start", "num_images", "steps", "crop", "batch_size", "learning_rate", "norm", "seed")


def run_cell(cell: dict[str, Any], folder: str) -> dict[str, Any]:
    """Fine-tune and measure on the test split; returns the cell with its figures."""
    settings = {name: cell[name] for name in CELL if name not in ("data", "generator", "start")}
    start = {"model" if cell["start"] == "pretrained" else "scratch": cell["generator"]}
    with tempfile.TemporaryDirectory() as temporary:
        output = str(Path(temporary) / "model")
        facts = finetune(FinetuneArguments("segmentation", folder, output, **start, **settings))
        curve = json.loads((Path(output) / "curve.json").read_text())
        test = evaluate(output, folder, "test")
    validation = [{name: entry[name] for name in ("step", "seconds", "dice")} for entry in curve]
    return {
        **cell,
        "precision": facts["precision"],
        "best_step": facts["best"]["step"],
        "validation": validation,
        "test": test,
    }


def table(results: list[dict[str, Any]]) -> str:
    """Return mean and standard deviation over the seeds, one row per start."""
    rows = [
        "| data | generator | start | images | seeds | test Dice | test IoU | validation Dice at 10 % of the steps |"
    ]
    rows.append("|---|---|---|---|---|---|---|---|")
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault(tuple(result[name] for name in ("data", "generator", "start", "num_images")), []).append(
            result
        )
    for key, cells in groups.items():
        early = [next(e["dice"] for e in cell["validation"] if e["step"] >= cell["steps"] / 10) for cell in cells]
        figures = ([cell["test"]["dice"] for cell in cells], [cell["test"]["iou"] for cell in cells], early)
        shown = [
            f"{np.mean(values):.3f} ± {np.std(values, ddof=1 if len(values) > 1 else 0):.3f}" for values in figures
        ]
        data, generator, start, images = key
        rows.append(f"| {data} | {generator} | {start} | {images} | {len(cells)} | {' | '.join(shown)} |")
    return "\n".join(rows)


def main() -> None:
    """Run the cells that the results file lacks, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="labelled folder with a test split")
    parser.add_argument("--generator", default="unet4-rf200-w16")
    parser.add_argument("--num-images", type=int, default=20)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--norm", default="instance", help="of the network from scratch; a pretrained one has its own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/transfer.jsonl"))
    arguments = parser.parse_args()
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    lines = arguments.results.read_text().splitlines() if arguments.results.exists() else []
    done = [json.loads(line) for line in lines]
    common = {name: getattr(arguments, name) for name in CELL if hasattr(arguments, name)}
    common["data"] = Path(arguments.data).resolve().name
    for seed in arguments.seeds:
        for start in ("pretrained", "scratch"):
            cell = {**common, "start": start, "seed": seed}
            if any(all(result[name] == cell[name] for name in CELL) for result in done):
                continue
            done.append(run_cell(cell, arguments.data))
            with arguments.results.open("a") as results:
                results.write(json.dumps(done[-1]) + "\n")
    sys.stdout.write(table(done) + "\n")


if __name__ == "__main__":
    main()
