"""One run of `benchmarks.rivals`: a rival learns from labelled micrographs, and is measured and timed on others."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from benchmarks.rival_forest import USUAL_PIXELS, Forest
from benchmarks.rival_networks import register
from benchmarks.transfer_cell import Places, examples_of, weights_digest
from emfm.errors import EMError
from emfm.finetuning.budget import steps_within
from emfm.finetuning.finetune import FinetuneArguments, build_model
from emfm.finetuning.trainer import EMTrainer
from emfm.finetuning.trainer_arguments import EMTrainingArguments
from emfm.inference.predict import predict
from emfm.loading.names import model_folder
from emfm.tasks.metrics import Metrics
from emfm.tasks.task import EMTaskModel

FOREST = "random-forest"
# What makes a result of a micrograph, a model of the task, and facts of the training.
Learnt = tuple[Callable[[np.ndarray], np.ndarray], EMTaskModel, dict[str, Any]]


@dataclass(frozen=True)
class Regime:
    """How long everybody may learn.

    Attributes:
        title: what tables say.
        batch_size: crops a step.
        crop: their side in pixels.
        steps: of every network, at most where `patience` is given.
        minutes: of one core, in place of the steps.
        patience: evaluations without a better one after which a network has converged; its best
            weights by validation are measured, where the others' last ones are.
        tuned_as: the regime whose chosen rates are taken.
    """

    title: str
    batch_size: int
    crop: int
    steps: int = 1
    minutes: float | None = None
    patience: int = 0
    tuned_as: str | None = None


REGIMES = {
    "steps": Regime("150 steps of 4 crops of 128 px", 4, 128, steps=150),
    "minute": Regime("60 s of one core", 4, 128, minutes=1),
    "five-minutes": Regime("300 s of one core", 4, 128, minutes=5, tuned_as="minute"),
    "converged": Regime("up to 2,000 steps of 8 crops of 192 px", 8, 192, steps=2000, patience=5),
}
# Evaluations of a run that may converge.
EVALUATIONS = 20


def tuned_as(regime: str) -> str:
    """Return the regime whose runs choose the rates of a regime."""
    return REGIMES[regime].tuned_as or regime


@dataclass(frozen=True)
class Rival:
    """What a user might take.

    Attributes:
        label: what tables call it.
        generator: the network; `FOREST` is none.
        start: "zoo", "imagenet" or "random".
    """

    label: str
    generator: str
    start: str


@dataclass(frozen=True)
class RivalCell:
    """What decides one run.

    Attributes:
        rival: its name.
        regime: one of `REGIMES`.
        augment: strength of the augmentation; 1 is about that of nnU-Net.
        tuned: what validation chooses: the learning rate, of a forest the fewest pixels in a leaf.

    The others are as in `benchmarks.transfer_cell.Cell`.
    """

    task: str
    data: str
    degrade: str | None
    rival: str
    regime: str
    augment: float
    num_images: int | None
    tuned: float
    seed: int
    split: str


class _Trainer(EMTrainer):
    """Knows what its evaluations cost."""

    spared = 0.0

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        began = time.process_time()
        found = super().evaluate(*args, **kwargs)
        self.spared += time.process_time() - began
        return found


class _Clock(TrainerCallback):
    """Notes the processor's seconds, without evaluations, at the first and after the last step."""

    def __init__(self, trainer: _Trainer):
        self._trainer = trainer
        self.began = self.ended = 0.0

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.began = time.process_time() - self._trainer.spared

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self.ended = time.process_time() - self._trainer.spared


def run_rival(cell: RivalCell, rival: Rival, places: Places) -> dict[str, Any]:
    """Let a rival learn, and measure it; returns the cell with figures and what they cost.

    Raises:
        EMError: the rival cannot be had, or the data do not fit.
    """
    torch.set_num_threads(1)
    register()
    training, measured = examples_of(cell, places)
    learn = _forest if rival.generator == FOREST else _network
    answer, model, facts = learn(cell, rival, places, training)
    metrics, per_megapixel = measure(answer, model, measured)
    merit, trivial = model.figure_of_merit, model.trivial_figures(measured, metrics)
    facts |= {"images": len(training), "n": len(measured), "predict": round(per_megapixel, 3)}
    return {**asdict(cell), **facts, merit: round(metrics.result()[merit], 5), "trivial": round(trivial[merit], 5)}


