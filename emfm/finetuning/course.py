"""The course of a fine-tuning: evaluations, seconds of training, and the best weights so far."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers.trainer_callback import ProgressCallback

from emfm.tasks.metrics import exists
from emfm.training.checkpoint import Tensors

Evaluation = dict[str, Any]  # step, epoch, seconds of training, metrics


class Course:
    """Grows with every evaluation of a run; the metric `figure_of_merit` decides which is best.

    Where no evaluation has that figure, none is better than another: the last weights are kept.
    """

    def __init__(self, figure_of_merit: str, greater_is_better: bool):
        self.curve: list[Evaluation] = []
        self.best_weights: Tensors = {}
        self.left_out: dict[str, Any] | None = None  # what the micrographs say that were left out once
        self._merit, self._choose = figure_of_merit, max if greater_is_better else min
        self.start_clock()

    def start_clock(self) -> None:
        """Count the seconds of training from here on."""
        self._started = time.perf_counter()

    def go_on(self, curve: list[Evaluation], best_weights: Tensors, seconds: float) -> None:
        """Take over what an interrupted run had reached."""
        self.curve[:], self.best_weights = curve, best_weights
        self._started = time.perf_counter() - seconds

    @contextmanager
    def clock_stopped(self) -> Iterator[None]:
        """Leave what happens here out of the seconds of training."""
        stopped = time.perf_counter()
        yield
        self._started += time.perf_counter() - stopped

    @property
    def seconds(self) -> float:
        """Seconds of training so far, without evaluations."""
        return time.perf_counter() - self._started

    def add(self, step: int, epoch: float | None, metrics: Evaluation, model: nn.Module) -> bool:
        """Append an evaluation; if it is the best so far, keep the weights and return True."""
        evaluation = {"step": step, "epoch": epoch, "seconds": round(self.seconds, 2), **metrics}
        self.curve.append(evaluation)
        better = self.best(self.curve) is evaluation
        if better:
            self.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        return better

    def best(self, evaluations: list[Evaluation]) -> Evaluation:
        """Return the best of some evaluations, the first of several; without a figure the last."""
        measured = [evaluation for evaluation in evaluations if exists(evaluation[self._merit])]
        if not measured:
            return evaluations[-1]
        return self._choose(measured, key=lambda evaluation: evaluation[self._merit])

    def amend(self, metrics: Evaluation) -> bool:
        """Give the best evaluation the figures that it has with offsets of the classes.

        Returns False, and changes nothing, where its figure would be worse.
        """
        best = self.best(self.curve)
        again = {**best, **metrics}
        if self.best([best, again]) is best and best[self._merit] != again[self._merit]:
            return False
        best.update(metrics)
        return True

    def without_better(self) -> int:
        """Return how many evaluations followed the best one; the one at step 0 does not count."""
        trained = [evaluation for evaluation in self.curve if evaluation["step"] > 0]
        return len(trained) - 1 - trained.index(self.best(trained)) if trained else 0


class CourseBar(ProgressCallback):
    """One bar with the latest validation figure beside it, instead of a printed dict per log."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Show the figure."""
        name = f"eval_{args.metric_for_best_model}"
        if self.training_bar is not None and logs and exists(logs.get(name)):
            self.training_bar.set_postfix({args.metric_for_best_model: f"{logs[name]:.4f}"})
