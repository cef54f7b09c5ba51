"""Objects told apart: the task `instances` beside a semantic network whose map is divided afterwards.

All learn from the same images with the same steps and crops, at the same size, and are measured on the test list. The
semantic network's map is divided into connected parts, and by the usual watershed on the distance transform, whose
smoothing validation chooses. Its learning rate is chosen on validation, too, by runs of a seed of their own. A run is
a line of JSON in the results file, appended when it is done; a stopped benchmark goes on where it was. Seconds are
those of one core.

    python -m benchmarks.instances --data DOWNSTREAM
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.instance_rivals import divided, parts_of, small_masks
from benchmarks.instance_simulated import median_error, simulated
from benchmarks.json_lines import read_lines
from emfm.data.object_sizes import shrink_for
from emfm.data.objects import LabelledObjects
from emfm.finetuning.finetune import FinetuneArguments, build_model
from emfm.finetuning.trainer import EMTrainer
from emfm.finetuning.trainer_arguments import EMTrainingArguments
from emfm.inference.predict import predict
from emfm.tasks.instance_metrics import InstanceMetrics
from emfm.tasks.instances import EMForInstanceSegmentation
from emfm.tasks.segmentation import EMForSemanticSegmentation
from emfm.tasks.task import EMTaskModel

RESULTS = Path("benchmarks/results/instances.jsonl")
SET, NETWORK = "emps_particles", "hrnet-w18-small"
STEPS, BATCH, CROP, RATE = 150, 2, 192, 3e-3
SEEDS, IMAGES, TUNING_SEED = (0, 1, 2), (60, 20, 3), 100
METHODS = ("instances", "semantic", "instances-random")
# Of the semantic network; those of the watershed's smoothing are standard deviations in pixels.
RATES, SMOOTHINGS = (3e-3, 1e-3), (1.0, 2.0, 4.0)
FIGURES = ("ap50", "ap", "pq", "count_error")


@dataclass(frozen=True)
class Cell:
    """What decides one run; `measured` is the split, or "simulated"."""

    method: str
    images: int
    seed: int
    measured: str = "test"
    rate: float = RATE


def cells(results: dict[Cell, dict[str, Any]]) -> Iterator[Cell]:
    """Yield the runs in the order of their worth; the semantic rate is known after the first."""
    tuning = [Cell("semantic", 20, TUNING_SEED, "validation", rate) for rate in RATES]
    yield from tuning
    rate = max(tuning, key=lambda cell: results[cell]["rows"]["connected parts"]["ap50"]).rate
    for seed, method, images in product(SEEDS, METHODS[:2], IMAGES):
        yield Cell(method, images, seed, rate=rate if method == "semantic" else RATE)
    for seed in SEEDS:
        yield Cell("instances", 20, seed, "simulated")
    for seed, images in product(SEEDS, IMAGES):
        yield Cell(METHODS[2], images, seed)


def load(folder: Path, split: str) -> LabelledObjects:
    """Return a split of the labelled set."""
    return EMForInstanceSegmentation.load(folder, split, None, None)


def trained(cell: Cell, training: LabelledObjects, validation: LabelledObjects) -> tuple[EMTaskModel, float]:
    """Return a model that has learnt, and the seconds that this took."""
    began = time.process_time()
    task = "segmentation" if cell.method == "semantic" else "instances"
    data: tuple[Any, Any] = (training, validation)
    if task == "segmentation":
        data = tuple(small_masks(part, shrink_for(training.ids)) for part in data)
    start = {"scratch": NETWORK} if cell.method.endswith("random") else {"model": NETWORK}
    known: dict[str, Any] = {"task": task, "data": SET, "output": "nowhere", "seed": cell.seed, **start}
    model = build_model(FinetuneArguments(**known), data[0])
    with tempfile.TemporaryDirectory() as output:
        settings = EMTrainingArguments(
            output_dir=output,
            max_steps=STEPS,
            per_device_train_batch_size=BATCH,
            crop=CROP,
            learning_rate=cell.rate,
            seed=cell.seed,
            eval_strategy="no",
            eval_on_start=False,
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            dataloader_num_workers=0,
        )
        trainer = EMTrainer(model, settings, *data)
        trainer.train()
        trainer.recalibrate(model)
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    return model.eval(), round(time.process_time() - began, 1)


def run(cell: Cell, folder: Path) -> dict[str, Any]:
    """Return the figures of a run, by what divides the objects."""
    torch.set_num_threads(1)
    if cell.measured == "simulated":
        training, validation, test = (simulated(count, offset) for count, offset in ((20, 0), (4, 100), (10, 200)))
    else:
        training, validation, test = (load(folder, split) for split in ("train", "validation", cell.measured))
        training = training.take(cell.images, cell.seed)
    model, seconds = trained(cell, training, validation)
    facts: dict[str, Any] = {"seconds": seconds, "steps": STEPS, "n": len(test)}
    if isinstance(model, EMForInstanceSegmentation):
        facts |= {"shrink": model.config.shrink, "separation": model.config.separation}
        found = [predict(model, image, compare=False).output for image in test.images]
        if cell.measured == "simulated":
            facts["median_error"] = round(median_error(found, test.ids), 4)
        return {**facts, "rows": {"watershed": measured(found, test)}}
    assert isinstance(model, EMForSemanticSegmentation)
    shrink = shrink_for(training.ids)
    seen = [parts_of(model, image, shrink) for image in validation.images]
    smoothing = max(SMOOTHINGS, key=lambda s: measured([divided(mask, s) for mask in seen], validation)["ap50"])
    masks = [parts_of(model, image, shrink) for image in test.images]
    rows = {"connected parts": measured([divided(mask, None) for mask in masks], test)}
    rows["distance transform"] = measured([divided(mask, smoothing) for mask in masks], test)
    return {**facts, "shrink": shrink, "smoothing": smoothing, "rows": rows}


def measured(found: list[np.ndarray], data: LabelledObjects) -> dict[str, float]:
    """Return the figures of numbered objects (H, W) of each micrograph."""
    metrics = InstanceMetrics()
    for numbers, ids in zip(found, data.ids, strict=True):
        metrics.add(numbers.astype(np.int64), ids)
    figures = metrics.result()
    return {name: round(figures[name], 4) for name in FIGURES}


def read_results(path: Path) -> dict[Cell, dict[str, Any]]:
    """Return the results of all runs in a file."""
    return {Cell(**row["cell"]): {name: row[name] for name in row if name != "cell"} for row in read_lines(path)}


def table(results: dict[Cell, dict[str, Any]]) -> str:
    """Return what was found as a Markdown table, and what simulated particles' sizes came to."""
    titles = {
        ("instances", "watershed"): "`instances`, pretrained",
        ("instances-random", "watershed"): "`instances`, random weights",
        ("semantic", "connected parts"): "semantic network, connected parts",
        ("semantic", "distance transform"): "semantic network, watershed on the distance transform",
    }
    lines = ["| images | objects by | AP50 | AP | PQ | error of the count | s of a core | seeds |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for images, (key, title) in product(sorted(IMAGES), titles.items()):
        same = [replace(Cell(key[0], images, seed), rate=rate) for seed in SEEDS for rate in RATES]
        runs = [results[cell] for cell in same if cell in results]
        if runs:
            shown = [_spread([run["rows"][key[1]][name] for run in runs]) for name in FIGURES]
            seconds = np.mean([run["seconds"] for run in runs])
            lines.append(f"| {images} | {title} | {' | '.join(shown)} | {seconds:.0f} | {len(runs)} |")
    errors = [found["median_error"] for cell, found in results.items() if cell.measured == "simulated"]
    if errors:
        told = ", ".join(f"{100 * error:+.1f} %" for error in errors)
        lines += ["", f"Median diameter of simulated nanoparticles that touch, against the truth, by seed: {told}."]
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values):.3f}"


def main() -> int:
    """Run what is missing; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one labelled folder per data set")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="what runs")
    arguments = parser.parse_args()
    results = read_results(arguments.results)
    for cell in cells(results):
        results |= read_results(arguments.results)  # another process may do others
        if cell in results or cell.method not in arguments.methods:
            continue
        results[cell] = run(cell, arguments.data / SET)
        with arguments.results.open("a") as file:
            file.write(json.dumps({"cell": asdict(cell), **results[cell]}) + "\n")
        sys.stdout.write(f"{cell} {results[cell]['rows']} {results[cell]['seconds']} s\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
