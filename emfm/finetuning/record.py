"""The record of a fine-tuning run, for its card and for `finetuning.json`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emfm.data.examples import Examples
from emfm.finetuning.course import Evaluation
from emfm.finetuning.trainer_arguments import EMTrainingArguments
from emfm.loading.names import locate, zoo_id
from emfm.tasks import TASKS
from emfm.tasks.task import EMTaskModel

# Settings of the trainer that stand in the record under their own names.
RECORDED = (
    *("gradient_accumulation_steps", "crop", "learning_rate", "backbone_lr_scale"),
    *("freeze", "lora", "intensity_jitter", "seed"),
)


@dataclass(frozen=True)
class FinishedRun:
    """What a trainer knows of its run."""

    model: EMTaskModel  # as it was trained
    args: EMTrainingArguments
    best: Evaluation
    seconds: float  # of training
    start: str  # name, folder or Hub id of the weights it started from; empty for random ones
    adapter: bool  # whether LoRA's additions are what was saved
    micrographs: int | None  # how many were trained on; None for a stream
    training: object  # what was trained on: micrographs, or an empty sample of a stream
    validation: Examples


def run_record(run: FinishedRun, data: str, license: str | None = None) -> dict[str, Any]:
    """Return settings, data, cost and best figures of a finished run.

    Args:
        run: after training.
        data: name, folder or Hub id of the data set.
        license: of the finished weights, as the Hub names it; None where nobody has stated it.
    """
    args, model, config = run.args, run.model, run.model.config
    return {
        "task": next(task for task, cls in TASKS.items() if isinstance(model, cls)),
        "data": Path(data).resolve().name,
        "dataset_id": _dataset_id(data),
        "images": {"train": run.micrographs, "validation": len(run.validation)},
        "validation_trained_on": _trained_on_too(run.training, run.validation),
        "degrade": run.training.degrade if isinstance(run.training, Examples) else None,
        "generator": config.generator,
        "start": _name(run.start) or f"random {config.generator}",
        "base_model": _base_model(run.start),
        "adapter": run.adapter,
        "license": license,
        "scale": model.scale,
        "residual": config.residual,
        "class_weights": config.class_weights,
        "steps": args.max_steps,
        "batch_size": args.per_device_train_batch_size,
        **{name: getattr(args, name) for name in RECORDED},
        "processes": args.world_size,
        "precision": "bf16" if args.bf16 else "fp32",
        "seconds": run.seconds,
        "figure_of_merit": model.figure_of_merit,
        "best": run.best,
    }


def _name(start: str) -> str:
    """Return a zoo name or Hub id as it is, and the name of a folder without its path."""
    return Path(start).resolve().name if start and Path(start).is_dir() else start


def _base_model(start: str) -> str | None:
    """Return the Hub id of the weights it started from; None for random ones and for a folder."""
    if not start or Path(start).is_dir():
        return None
    return zoo_id(start) if Path(locate(start)).is_dir() else locate(start)


def _dataset_id(data: str) -> str | None:
    """Return the id of a data set of the Hub; None of a folder."""
    if data.count("/") != 1 or data.startswith((".", "/", "~")) or Path(data).exists():
        return None
    return data


def _trained_on_too(trained: object, held_out: Examples) -> int:
    """Return how many validation micrographs were trained on: some, where few images serve as both."""
    if not isinstance(trained, Examples):
        return 0
    shown = held_out.images
    if trained.degrade is not None:  # of pairs that were made by damage the target is the micrograph
        shown = [held_out.truth(index) for index in range(len(held_out))]
    return sum(any(np.may_share_memory(image, other) for other in trained.images) for image in shown)
