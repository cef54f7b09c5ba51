"""What pretraining is worth: the same network fine-tuned from its pretrained and from random weights.

Every cell (start, number of images, seed) is one line of JSON in the results file, appended when it is done; a stopped
run goes on where it was. Example:

    python -m benchmarks.transfer --data FOLDER --generator unet4-rf200-w16 --num-images 1 5 20 --steps 300
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from emfm.tasks import TASKS
from emfm.training.evaluate import evaluate
from emfm.training.finetune import FinetuneArguments, finetune

SETTINGS = ("steps", "crop", "batch_size", "learning_rate", "norm", "degrade")
CELL = ("task", "data", "generator", "start", "num_images", "seed", *SETTINGS)
# Figures of the table: name, heading, format.
FIGURES = {
    "segmentation": (("dice", "Dice", ".3f"), ("iou", "IoU", ".3f")),
    "restoration": (("l1", "L1", ".4f"), ("psnr", "PSNR (dB)", ".2f")),
}


def run_cell(cell: dict[str, Any], folder: str) -> dict[str, Any]:
    """Fine-tune and measure on the test split; returns the cell with its figures."""
    start = {"model" if cell["start"] == "pretrained" else "scratch": cell["generator"]}
    settings = {name: cell[name] for name in ("num_images", "seed", *SETTINGS)}
    with tempfile.TemporaryDirectory() as temporary:
        output = str(Path(temporary) / "model")
        facts = finetune(FinetuneArguments(cell["task"], folder, output, **start, **settings))
        curve = json.loads((Path(output) / "curve.json").read_text())
        test = evaluate(output, folder, "test", degrade=cell["degrade"])
    merit = facts["figure_of_merit"]
    validation = [{name: entry[name] for name in ("step", "seconds", merit)} for entry in curve]
    return {
        **cell,
        "precision": facts["precision"],
        "best_step": facts["best"]["step"],
        "validation": validation,
        "test": test,
    }


def _spread(values: Sequence[float], form: str) -> str:
    deviation = np.std(values, ddof=1 if len(values) > 1 else 0)
    return f"{np.mean(values):{form}} ± {deviation:{form}}"


def table(results: list[dict[str, Any]]) -> str:
    """Return mean and standard deviation over the seeds, one row per number of images and start."""
    task = results[0]["task"]
    figures = FIGURES.get(task, FIGURES["restoration"])
    merit, _, form = figures[0]
    headings = " | ".join(f"test {label}" for _, label, _ in figures)
    rows = [
        f"| data | generator | images | start | seeds | {headings} | validation {figures[0][1]} at 10 % of the steps |",
        "|---|---|---|---|---|" + "---|" * (len(figures) + 1),
    ]
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for result in results:
        key = tuple(result[name] for name in ("data", "generator", "num_images", "start"))
        groups.setdefault(key, []).append(result)
    for key, cells in groups.items():
        early = [next(e[merit] for e in cell["validation"] if e["step"] >= cell["steps"] / 10) for cell in cells]
        shown = [_spread([cell["test"][name] for cell in cells], form) for name, _, form in figures]
        rows.append(f"| {' | '.join(map(str, key))} | {len(cells)} | {' | '.join(shown)} | {_spread(early, form)} |")
    trivial = results[0]["test"]["trivial"]
    shown = ", ".join(f"{label} {trivial[name]:{form}}" for name, label, form in figures)
    return "\n".join([*rows, "", f"Without a network: {shown} (n = {results[0]['test']['n']} test micrographs)."])


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the settings of a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with a test split")
    parser.add_argument("--task", default="segmentation", choices=TASKS)
    parser.add_argument("--degrade", help="restoration: make pairs from clean images")
    parser.add_argument("--generator", default="unet4-rf200-w16")
    parser.add_argument("--num-images", type=int, nargs="+", default=[20])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--norm", default="instance", help="of the network from scratch; a pretrained one has its own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/transfer.jsonl"))
    return parser.parse_args(argv)


def cells(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the settings of every run that is asked for."""
    common = {name: getattr(arguments, name) for name in CELL if hasattr(arguments, name)}
    common["data"] = Path(arguments.data).resolve().name
    product_of = product(arguments.seeds, arguments.num_images, ("pretrained", "scratch"))
    return [{**common, "num_images": images, "start": start, "seed": seed} for seed, images, start in product_of]


def main() -> None:
    """Run the cells that the results file lacks, then print the table."""
    arguments = parse()
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    lines = arguments.results.read_text().splitlines() if arguments.results.exists() else []
    done = [json.loads(line) for line in lines]
    asked = []
    for cell in cells(arguments):
        found = next((result for result in done if all(result.get(name) == cell[name] for name in CELL)), None)
        if found is None:
            found = run_cell(cell, arguments.data)
            with arguments.results.open("a") as results:
                results.write(json.dumps(found) + "\n")
        asked.append(found)
    asked.sort(key=lambda result: (result["num_images"], result["start"]))
    sys.stdout.write(table(asked) + "\n")


if __name__ == "__main__":
    main()