def measure(answer: Any, model: EMTaskModel, examples: Any) -> tuple[Metrics, float]:
    """Return the sums of what `answer` says of whole micrographs, and a core's seconds for a megapixel.

    Args:
        answer: makes a result (H, W) of a micrograph.
        model: knows the metrics of its task.
        examples: micrographs with their truth.
    """
    metrics, seconds, pixels = model.new_metrics(), 0.0, 0
    for index, image in enumerate(examples.images):
        began = time.process_time()
        found = answer(image)
        seconds += time.process_time() - began
        pixels += found.size
        metrics.add(found, model.truth_of(examples, index))
    return metrics, seconds / (pixels / 1e6)


def build(cell: RivalCell, rival: Rival, training: Any) -> tuple[EMTaskModel, str | None]:
    """Return a network as it starts, and where its weights are from.

    Raises:
        EMError: its weights cannot be had.
    """
    known: dict[str, Any] = {"task": cell.task, "data": cell.data, "output": "nowhere", "seed": cell.seed}
    if rival.start == "zoo":
        model = build_model(FinetuneArguments(model=rival.generator, **known), training)
        return model, weights_digest(model_folder(rival.generator))
    model = build_model(FinetuneArguments(scratch=rival.generator, **known), training)
    return model, model.trunk.load_imagenet() if rival.start == "imagenet" else None


def _network(cell: RivalCell, rival: Rival, places: Places, training: Any) -> Learnt:
    """Let a network learn."""
    regime = REGIMES[cell.regime]
    model, weights = build(cell, rival, training)
    _, validation = examples_of(replace(cell, split="validation"), places)
    with tempfile.TemporaryDirectory() as output:
        steps = regime.steps
        if regime.minutes is not None:
            steps = steps_within(regime.minutes, model, training, _arguments(cell, output, steps))
        arguments = _arguments(cell, output, steps)
        trainer = _Trainer(model, arguments, training, validation)
        clock = _Clock(trainer)
        trainer.add_callback(clock)
        began = time.process_time()
        trainer.train()
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    if not regime.patience:
        trainer.recalibrate(model)  # as evaluations do
    done = trainer.state.global_step
    facts = {"weights": weights, "precision": "bf16" if arguments.bf16 else "fp32", "steps": done}
    facts |= {"seconds": round(clock.ended - began, 1), "step": round((clock.ended - clock.began) / done, 4)}
    facts["size"] = sum(parameter.numel() for parameter in model.parameters())
    return lambda image: predict(model, image, compare=False).output, model, facts


def _arguments(cell: RivalCell, output: str, steps: int) -> EMTrainingArguments:
    regime = REGIMES[cell.regime]
    settings: dict[str, Any] = {"eval_strategy": "no", "eval_on_start": False, "save_strategy": "no"}
    if regime.patience:
        settings |= {"eval_strategy": "steps", "eval_steps": max(1, steps // EVALUATIONS)}
        settings |= {"early_stopping": regime.patience}
    return EMTrainingArguments(
        output_dir=output,
        max_steps=steps,
        per_device_train_batch_size=regime.batch_size,
        crop=regime.crop,
        learning_rate=cell.tuned,
        augment=cell.augment,
        seed=cell.seed,
        disable_tqdm=True,
        use_cpu=True,
        dataloader_num_workers=0,
        **settings,
    )


def _forest(cell: RivalCell, rival: Rival, places: Places, training: Any) -> Learnt:
    """Let a forest learn."""
    if cell.task != "segmentation" or cell.augment:
        raise EMError(f"a random forest has no {cell.task} at augmentation {cell.augment:g}: leave that out")
    regime, forest = REGIMES[cell.regime], Forest(int(cell.tuned), cell.seed)
    began = time.process_time()
    usual = USUAL_PIXELS if cell.regime == "steps" else None
    forest.fit(training, usual, None if regime.minutes is None else 60 * regime.minutes)
    facts: dict[str, Any] = {"weights": None, "precision": "fp32", "pixels": forest.pixels}
    facts["seconds"] = round(time.process_time() - began, 1)
    known: dict[str, Any] = {"task": cell.task, "data": cell.data, "output": "nowhere"}
    # any network knows the metrics, and the answer that needs none
    return forest.predict, build_model(FinetuneArguments(scratch="unet2-rf44", **known), training), facts
