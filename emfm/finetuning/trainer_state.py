"""What resuming a fine-tuning needs, in `checkpoint-N/training_state/`: safetensors and JSON, never pickle."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from emfm.errors import EMError
from emfm.files import write_text
from emfm.training.optimizer_state import contiguous, load_optimizers, optimizer_tensors

if TYPE_CHECKING:
    from emfm.finetuning.trainer import EMTrainer

logger = logging.getLogger(__name__)
FOLDER, RUN = "training_state", "run.json"
# transformers writes this file last: where it is whole, so is the checkpoint.
LAST_WRITTEN = "trainer_state.json"
SETTINGS = (
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "world_size",
    "learning_rate",
    "backbone_lr_scale",
    "crop",
    "bf16",
    "freeze",
    "lora",
    "intensity_jitter",
    "seed",
)


def save_state(trainer: "EMTrainer", checkpoint: Path, best: dict[str, Tensor]) -> None:
    """Write weights, optimiser, schedule and curve of a run, and its best weights so far."""
    assert trainer.optimizer is not None and trainer.lr_scheduler is not None
    folder = checkpoint / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    save_file(contiguous(model.state_dict()), folder / "model.safetensors")
    save_file(contiguous(best), folder / "best.safetensors")
    save_file(optimizer_tensors({"optimizer": trainer.optimizer}), folder / "optimizer.safetensors")
    schedule = {name: value for name, value in trainer.lr_scheduler.state_dict().items() if name != "lr_lambdas"}
    run = {
        "settings": _settings(trainer),
        "seconds": trainer.seconds,
        "schedule": schedule,
        "curve": trainer.curve,
    }
    write_text(folder / RUN, json.dumps(run, indent=1))


def _settings(trainer: "EMTrainer") -> dict[str, Any]:
    settings = {name: getattr(trainer.args, name) for name in SETTINGS} | {"micrographs": trainer.micrographs}
    if trainer.micrographs is None:  # which worker reads what decides the order of a stream
        settings["dataloader_num_workers"] = trainer.args.dataloader_num_workers
    return settings


def checkpoints(output: str | Path) -> list[Path]:
    """Return the checkpoint folders of a run, newest first, whole or not."""
    found = [(folder.name.removeprefix("checkpoint-"), folder) for folder in Path(output).glob("checkpoint-*")]
    return [folder for _, folder in sorted(((int(n), f) for n, f in found if n.isdigit()), reverse=True)]


def last_checkpoint(output: str | Path) -> Path:
    """Return the newest whole checkpoint of a run; a torn one is passed over with a warning.

    Raises:
        EMError: there is none.
    """
    for folder in checkpoints(output):
        try:
            json.loads((folder / LAST_WRITTEN).read_text())
            return folder
        except (OSError, ValueError) as error:
            logger.warning("%s is refused: %s is missing or damaged (%s)", folder, LAST_WRITTEN, error)
    raise EMError(f"{output} holds no whole checkpoint to go on from: start without resuming")


def load_state(trainer: "EMTrainer", checkpoint: Path) -> tuple[list[dict[str, Any]], dict[str, Tensor], float]:
    """Return curve, best weights and seconds of a run, after its settings were found the same.

    Raises:
        EMError: the checkpoint is damaged, or belongs to a run with other settings.
    """
    run = _read_run(checkpoint)
    given = json.loads(json.dumps(_settings(trainer)))
    differing = [
        f"{name} was {run['settings'].get(name)}, now {given[name]}"
        for name in given
        if run["settings"].get(name) != given[name]
    ]
    if differing:
        raise EMError(
            f"{checkpoint} belongs to a run with other settings ({'; '.join(differing)}): use those, or another output"
        )
    return run["curve"], load_tensors(checkpoint, "best"), run["seconds"]


def load_optimizer(trainer: "EMTrainer", checkpoint: Path) -> None:
    """Give optimiser and schedule of a trainer the state that was saved."""
    assert trainer.optimizer is not None and trainer.lr_scheduler is not None
    load_optimizers({"optimizer": trainer.optimizer}, load_tensors(checkpoint, "optimizer"))
    trainer.lr_scheduler.load_state_dict({**trainer.lr_scheduler.state_dict(), **_read_run(checkpoint)["schedule"]})
    for group, rate in zip(trainer.optimizer.param_groups, trainer.lr_scheduler.get_last_lr(), strict=True):
        group["lr"] = rate


def load_tensors(checkpoint: Path, name: str) -> dict[str, Tensor]:
    """Read one of the files of tensors.

    Raises:
        EMError: it is missing or damaged.
    """
    path = checkpoint / FOLDER / f"{name}.safetensors"
    try:
        return load_file(path)
    except Exception as error:  # safetensors has an error of its own
        raise EMError(f"{path} is missing or damaged ({error}): remove {checkpoint} to go on without it") from error


def _read_run(checkpoint: Path) -> dict[str, Any]:
    path = checkpoint / FOLDER / RUN
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise EMError(f"{path} is missing or damaged ({error}): remove {checkpoint} to go on without it") from error
