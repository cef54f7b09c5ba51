"""Fine-tuning on what is painted, shown and stopped by a widget."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from emfm.errors import EMError
from emfm.files import writable_folder
from emfm.finetuning.arguments import FinetuneArguments
from emfm.finetuning.finetune import finetune
from emfm.hub.card import figure
from emfm.napari.strokes import Painted, next_training, write_labelled_folder

if TYPE_CHECKING:
    from emfm.napari.parts import Background


@dataclass(frozen=True)
class Training:
    """A fine-tuning of a segmentation.

    Attributes:
        folder: each training gets a folder in it, with `labels/` and `model/`.
        model: zoo name, folder or Hub id to start from.
        classes: their names.
        steps: of the training.
    """

    folder: Path
    model: str
    classes: list[str]
    steps: int

    def run(self, slices: list[Painted], shown: "Background") -> tuple[Path, str]:
        """Write the labels, train on them, and return the model's folder and its figures in words.

        Args:
            slices: what is painted.
            shown: is told how far it is, and may end it; the best weights until then are kept.

        Raises:
            EMError: nothing is painted, or the network or the folder cannot be used.
        """
        if len({index for one in slices for index in set(one.labels.ravel().tolist()) if index >= 0}) < 2:
            raise EMError("fewer than two classes are painted: paint two classes or more")
        place = next_training(writable_folder(self.folder, "save in"))
        write_labelled_folder(place / "labels", slices, self.classes)
        output = place / "model"
        args = FinetuneArguments(
            task="segmentation", data=str(place / "labels"), output=str(output), model=self.model, steps=self.steps
        )
        record = finetune(args, show_progress=False, callbacks=[_Shown(shown)])
        best = record["best"]
        return output, f"Dice {figure(best['dice'])} at step {best['step']}"


class _Shown(TrainerCallback):
    """Moves the bar with every step, and ends the training once that is asked for."""

    def __init__(self, shown: "Background"):
        self._shown = shown

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        self._shown.advance(state.global_step, state.max_steps)
        if self._shown.stopped:
            control.should_evaluate = control.should_training_stop = True
        return control

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, **kwargs: Any
    ) -> TrainerControl:
        dice = figure((metrics or {}).get("eval_dice"))
        self._shown.say(f"step {state.global_step} of {state.max_steps}: Dice {dice}")
        return control
