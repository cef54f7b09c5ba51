"""Checkpoints of a pretraining run: written whole or not at all, in safetensors and JSON, never in pickle.

`step_N/pretrained_model/` is a model folder that can be loaded and pushed as it is; `step_N/training_state/` holds
what resuming needs.
"""

import hashlib
import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from emfm.errors import EMError
from emfm.modeling import EMFoundation
from emfm.pretraining.model_folder import write_model_folder
from emfm.training.optimizer_state import contiguous, load_optimizers, optimizer_tensors

logger = logging.getLogger(__name__)
RUN = "run.json"


@dataclass
class TrainingState:
    """Everything that a pretraining run changes as it goes; `generator` is the `Pretext` around it."""

    generator: nn.Module
    discriminator: nn.Module
    ema: EMFoundation
    optimizers: dict[str, torch.optim.Optimizer]


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        settings: of the run; it goes on with the same ones alone.
        step: steps done.
        position: of a stream, see `emfm.pretraining.batches`.
        seconds: of training so far.
    """

    settings: dict[str, Any]
    step: int = 0
    position: list[list[int]] = field(default_factory=list)
    seconds: float = 0.0


def save_checkpoint(output: Path, state: TrainingState, progress: Progress, keep: int) -> Path:
    """Write `step_N` under a temporary name and rename it when it is whole; then remove the oldest ones.

    Args:
        output: the run's folder.
        state: what to save; `state.ema` becomes `pretrained_model/`.
        progress: of the run.
        keep: how many checkpoints stay.
    """
    final, temporary = output / f"step_{progress.step}", output / f".step_{progress.step}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    folder = temporary / "training_state"
    folder.mkdir(parents=True)
    write_model_folder(state.ema, temporary / "pretrained_model")
    save_file(contiguous(state.generator.state_dict()), folder / "generator.safetensors")
    save_file(contiguous(state.discriminator.state_dict()), folder / "discriminator.safetensors")
    save_file(optimizer_tensors(state.optimizers), folder / "optimizers.safetensors")
    checksums = {path.relative_to(temporary).as_posix(): _sha256(path) for path in temporary.rglob("*.safetensors")}
    (folder / RUN).write_text(json.dumps({**asdict(progress), "sha256": checksums}, indent=1))
    for path in temporary.rglob("*"):
        _to_disk(path)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    _to_disk(output)
    for _, older in checkpoints(output)[keep:]:
        shutil.rmtree(older)
    return final


def _to_disk(path: Path) -> None:
    """Make sure that a file or folder survives a power cut before anything relies on it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checkpoints(output: Path) -> list[tuple[int, Path]]:
    """Return (steps, folder) of the checkpoints, newest first."""
    found = [(folder.name.removeprefix("step_"), folder) for folder in output.glob("step_*")]
    return sorted(((int(steps), folder) for steps, folder in found if steps.isdigit()), reverse=True)


def resume(output: Path, state: TrainingState, settings: dict[str, Any]) -> Progress:
    """Restore the newest whole checkpoint and return its progress; that of a fresh run where there is none.

    A torn or damaged one is refused with a warning that says why, and the one before it taken.

    Raises:
        EMError: none of the checkpoints is whole, or the run had other settings.
    """
    reasons = []
    for _, folder in checkpoints(output):
        try:
            progress = _read_progress(folder)
        except EMError as error:
            reasons.append(str(error))
            logger.warning("%s", error)
            continue
        _check_settings(folder, progress.settings, settings)
        _restore(folder, state)
        return progress
    if reasons:
        raise EMError(f"no checkpoint of {output} is whole: {'; '.join(reasons)}. Remove them to start anew")
    return Progress(settings)


def _read_progress(folder: Path) -> Progress:
    """Return what `run.json` says, after the checksum of every file that it names was found right."""
    path = folder / "training_state" / RUN
    try:
        written = json.loads(path.read_text())
        checksums = written.pop("sha256")
        progress = Progress(**written)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EMError(f"{folder} is refused: {path.name} is missing or damaged ({error})") from error
    for name, checksum in checksums.items():
        file = folder / name
        if not file.is_file():
            raise EMError(f"{folder} is refused: {name} is missing")
        if _sha256(file) != checksum:
            raise EMError(f"{folder} is refused: {name} is damaged (its SHA-256 is not the one that was stored)")
    return progress


def _check_settings(folder: Path, stored: dict[str, Any], given: dict[str, Any]) -> None:
    names = sorted(stored.keys() | given.keys())
    differing = [
        f"{name} was {stored.get(name)}, now {given.get(name)}" for name in names if stored.get(name) != given.get(name)
    ]
    if differing:
        raise EMError(
            f"{folder} belongs to a run with other settings ({'; '.join(differing)}): use those, or another --output"
        )


def _restore(folder: Path, state: TrainingState) -> None:
    source = folder / "training_state"
    try:
        state.generator.load_state_dict(load_file(source / "generator.safetensors"))
        state.discriminator.load_state_dict(load_file(source / "discriminator.safetensors"))
        state.ema.load_state_dict(load_file(folder / "pretrained_model" / "model.safetensors"))
        load_optimizers(state.optimizers, load_file(source / "optimizers.safetensors"))
        config = json.loads((folder / "pretrained_model" / "config.json").read_text())
        state.ema.config.pretraining = config["pretraining"]
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise EMError(f"{folder} does not fit this version of emfm ({error}): choose another --output") from error
