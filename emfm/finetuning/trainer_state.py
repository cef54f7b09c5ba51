"""What a checkpoint of a fine-tuning holds beside what transformers writes."""

import json
from pathlib import Path

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from emfm.errors import EMError
from emfm.finetuning.course import Course
from emfm.finetuning.trainer_arguments import EMTrainingArguments
from emfm.training.checkpoint import (
    Checkpoints,
    Run,
    Settings,
    check_settings,
    load_optimizers,
    optimizer_tensors,
    read_tensors,
    write_state,
)

# Settings of the trainer that stand in the run's record, too, under their own names.
RECORDED: tuple[str, ...] = ("gradient_accumulation_steps", "crop", "learning_rate", "backbone_lr_scale")
RECORDED += ("freeze", "lora", "intensity_jitter", "augment", "seed")
SETTINGS = (*RECORDED, "max_steps", "per_device_train_batch_size", "world_size", "bf16")


def checkpoints_of(output: str | Path) -> Checkpoints:
    """Return the checkpoints of a run; the file that transformers writes last tells whole ones."""
    return Checkpoints(Path(output), "checkpoint-", last_written="trainer_state.json", unchecked=True)


def run_settings(args: EMTrainingArguments, micrographs: int | None) -> Settings:
    """Return the settings that decide the result; a stream does not know its `micrographs`."""
    settings = {name: getattr(args, name) for name in SETTINGS} | {"micrographs": micrographs}
    if micrographs is None:  # which worker reads what decides the order of a stream
        settings["dataloader_num_workers"] = args.dataloader_num_workers
    return json.loads(json.dumps(settings))


def save_run(
    checkpoint: Path, settings: Settings, course: Course, model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler
) -> None:
    """Write weights, best weights, optimiser, schedule and curve of a run."""
    optimizer_state = optimizer_tensors({"optimizer": optimizer})
    tensors = {"model": model.state_dict(), "best": course.best_weights, "optimizer": optimizer_state}
    schedule = {name: value for name, value in scheduler.state_dict().items() if name != "lr_lambdas"}
    run = {"settings": settings, "seconds": course.seconds, "schedule": schedule, "curve": course.curve}
    write_state(checkpoint, tensors, run)


def find_checkpoint(output: str | Path, chosen: str | bool, settings: Settings) -> tuple[Path, Run]:
    """Return the chosen checkpoint and its `run.json`; True chooses the newest whole one.

    Raises:
        EMError: there is no whole checkpoint, or it belongs to a run with other settings.
    """
    checkpoints = checkpoints_of(output)
    if chosen is True:
        found = checkpoints.find(settings)
        if found is None:
            raise EMError(f"{output} holds no whole checkpoint to go on from: start without resuming")
        return found
    folder = Path(str(chosen))
    run = checkpoints.read(folder)
    check_settings(folder, run["settings"], settings)
    return folder, run


def restore_optimizer(checkpoint: Path, run: Run, optimizer: Optimizer, scheduler: LRScheduler) -> None:
    """Give optimiser and schedule the state that was saved."""
    load_optimizers({"optimizer": optimizer}, read_tensors(checkpoint, "optimizer"))
    scheduler.load_state_dict({**scheduler.state_dict(), **run["schedule"]})
    for group, rate in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
        group["lr"] = rate
