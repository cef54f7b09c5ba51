"""The record of a fine-tuning: settings, data, cost and figures, as in `finetuning.json`."""

from pathlib import Path
from typing import Any

from emfm.data.examples import CleanMicrographs, Examples
from emfm.finetuning.card import base_model, dataset_id, short_name, trained_on_too
from emfm.finetuning.trainer_state import RECORDED
from emfm.tasks import TASKS


def run_record(trainer: Any, data: str, license: str | None) -> dict[str, Any]:
    """Return what `EMTrainer.record` promises; the trainer is one of these."""
    args, model, config, training = trainer.args, trainer.model, trainer.model.config, trainer.training_kind
    start = trainer.start or ""  # of random weights
    return {
        "task": next(task for task, cls in TASKS.items() if isinstance(model, cls)),
        "data": Path(data).resolve().name,
        "dataset_id": dataset_id(data),
        "images": {"train": trainer.micrographs, "validation": len(trainer.eval_dataset)},
        "validation_trained_on": trained_on_too(training, trainer.eval_dataset),
        "left_out": trainer.course.left_out,
        "degrade": training.degrade if isinstance(training, Examples) else None,
        "dose": training.degradation.dose if isinstance(training, CleanMicrographs) else None,
        "generator": config.generator,
        "start": short_name(start) or f"random {config.generator}",
        "base_model": base_model(start),
        "adapter": trainer.adapter is not None,
        "license": license,
        "scale": model.scale,
        "residual": config.residual,
        "class_weights": config.class_weights,
        "steps": args.max_steps,
        "batch_size": args.per_device_train_batch_size,
        **{name: getattr(args, name) for name in RECORDED},
        "processes": args.world_size,
        "precision": "bf16" if args.bf16 else "fp32",
        "seconds": trainer.curve[-1]["seconds"],
        "figure_of_merit": model.figure_of_merit,
        "best": trainer.course.best(trainer.curve),
    }
