"""Ctrl-C and SIGTERM in fine-tuning: the step ends, the run is saved, and then it leaves."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from emfm.training.stop import StopRequest, leave


class SaveOnStop(TrainerCallback):
    """Ends a training with a checkpoint once a signal asked for it."""

    def __init__(self, request: StopRequest):
        self.request = request
        self._received = 0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask transformers for a checkpoint and for the end."""
        self._received = self.request.received()
        if self._received:
            control.should_save = control.should_training_stop = True
        return control

    def leave_if_stopped(self, state: TrainerState) -> None:
        """Raise what Python raises for the signal, unless the last step was done anyhow."""
        if self._received and state.global_step < state.max_steps:
            done = f"saved after step {state.global_step} of {state.max_steps}"
            leave(self._received, f"{done}; --resume (resume_from_checkpoint=True) goes on")
