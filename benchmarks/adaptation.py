"""Is it worth going on with pretraining on one's own unlabelled micrographs, before the labels?

A network of the zoo goes on learning on the training images of a labelled set, without their masks, as
`emfm pretrain --init NAME` does it, for some minutes of one core. That network, and the zoo's as it is, then learn from
a few labels, alike in all else. Each run is one line of JSON in the results file; what is there is not run again.

    python -m benchmarks.adaptation --data DOWNSTREAM
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.json_lines import read_lines
from benchmarks.transfer_cell import Places, examples_of, weights_digest
from benchmarks.transfer_report import table
from emfm.data.classes import read_json_object
from emfm.finetuning.evaluate import evaluate_on
from emfm.finetuning.finetune import FinetuneArguments, build_model
from emfm.finetuning.trainer import EMTrainer
from emfm.finetuning.trainer_arguments import EMTrainingArguments
from emfm.loading.names import model_folder
from emfm.pretraining.arguments import PretrainArguments
from emfm.pretraining.pretrain import pretrain

RESULTS = Path("benchmarks/results/adaptation.jsonl")
GENERATOR = "timm-tf-efficientnet-lite0"
SETS = ("vnc_mitochondria", "alumina_pt", "isbi_membrane")
ZOO, ADAPTED = "zoo", "adapted"
# About five minutes of one core with units for bf16; the network's own pretraining had such crops.
ADAPTING: dict[str, Any] = {"crop": 96, "batch_size": 12, "structures": 4, "precision": "bf16"}
STEPS, CROPS, SIDE = 150, 4, 128


@dataclass(frozen=True)
class Cell:
    """What decides one run.

    Attributes:
        data: name of a labelled folder.
        start: `ZOO` or `ADAPTED`.
        num_images: labelled images to learn from.
        seed: draws the images and the crops.
        split: on which it is measured.
    """

    data: str
    start: str
    num_images: int
    seed: int
    split: str
    task: str = "segmentation"
    degrade: str | None = None


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the settings of a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the labelled folders")
    parser.add_argument("--weights", type=Path, default=Path("runs/adaptation"), help="keeps the adapted networks")
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--images", nargs="+", type=int, default=[1, 3])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--split", default="test", help="validation, to choose the settings by (default %(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="of adapting (default %(default)s)")
    parser.add_argument("--rate", type=float, default=1e-3, help="of adapting (default %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(argv)


def cells(arguments: argparse.Namespace) -> Iterator[Cell]:
    """Yield every run, those of the first seed first."""
    for seed in arguments.seeds:
        for data in arguments.sets:
            for images in arguments.images:
                for start in (ZOO, ADAPTED):
                    yield Cell(data, start, images, seed, arguments.split)


def adapted(arguments: argparse.Namespace, data: str) -> tuple[Path, float]:
    """Return the folder of the network that went on with a set's training images, and what that took of one core."""
    output = arguments.weights / f"{data}-{arguments.steps}-{arguments.rate:g}"
    note = output / "seconds.json"
    if note.is_file():
        return output / "pretrained_model", json.loads(note.read_text())
    shutil.rmtree(output, ignore_errors=True)
    folder = arguments.data / data
    names = read_json_object(folder / "splits.json", "the splits")["train"]
    began = time.process_time()
    with tempfile.TemporaryDirectory() as unlabelled:
        for name in names:
            shutil.copy(folder / "images" / name, unlabelled)
        given = {"init": GENERATOR, "steps": arguments.steps, "learning_rate": arguments.rate, **ADAPTING}
        model = pretrain(PretrainArguments((unlabelled,), str(output), **given))
    seconds = round(time.process_time() - began, 1)
    note.write_text(json.dumps(seconds))
    return model, seconds


def run(cell: Cell, arguments: argparse.Namespace) -> dict[str, Any]:
    """Let a network learn from labels, and measure it; returns the cell, the figure, and what it cost."""
    torch.set_num_threads(1)
    start, seconds = model_folder(GENERATOR), 0.0
    if cell.start == ADAPTED:
        start, seconds = adapted(arguments, cell.data)
    training, measured = examples_of(cell, Places(arguments.data, arguments.weights))
    known: dict[str, Any] = {"data": cell.data, "output": "nowhere", "seed": cell.seed}
    model = build_model(FinetuneArguments(cell.task, model=str(start), **known), training)
    with tempfile.TemporaryDirectory() as output:
        settings = EMTrainingArguments(
            output_dir=output,
            max_steps=STEPS,
            per_device_train_batch_size=CROPS,
            crop=SIDE,
            seed=cell.seed,
            eval_strategy="no",
            eval_on_start=False,
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            dataloader_num_workers=0,
        )
        trainer = EMTrainer(model, settings, training, measured)
        trainer.train()
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    trainer.recalibrate(model)
    dice = round(evaluate_on(model, measured)["dice"], 5)
    adapting = {"steps": arguments.steps, "rate": arguments.rate, "seconds": seconds} if seconds else {}
    return {**asdict(cell), "weights": weights_digest(start), "adapting": adapting, "dice": dice}


def adaptation_table(results: Sequence[dict[str, Any]]) -> str:
    """Return a row for each set and number of labels: Dice of both starts on `test`, and the gain of each seed."""
    known = [result for result in results if result["split"] == "test"]
    rows = []
    for data, images in sorted({(result["data"], result["num_images"]) for result in known}):
        runs = [result for result in known if (result["data"], result["num_images"]) == (data, images)]
        before, after = ({r["seed"]: r["dice"] for r in runs if r["start"] == start} for start in (ZOO, ADAPTED))
        seeds = sorted(before.keys() & after.keys())
        if not seeds:
            continue
        seconds = max(result["adapting"].get("seconds", 0.0) for result in runs)
        means = [f"{np.mean([dice[seed] for seed in seeds]):.3f}" for dice in (before, after)]
        gains = ", ".join(f"{after[seed] - before[seed]:+.3f}" for seed in seeds)
        rows.append([data, str(images), f"{seconds:.0f}", *means, gains])
    if not rows:
        return "No run is committed yet."
    return table(["data", "labelled images", "seconds of adapting", "as it is", "adapted", "gain of each seed"], rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Do the runs that the results file lacks, then print the table."""
    arguments = parse(argv)
    results = read_lines(arguments.results)
    for cell in cells(arguments):
        asked = asdict(cell)
        if not any(all(result[name] == value for name, value in asked.items()) for result in results):
            results.append(run(cell, arguments))
            with arguments.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(results[-1]) + "\n")
    sys.stdout.write(adaptation_table(results) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
