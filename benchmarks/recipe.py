"""What changes of the fine-tuning are worth: one at a time, on validation micrographs of labelled sets.

Three labelled images, 150 steps of 4 crops of 128 px. Of each run the last weights are measured, and averages of the
weights on the way. Each run is one line of JSON in the results file; what is there is not run again. Example:

    python -m benchmarks.recipe --data DOWNSTREAM --variants as-it-is all-scales --sets vnc_mitochondria
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import TrainerCallback

from benchmarks.json_lines import read_lines
from benchmarks.transfer_cell import Places, examples_of
from benchmarks.transfer_report import table
from emfm.data.examples import IGNORED
from emfm.finetuning.evaluate import evaluate_on
from emfm.finetuning.finetune import FinetuneArguments, build_model
from emfm.finetuning.head import fit_head
from emfm.finetuning.trainer import EMTrainer
from emfm.finetuning.trainer_arguments import EMTrainingArguments
from emfm.tasks.losses import dice_loss
from emfm.tasks.task import EMTaskModel
from emfm.training.checkpoint import Tensors

RESULTS = Path("benchmarks/results/recipe.jsonl")
GENERATOR = "timm-tf-efficientnet-lite0"
SETS = (
    "vnc_mitochondria",
    "alumina_pt",
    "emps_particles",
    "isbi_membrane",
    "axon_myelin",
    "superalloy_precipitates",
)
IMAGES, STEPS, CROPS, SIDE = 3, 150, 4, 128
AS_IT_IS = "as it is"
# The last weights are measured, by the benchmark itself.
SETTINGS: dict[str, Any] = {
    "eval_strategy": "no",
    "eval_on_start": False,
    "save_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": True,
    "dataloader_num_workers": 0,
}


@dataclass(frozen=True)
class Variant:
    """What differs from the defaults.

    Attributes:
        choices: fields of `FinetuneArguments` that decide the model.
        training: fields of `EMTrainingArguments`.
        encoder_rate: the encoder's rate, as a share of the rest's.
        smoothing: this share of every label goes to all classes alike, in the cross-entropy.
    """

    choices: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    encoder_rate: float = 1.0
    smoothing: float = 0.0


VARIANTS = {
    AS_IT_IS: Variant(),
    "rate 1e-3": Variant(training={"learning_rate": 1e-3}),
    "rate 6e-3": Variant(training={"learning_rate": 6e-3}),
    "head on all scales": Variant(choices={"all_scales": True}),
    "encoder at 0.3 of the rate": Variant(encoder_rate=0.3),
    "augmentation 0.5": Variant(training={"augment": 0.5}),
    "warm-up of a fifth": Variant(training={"warmup_steps": 0.2}),
    "Adam's second beta 0.98": Variant(training={"adam_beta2": 0.98}),
    "weight decay 0.05": Variant(training={"weight_decay": 0.05}),
    "labels smoothed by 0.05": Variant(smoothing=0.05),
    "classes alike": Variant(choices={"class_weights": "none"}),
}
# Averages of the weights: from this share of the steps on, and the moving average's decay; None: the plain mean.
AVERAGES: dict[str, tuple[float, float | None]] = {"last-third": (2 / 3, None), "moving": (0.0, 0.9)}
# What is measured of a run, in the words of the table; the symmetries of runs as they are alone.
LAST, REFITTED, SYMMETRIES = "last", "refitted", "symmetries"
KINDS = {
    LAST: "",
    "last-third": "weights averaged over the last third",
    "moving": "moving average of the weights, 0.9",
    REFITTED: "head fitted again at the end",
    SYMMETRIES: "mean over eight symmetries",
}
REFITTED_CROPS = 48


@dataclass(frozen=True)
class Cell:
    """What decides one run; `variant` is one of `VARIANTS`, the rest as in `benchmarks.transfer_cell.Cell`."""

    variant: str
    data: str
    generator: str
    seed: int
    num_images: int = IMAGES
    split: str = "validation"
    task: str = "segmentation"
    degrade: str | None = None


class _Trainer(EMTrainer):
    """Follows a variant."""

    variant = Variant()

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        optimizer = super().create_optimizer(model)
        if self.variant.encoder_rate == 1:
            return optimizer
        encoder = {id(parameter) for part in self.model.trunk.blocks()[0] for parameter in part.parameters()}
        for group in list(optimizer.param_groups):
            slow = [parameter for parameter in group["params"] if id(parameter) in encoder]
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in encoder]
            if slow:
                optimizer.add_param_group({**group, "params": slow, "lr": group["lr"] * self.variant.encoder_rate})
        return optimizer

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if not self.variant.smoothing:
            return super().compute_loss(model, inputs, *args, **kwargs)
        logits, labels = model(inputs["pixel_values"]).logits.float(), inputs["labels"]
        given = self.accelerator.unwrap_model(model).config.class_weights
        weights = None if given is None else torch.tensor(given)
        entropy = F.cross_entropy(logits, labels, weights, ignore_index=IGNORED, label_smoothing=self.variant.smoothing)
        return entropy + dice_loss(logits, labels)


class _Averages(TrainerCallback):
    """Keeps averages of the weights on the way."""

    def __init__(self, trainer: EMTrainer):
        self._trainer = trainer
        self.kept: dict[str, Tensors] = {}
        self._seen = dict.fromkeys(AVERAGES, 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        weights = self._trainer.accelerator.unwrap_model(self._trainer.model).state_dict()
        for name, (share, decay) in AVERAGES.items():
            if state.global_step < share * args.max_steps:
                continue
            seen = self._seen[name]
            self._seen[name] += 1
            if not seen:
                self.kept[name] = {key: tensor.detach().clone() for key, tensor in weights.items()}
                continue
            new = 1 / (seen + 1) if decay is None else 1 - decay
            for key, tensor in self.kept[name].items():
                if tensor.is_floating_point():
                    tensor.lerp_(weights[key].detach(), new)


def run(cell: Cell, places: Places) -> dict[str, Any]:
    """Fine-tune and measure; returns the cell and the Dice of the last weights and of averages."""
    torch.set_num_threads(1)
    variant = VARIANTS[cell.variant]
    training, measured = examples_of(cell, places)
    known: dict[str, Any] = {"data": cell.data, "output": "nowhere", "seed": cell.seed, **variant.choices}
    model = build_model(FinetuneArguments(cell.task, model=cell.generator, **known), training)
    with tempfile.TemporaryDirectory() as output:
        arguments = EMTrainingArguments(output, **SETTINGS | _length(cell) | variant.training)
        trainer = _Trainer(model, arguments, training, measured)
        trainer.variant = variant
        averages = _Averages(trainer)
        trainer.add_callback(averages)
        trainer.train()
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    figures = {}
    last = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for name, weights in {**averages.kept, LAST: last}.items():
        model.load_state_dict(weights)
        trainer.recalibrate(model)
        figures[name] = _dice(model, measured)
    if cell.variant == AS_IT_IS:
        figures[SYMMETRIES] = _dice(model, measured, tta=True)
    fit_head(model, islice(iter(trainer.train_dataset), REFITTED_CROPS))
    figures[REFITTED] = _dice(model, measured)
    return {**asdict(cell), "dice": figures}


def _length(cell: Cell) -> dict[str, Any]:
    return {"max_steps": STEPS, "per_device_train_batch_size": CROPS, "crop": SIDE, "seed": cell.seed}


def _dice(model: EMTaskModel, measured: Any, tta: bool = False) -> float:
    return round(evaluate_on(model, measured, tta=tta)["dice"], 5)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the settings of a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the labelled folders")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--generators", nargs="+", default=[GENERATOR])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(argv)


def cells(arguments: argparse.Namespace) -> Iterator[Cell]:
    """Yield every run."""
    for variant in arguments.variants:
        for seed in arguments.seeds:
            for generator in arguments.generators:
                for data in arguments.sets:
                    yield Cell(variant, data, generator, seed)


def recipe_table(results: Sequence[dict[str, Any]]) -> str:
    """Return a row for each network and variant: what it changes in Dice, on average and in each set."""
    usual = {_place(result): result["dice"][LAST] for result in results if result["variant"] == AS_IT_IS}
    rows = []
    for generator in dict.fromkeys(result["generator"] for result in results):
        known = {place: dice for place, dice in usual.items() if place[0] == generator}
        if known:
            rows.append([generator, f"{AS_IT_IS} (Dice)", *_row(known, "{:.3f}")])
        for name in VARIANTS:
            runs = [r for r in results if r["generator"] == generator and r["variant"] == name and _place(r) in usual]
            for kind, words in KINDS.items():
                gains = {_place(r): r["dice"][kind] - usual[_place(r)] for r in runs if kind in r["dice"]}
                if gains and (name, kind) != (AS_IT_IS, LAST):
                    rows.append([generator, ", ".join(filter(None, (name, words))), *_row(gains, "{:+.3f}")])
    return table(["network", "changed", "seeds", "mean", *SETS], rows)


def _place(result: dict[str, Any]) -> tuple[str, str, int]:
    return result["generator"], result["data"], result["seed"]


def _row(values: dict[tuple[str, str, int], float], form: str) -> list[str]:
    """Return seeds, mean over the sets, and the mean over the seeds of each set."""
    seeds = {seed for _, _, seed in values}
    sets = {data: [value for place, value in values.items() if place[1] == data] for data in SETS}
    means = [np.mean(found) for found in sets.values() if found]
    return [
        str(len(seeds)),
        form.format(np.mean(means)),
        *(form.format(np.mean(found)) if found else "-" for found in sets.values()),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Do the runs that the results file lacks, then print the table."""
    arguments = parse(argv)
    results = read_lines(arguments.results)
    for cell in cells(arguments):
        if not any(all(result[name] == value for name, value in asdict(cell).items()) for result in results):
            results.append(run(cell, Places(arguments.data, Path())))
            with arguments.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(results[-1]) + "\n")
    sys.stdout.write(recipe_table(results) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
