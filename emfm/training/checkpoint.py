"""Checkpoints of both trainings, written whole or not at all: safetensors and JSON, no pickle.

A checkpoint is a folder named after the steps done, `step_N` or `checkpoint-N`. It holds the model
and `training_state/`: tensors, and `run.json` with settings, progress and the files' SHA-256.
"""

import json
import logging
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from emfm.errors import EMError
from emfm.files import sha256, whole_folder

logger = logging.getLogger(__name__)
STATE, RUN = "training_state", "run.json"
Tensors = dict[str, Tensor]
Optimizers = dict[str, torch.optim.Optimizer]
Settings = dict[str, Any]  # of a run, as JSON gives them back
Run = dict[str, Any]  # what `run.json` holds: "settings", and how far the run has come


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run, in its folder."""

    output: Path
    prefix: str  # of their names, before the number of steps
    last_written: str = f"{STATE}/{RUN}"  # the file of JSON without which a checkpoint is torn
    unchecked: bool = False  # whether earlier versions wrote no checksums

    def newest_first(self) -> list[Path]:
        """Return the folders, whole or not, those with most steps first.

        Raises:
            EMError: where a checkpoint would be is a file.
        """
        folders = {}
        for folder in self.output.glob(f"{self.prefix}*"):
            steps = folder.name.removeprefix(self.prefix)
            if steps.isdigit():
                if not folder.is_dir():
                    raise EMError(f"{folder} is a file in the way of a checkpoint: move it, or choose another --output")
                folders[int(steps)] = folder
        return [folders[steps] for steps in sorted(folders, reverse=True)]

    def remove_older(self, written: Path, keep: int) -> None:
        """Remove the oldest ones, so that `keep` stay: the one just written and those before it."""
        found = self.newest_first()
        # a torn one with more steps, which resuming passed over, does not count
        for older in found[found.index(written) + keep :]:
            shutil.rmtree(older)

    def find(self, settings: Settings) -> tuple[Path, Run] | None:
        """Return the newest whole checkpoint with its `run.json`; None if there is no checkpoint.

        A torn or damaged one is passed over with a warning that says why.

        Raises:
            EMError: none of the checkpoints is whole, or the run had other settings.
        """
        found, reasons = self.newest_whole()
        if found is None:
            if reasons:
                faults = "; ".join(reasons)
                raise EMError(f"no checkpoint of {self.output} is whole: {faults}. Remove them to start anew")
            return None
        check_settings(found[0], found[1]["settings"], settings)
        return found

    def newest_whole(self) -> tuple[tuple[Path, Run] | None, list[str]]:
        """Return the newest whole checkpoint with its `run.json`, and the faults of newer ones.

        They are said in warnings, too.
        """
        reasons: list[str] = []
        for folder in self.newest_first():
            try:
                return (folder, self.read(folder)), reasons
            except EMError as error:
                reasons.append(str(error))
                logger.warning("%s", error)
        return None, reasons

    def read(self, folder: Path) -> Run:
        """Return `run.json` of a checkpoint, after every file that it names was found undamaged."""
        for name in (self.last_written, f"{STATE}/{RUN}"):
            try:
                content = json.loads((folder / name).read_text())
            except (OSError, ValueError) as error:
                raise EMError(f"{folder} is refused: {Path(name).name} is missing or damaged ({error})") from error
        if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
            raise EMError(f"{folder} is refused: {RUN} is damaged: it holds no settings")
        checksums = content.pop("sha256", {} if self.unchecked else None)
        if not isinstance(checksums, dict):
            raise EMError(f"{folder} is refused: {RUN} is damaged: it holds no checksums")
        for name, checksum in checksums.items():
            file = folder / name
            if not file.is_file():
                raise EMError(f"{folder} is refused: {name} is missing")
            if sha256(file) != checksum:
                raise EMError(f"{folder} is refused: {name} is damaged (its SHA-256 is not the one that was stored)")
        return content


def write_state(checkpoint: Path, tensors: Mapping[str, Tensors], run: Run, beside: Iterable[Path] = ()) -> None:
    """Write `training_state/` of a checkpoint, whole or not at all.

    Args:
        checkpoint: its folder.
        tensors: what goes into each file, by its name.
        run: "settings", and how far the run has come.
        beside: further files in the checkpoint that resuming needs.
    """
    with whole_folder(checkpoint / STATE) as folder:
        for name, content in tensors.items():
            save_file(contiguous(content), folder / f"{name}.safetensors")
        checksums = {f"{STATE}/{file.name}": sha256(file) for file in folder.iterdir()}
        checksums |= {file.relative_to(checkpoint).as_posix(): sha256(file) for file in beside}
        (folder / RUN).write_text(json.dumps({**run, "sha256": checksums}, indent=1))


def check_settings(folder: Path, stored: Settings, given: Settings) -> None:
    """Raise an error that names the settings in which two runs differ."""
    differing = []
    for name in sorted(stored.keys() | given.keys()):
        if stored.get(name) != given.get(name):
            differing.append(f"{name} was {stored.get(name)}, now {given.get(name)}")
    if differing:
        changes = "; ".join(differing)
        raise EMError(f"{folder} belongs to a run with other settings ({changes}): use those, or another --output")


def read_tensors(checkpoint: Path, name: str) -> Tensors:
    """Read one file of tensors, named as in `write_state`; an EMError says that it is damaged."""
    path = checkpoint / STATE / f"{name}.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise EMError(f"{path} is missing or damaged ({error}): remove {checkpoint} to go on without it") from error


def contiguous(tensors: Tensors) -> Tensors:
    """Return the tensors on the CPU, each in the order in which safetensors stores it."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def optimizer_tensors(optimizers: Optimizers) -> Tensors:
    """Return the state of some optimisers as `name.parameter's index.slot`: tensor."""
    tensors = {}
    for name, optimizer in optimizers.items():
        for index, slots in optimizer.state_dict()["state"].items():
            for slot, value in slots.items():
                tensors[f"{name}.{index}.{slot}"] = torch.as_tensor(value)
    return tensors


def load_optimizers(optimizers: Optimizers, tensors: Tensors) -> None:
    """Give optimisers the state that `optimizer_tensors` took; their learning rates stay."""
    for name, optimizer in optimizers.items():
        content = optimizer.state_dict()
        content["state"] = {}
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for key, value in tensors.items():
            owner, index, slot = key.split(".")
            if owner == name:
                if value.ndim > 0:
                    # fused Adam goes through memory in order: averages lie as their parameter does
                    value = torch.empty_like(parameters[int(index)]).copy_(value)
                content["state"].setdefault(int(index), {})[slot] = value
        optimizer.load_state_dict(content)
