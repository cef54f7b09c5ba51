"""One run of `benchmarks.transfer`: a network fine-tuned from some start, measured while it learns."""

import tempfile
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import TrainerCallback, TrainingArguments

from emfm.data.examples import CleanMicrographs, Examples, LabelledMicrographs
from emfm.errors import EMError
from emfm.files import sha256
from emfm.finetuning.evaluate import evaluate_on
from emfm.finetuning.finetune import FinetuneArguments, build_model
from emfm.finetuning.trainer import EMTrainer
from emfm.finetuning.trainer_arguments import EMTrainingArguments
from emfm.loading.names import model_folder
from emfm.simulate.folder import write_simulated_folder
from emfm.tasks import TASKS
from emfm.tasks.task import EMTaskModel

# Shares of the steps at which a network is measured.
MARKS = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
# Rates are chosen by runs of this seed, which no reported run has; they are measured at the last
# step alone.
TUNING_SEED = 100
# Curves are measured on the central part of this side, in pixels, of so many micrographs, spread
# over the split.
SIDE, MOST = 768, 12
# What learns, and how: settings of `EMTrainingArguments` by the name that tables show.
PARTS: dict[str, dict[str, Any]] = {
    "all": {},
    "head not fitted first": {"fit_head": False},
    "trunk at 0.3 of the rate": {"backbone_lr_scale": 0.3},
    "encoder frozen": {"freeze": "encoder"},
    "last 3 blocks": {"freeze": "last:3"},
    "head alone": {"freeze": "all-but-head"},
    "LoRA of rank 8": {"lora": 8},
}
SIMULATED = "atomic-stem"
SIMULATED_COUNT, SIMULATED_SIDE = 60, 256


@dataclass(frozen=True)
class Cell:
    """What decides one run.

    Attributes:
        protocol: "paper" (batch norm, Adam at a constant rate, cross-entropy alone) or "strong"
            (emfm's defaults).
        task: one of `emfm.tasks.TASKS`.
        data: name of a labelled folder, or `SIMULATED`.
        degrade: restoration of real micrographs: how pairs are made.
        generator: name of the network.
        start: "random", "zoo", "imagenet", or the name of a folder of pretrained models.
        num_images: labelled images to learn from; None for all.
        part: what learns, one of `PARTS`.
        seed: draws the images, the crops and new weights.
        split: on which the network is measured: "validation" to choose by, "test" to report.
    """

    protocol: str
    task: str
    data: str
    degrade: str | None
    generator: str
    start: str
    num_images: int | None
    part: str
    steps: int
    batch_size: int
    crop: int
    learning_rate: float
    seed: int
    split: str


@dataclass(frozen=True)
class Places:
    """Where a run finds its data and its weights.

    Attributes:
        data: folder with one labelled folder per data set.
        weights: folder with one folder per start, which holds one model folder per generator.
    """

    data: Path
    weights: Path


class _Trainer(EMTrainer):
    """With the loss of the protocol."""

    protocol = "strong"

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if self.protocol == "paper" and isinstance(self.training_kind, LabelledMicrographs):
            logits = model(inputs["pixel_values"]).logits
            return F.cross_entropy(logits.float(), inputs["labels"])
        return super().compute_loss(model, inputs, *args, **kwargs)


class _Marks(TrainerCallback):
    """Measures the network at the marks."""

    def __init__(self, trainer: EMTrainer, examples: Any, steps: int, marks: tuple[float, ...]):
        self.trainer, self.examples = trainer, examples
        self.shares = {round(share * steps): share for share in marks}
        self.curve: list[dict[str, Any]] = []
        self.trivial: dict[str, float] = {}

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        self._measure_at(0)

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        self._measure_at(state.global_step)

    def _measure_at(self, step: int) -> None:
        if step not in self.shares:
            return
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        self.trainer.recalibrate(model)
        found = evaluate_on(model, self.examples)
        self.trivial = _rounded(found.pop("trivial"))
        self.curve.append({"share": self.shares[step], "step": step, **_rounded(found)})


def _rounded(figures: dict[str, Any]) -> dict[str, float]:
    return {name: round(value, 5) for name, value in figures.items() if isinstance(value, float)}


