"""Checkpoints of a pretraining run: written whole or not at all, in safetensors and JSON, never in pickle.

`step_N/pretrained_model/` is a model folder that can be loaded and pushed as it is; `step_N/training_state/` holds
what resuming needs.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from emfm.errors import EMError
from emfm.modeling import EMFoundation

STATE_FILES = ("generator.safetensors", "discriminator.safetensors", "optimizers.safetensors", "run.json")


@dataclass
class TrainingState:
    """Everything that a pretraining run changes as it goes."""

    generator: nn.Module
    discriminator: nn.Module
    ema: EMFoundation
    optimizers: dict[str, torch.optim.Optimizer]


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _optimizer_tensors(optimizers: dict[str, torch.optim.Optimizer]) -> dict[str, Tensor]:
    tensors = {}
    for name, optimizer in optimizers.items():
        for index, slots in optimizer.state_dict()["state"].items():
            tensors.update({f"{name}.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()})
    return tensors


def _load_optimizers(optimizers: dict[str, torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    for name, optimizer in optimizers.items():
        content = optimizer.state_dict()
        content["state"] = {}
        for key, value in tensors.items():
            owner, index, slot = key.split(".")
            if owner == name:
                content["state"].setdefault(int(index), {})[slot] = value
        optimizer.load_state_dict(content)


def save_checkpoint(output: Path, step: int, state: TrainingState, run: dict[str, Any]) -> Path:
    """Write `step_N` under a temporary name and rename it when it is whole.

    Args:
        output: the run's folder.
        step: how many steps are done.
        state: what to save; `state.ema` becomes `pretrained_model/`.
        run: the settings of the run; resuming with others is refused.
    """
    final, temporary = output / f"step_{step}", output / f".step_{step}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    folder = temporary / "training_state"
    folder.mkdir(parents=True)
    state.ema.save_pretrained(temporary / "pretrained_model")
    save_file(_contiguous(state.generator.state_dict()), folder / "generator.safetensors")
    save_file(_contiguous(state.discriminator.state_dict()), folder / "discriminator.safetensors")
    save_file(_contiguous(_optimizer_tensors(state.optimizers)), folder / "optimizers.safetensors")
    (folder / "run.json").write_text(json.dumps({"step": step, "run": run}, indent=1))
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    return final


def latest_checkpoint(output: Path) -> Path | None:
    """Return the whole checkpoint with the most steps, or None."""
    found = [
        (int(folder.name.removeprefix("step_")), folder)
        for folder in output.glob("step_*")
        if folder.name.removeprefix("step_").isdigit()
    ]
    return max(found)[1] if found else None


def load_checkpoint(folder: Path, state: TrainingState, run: dict[str, Any]) -> int:
    """Restore a training state and return how many steps it had done.

    Raises:
        EMError: a file is missing or damaged, or the checkpoint belongs to a run with other settings.
    """
    source = folder / "training_state"
    missing = [name for name in STATE_FILES if not (source / name).is_file()]
    if missing:
        raise EMError(
            f"{folder} is no whole checkpoint: {', '.join(missing)} missing; remove it to go on from an earlier one"
        )
    try:
        written = json.loads((source / "run.json").read_text())
        differing = [key for key in run if written["run"].get(key) != run[key]]
        if differing:
            pairs = ", ".join(f"{key} was {written['run'].get(key)}, now {run[key]}" for key in differing)
            raise EMError(f"{folder} belongs to a run with other settings ({pairs}): use those, or another --output")
        state.generator.load_state_dict(load_file(source / "generator.safetensors"))
        state.discriminator.load_state_dict(load_file(source / "discriminator.safetensors"))
        state.ema.load_state_dict(load_file(folder / "pretrained_model" / "model.safetensors"))
        _load_optimizers(state.optimizers, load_file(source / "optimizers.safetensors"))
    except EMError:
        raise
    except Exception as error:  # safetensors, JSON and torch each raise their own on a damaged file
        raise EMError(
            f"{folder} is damaged ({error}); remove the folder to go on from an earlier checkpoint"
        ) from error
    return int(written["step"])
