"""What a fine-tuning run was, for its card and for `finetuning.json`: taken from the run itself."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emfm.data.examples import Examples
from emfm.loading.names import locate, zoo_id
from emfm.tasks import TASKS

if TYPE_CHECKING:
    from emfm.finetuning.trainer import EMTrainer


def _name(start: str | None) -> str | None:
    """Return a zoo name or Hub id as it is, of a folder the last part: where it lies is nobody's business."""
    return Path(start).resolve().name if start and Path(start).is_dir() else start


def _base_model(start: str | None) -> str | None:
    """Return the Hub id of the weights that training started from; None of random ones and of a folder."""
    if not start or Path(start).is_dir():
        return None
    return zoo_id(start) if Path(locate(start)).is_dir() else locate(start)


def _dataset_id(data: str) -> str | None:
    """Return the id of a data set of the Hub; None of a folder."""
    return data if data.count("/") == 1 and not data.startswith((".", "/", "~")) and not Path(data).exists() else None


def _trained_on_too(trainer: "EMTrainer") -> int:
    """Return how many of the validation micrographs were trained on, as where there are too few to hold any out."""
    trained, held_out = trainer.training_kind, trainer.eval_dataset
    if not isinstance(trained, Examples):
        return 0
    # of pairs that were made by damage the truth is the micrograph
    shown = held_out.images if trained.degrade is None else [held_out.truth(i) for i in range(len(held_out))]
    return sum(any(np.may_share_memory(image, other) for other in trained.images) for image in shown)


def run_facts(trainer: "EMTrainer", data: str, license: str | None = None) -> dict[str, Any]:
    """Return settings, data, cost and best figures of a finished run.

    Args:
        trainer: after `train`.
        data: name, folder or Hub id of the data set.
        license: of the finished weights, as the Hub names it; None where nobody has stated it.
    """
    args, model, kind = trainer.args, trainer.model, trainer.training_kind
    same = ("gradient_accumulation_steps", "crop", "learning_rate", "backbone_lr_scale", "freeze", "lora")
    merit, sign = model.figure_of_merit, 1 if model.greater_is_better else -1
    return {
        "task": next(task for task, cls in TASKS.items() if isinstance(model, cls)),
        "data": Path(data).resolve().name,
        "dataset_id": _dataset_id(data),
        "images": {"train": trainer.micrographs, "validation": len(trainer.eval_dataset)},
        "validation_trained_on": _trained_on_too(trainer),
        "degrade": kind.degrade if isinstance(kind, Examples) else None,
        "generator": model.config.generator,
        "start": _name(trainer.start) or f"random {model.config.generator}",
        "base_model": _base_model(trainer.start),
        "adapter": trainer.adapter is not None,
        "license": license,
        "scale": model.scale,
        "residual": model.config.residual,
        "class_weights": model.config.class_weights,
        "steps": args.max_steps,
        "batch_size": args.per_device_train_batch_size,
        **{name: getattr(args, name) for name in (*same, "intensity_jitter", "seed")},
        "processes": args.world_size,
        "precision": "bf16" if args.bf16 else "fp32",
        "seconds": trainer.curve[-1]["seconds"],
        "figure_of_merit": merit,
        "best": max(trainer.curve, key=lambda entry: sign * entry[merit]),
    }