def run_cell(cell: Cell, places: Places) -> dict[str, Any]:
    """Fine-tune and measure; returns the cell, its curve, precision and a digest of the weights it started from.

    Raises:
        EMError: the start has no weights for the generator, or the data do not fit.
    """
    torch.set_num_threads(1)
    training, measured = examples_of(cell, places)
    model, digest = _model(cell, places, training)
    with tempfile.TemporaryDirectory() as output:
        arguments = EMTrainingArguments(output_dir=output, **_settings(cell))
        trainer = _Trainer(model, arguments, training, measured)
        trainer.protocol = cell.protocol
        marks = _Marks(trainer, measured, cell.steps, MARKS[-1:] if cell.seed == TUNING_SEED else MARKS)
        trainer.add_callback(marks)
        trainer.train()
    seconds = round(trainer.course.seconds, 1)
    facts = {"weights": digest, "images": len(training), "n": len(measured), "seconds": seconds}
    facts["precision"] = "bf16" if arguments.bf16 else "fp32"
    return {**asdict(cell), **facts, "trivial": marks.trivial, "curve": marks.curve}


def _settings(cell: Cell) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "max_steps": cell.steps,
        "per_device_train_batch_size": cell.batch_size,
        "crop": cell.crop,
        "learning_rate": cell.learning_rate,
        "seed": cell.seed,
        "eval_strategy": "no",
        "eval_on_start": False,
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    settings |= PARTS[cell.part]
    if cell.protocol == "paper":
        settings |= {"lr_scheduler_type": "constant", "warmup_steps": 0, "weight_decay": 0.0}
    return settings


def examples_of(cell: Any, places: Places) -> tuple[Any, Any]:
    """Return the micrographs to learn from, and those to measure on as `centred` ones."""
    task, folder = TASKS[cell.task], str(places.data / cell.data)
    if cell.data == SIMULATED:
        folder = _simulated(cell.task)
    scale = 2 if cell.task == "super-resolution" and cell.degrade else None
    training, measured = (task.load(folder, split, cell.degrade, scale) for split in ("train", cell.split))
    if cell.num_images is not None:
        training = training.take(cell.num_images, cell.seed)
    return training, centred(measured)


@lru_cache(maxsize=1)
def _simulated_root() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory()


def _simulated(task: str) -> str:
    root = Path(_simulated_root().name)
    if not (root / SIMULATED).exists():
        write_simulated_folder(SIMULATED, root / SIMULATED, SIMULATED_COUNT, (SIMULATED_SIDE,) * 2, 0)
    return str(root / SIMULATED / task)


def centred(examples: Any) -> Any:
    """Return the central part of up to `MOST` micrographs, evenly spread over those given, with their truth."""
    chosen = np.unique(np.linspace(0, len(examples) - 1, MOST).round().astype(int))
    images = [_centre(examples.images[i], 1) for i in chosen]
    fields: dict[str, Any] = {
        "images": images,
        "names": [examples.names[i] for i in chosen],
        "pixel_sizes": [examples.pixel_sizes[i] for i in chosen],
    }
    if isinstance(examples, LabelledMicrographs):
        fields["masks"] = [_centre(examples.masks[i], 1) for i in chosen]
    elif not isinstance(examples, CleanMicrographs):
        fields["targets"] = [_centre(examples.targets[i], examples.scale) for i in chosen]
    part = replace(examples, **fields)
    return part.to_measure()


def _centre(image: np.ndarray, scale: int) -> np.ndarray:
    tops = [max(0, (length // scale - SIDE) // 2) * scale for length in image.shape]
    return np.asarray(image[tuple(slice(top, top + SIDE * scale) for top in tops)])


def _model(cell: Cell, places: Places, training: Examples) -> tuple[EMTaskModel, str | None]:
    """Return the network as it starts, and where its weights are from: the digest of their file, or timm's name."""
    known: dict[str, Any] = {"task": cell.task, "data": cell.data, "output": "nowhere", "seed": cell.seed}
    known |= {"class_weights": "none"} if cell.protocol == "paper" else {}
    if cell.start in ("random", "imagenet"):
        norm = "batch" if cell.protocol == "paper" else None
        model = build_model(FinetuneArguments(scratch=cell.generator, norm=norm, **known), training)
        return model, model.trunk.load_imagenet() if cell.start == "imagenet" else None
    folder = model_folder(cell.generator) if cell.start == "zoo" else places.weights / cell.start / cell.generator
    if not (folder / "model.safetensors").is_file():
        raise EMError(f"{folder} has no weights: pretrain them with python -m benchmarks.pretexts")
    model = build_model(FinetuneArguments(model=str(folder), **known), training)
    return model, weights_digest(folder)


def weights_digest(folder: Path) -> str:
    """Return the first 16 digits of the SHA-256 of a model's weights."""
    return sha256(folder / "model.safetensors")[:16]
