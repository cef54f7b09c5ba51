"""What a fine-tuning run was, for its card and for `finetuning.json`: taken from the run itself."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from emfm.data.examples import CleanMicrographs
from emfm.tasks import TASKS

if TYPE_CHECKING:
    from emfm.training.trainer import EMTrainer


def _name(start: str | None) -> str | None:
    """Return a zoo name or Hub id as it is, of a folder the last part: where it lies is nobody's business."""
    return Path(start).resolve().name if start and Path(start).is_dir() else start


def run_facts(trainer: "EMTrainer", data: str) -> dict[str, Any]:
    """Return settings, data, cost and best figures of a finished run.

    Args:
        trainer: after `train`.
        data: name of the data set.
    """
    args, model, kind = trainer.args, trainer.model, trainer.training_kind
    same = ("gradient_accumulation_steps", "crop", "learning_rate", "backbone_lr_scale", "freeze", "lora")
    merit, sign = model.figure_of_merit, 1 if model.greater_is_better else -1
    return {
        "task": next(task for task, cls in TASKS.items() if isinstance(model, cls)),
        "data": data,
        "images": {"train": trainer.micrographs, "validation": len(trainer.eval_dataset)},
        "degrade": kind.degradation.kind if isinstance(kind, CleanMicrographs) else None,
        "generator": model.config.generator,
        "start": _name(trainer.start) or f"random {model.config.generator}",
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
