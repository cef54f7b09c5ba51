"""What a checkpoint of a pretraining run holds.

`step_N/pretrained_model/` is a model folder that can be loaded, verified and pushed as it is.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from emfm.errors import EMError
from emfm.files import whole_folder
from emfm.hub.verify import write_test_tensors
from emfm.modeling import EMFoundation
from emfm.pretraining.card import pretraining_card
from emfm.training.checkpoint import (
    Checkpoints,
    Optimizers,
    Settings,
    contiguous,
    load_optimizers,
    optimizer_tensors,
    read_tensors,
    write_state,
)

MODEL = "pretrained_model"


@dataclass
class TrainingState:
    """All that a pretraining run changes as it goes; `generator` is the `Pretext` around it."""

    generator: nn.Module
    discriminator: nn.Module
    ema: EMFoundation
    optimizers: Optimizers

    def bytes(self) -> int:
        """Return what a checkpoint takes at least: weights, and two averages of each learnt one."""
        trained = [tensor for network in (self.generator, self.discriminator) for tensor in network.parameters()]
        return 3 * sum(tensor.nbytes for tensor in trained) + sum(tensor.nbytes for tensor in self.ema.parameters())


@dataclass
class Progress:
    """How far a run has come."""

    settings: Settings  # it goes on with the same ones alone
    step: int = 0  # steps done
    position: list[list[int]] = field(default_factory=list)  # a `batches.Position` of a stream
    seconds: float = 0.0  # of training so far


def checkpoints_of(output: Path) -> Checkpoints:
    """Return the checkpoints of a run, from its folder."""
    return Checkpoints(output, "step_")


def save_checkpoint(output: Path, state: TrainingState, progress: Progress, keep: int) -> None:
    """Write `step_N`, whole or not at all; then remove the oldest ones, so that `keep` stay."""
    tensors = {
        "generator": state.generator.state_dict(),
        "discriminator": state.discriminator.state_dict(),
        "optimizers": optimizer_tensors(state.optimizers),
    }
    written = output / f"step_{progress.step}"
    with whole_folder(written) as folder:
        model = folder / MODEL
        state.ema.save_pretrained(model, state_dict=contiguous(state.ema.state_dict()))
        # of the model as users load it: in training it has another memory layout, maybe on a GPU
        write_test_tensors(EMFoundation.from_pretrained(model), model)
        (model / "README.md").write_text(pretraining_card(state.ema.config), encoding="utf-8")
        write_state(folder, tensors, asdict(progress), beside=model.glob("*.safetensors"))
    checkpoints_of(output).remove_older(written, keep)


def resume(output: Path, state: TrainingState, settings: Settings) -> Progress:
    """Restore the newest whole checkpoint, if there is one, and return the progress.

    Raises:
        EMError: none of the checkpoints is whole, or the run had other settings.
    """
    found = checkpoints_of(output).find(settings)
    if found is None:
        return Progress(settings)
    folder, run = found
    try:
        state.generator.load_state_dict(read_tensors(folder, "generator"))
        state.discriminator.load_state_dict(read_tensors(folder, "discriminator"))
        state.ema.load_state_dict(load_file(folder / MODEL / "model.safetensors"))
        load_optimizers(state.optimizers, read_tensors(folder, "optimizers"))
        config = json.loads((folder / MODEL / "config.json").read_text())
        state.ema.config.pretraining = config["pretraining"]
        return Progress(**run)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise EMError(f"{folder} does not fit this version of emfm ({error}): choose another --output") from error
