"""How good a model is where nothing was set aside to measure it: each image is left out once.

A few short trainings, each without one micrograph, are measured on the one that they have not seen.
Of a single micrograph, parts of its labels are left out.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, geometric_mean, pstdev
from typing import Any

import numpy as np

from emfm.data.datasets import load_em_dataset
from emfm.data.examples import IGNORED, Examples, LabelledMicrographs
from emfm.errors import EMError, MissingSplitError
from emfm.files import write_text
from emfm.finetuning.calibration import Calibration, write_calibration
from emfm.finetuning.course import Evaluation
from emfm.tasks.metrics import exists

logger = logging.getLogger(__name__)
MOST = 10  # trainings; of more micrographs so many are drawn
# All trainings together take as many steps as the model's own, each so many at most. Below the
# fewest only the head is fitted: a network that has hardly begun is worse than a fitted head.
MOST_STEPS, FEWEST_STEPS = 100, 20
PARTS = (4, 3, 2)  # of a single micrograph's labels; the first number that works
MICROGRAPHS, STRIPS = "micrographs", "parts"


@dataclass(frozen=True)
class Fold:
    """What one training learns from, and what it is measured on."""

    name: str  #: of what is left out
    training: Examples
    measured: Examples


def folds_of(data: Examples, seed: int) -> tuple[str, list[Fold]]:
    """Return what is left out, micrographs or parts of one, and how.

    Args:
        data: all labelled micrographs; those without a label are in every training.
        seed: draws `MOST` of many micrographs.

    Raises:
        EMError: what is left would not hold every class, so nothing can be measured.
    """
    known = [index for index in range(len(data)) if len(_held(data, index)) or not _is_labelled(data)]
    if len(known) == 1:
        return STRIPS, _parts(data, known[0])
    whole = set().union(*(_held(data, index) for index in known))
    chosen = [index for index in known if whole == set().union(*(_held(data, k) for k in known if k != index))]
    if len(chosen) < 2:
        raise EMError(
            f"--leave-one-out has nothing to leave out: of {len(known)} labelled micrographs each class must be "
            "labelled in two, so that the others can teach it; label more, or leave --leave-one-out out"
        )
    chosen = sorted(np.random.default_rng(seed).permutation(chosen)[:MOST].tolist())
    folds = []
    for index in chosen:
        rest = [other for other in range(len(data)) if other != index]
        folds.append(Fold(data.names[index], data.only(rest), data.only([index])))
    return MICROGRAPHS, folds


def can_leave_out(folder: str | Path) -> bool:
    """Tell whether nothing else measures what labels teach, and some can be left out."""
    try:
        folds_of(load_em_dataset(folder, "train", truth="masks"), seed=0)
        load_em_dataset(folder, "validation", truth="masks")
    except MissingSplitError:
        return True
    except EMError:
        pass
    return False


def steps_of(steps: int, folds: int) -> int:
    """Return how many steps each of the trainings takes; 0 fits the head alone."""
    each = min(MOST_STEPS, steps // folds)
    return each if each >= FEWEST_STEPS else 0


def left_out(
    kind: str, folds: list[Fold], steps: int, figure: str, run: Callable[[Fold], tuple[Evaluation, float]]
) -> dict[str, Any]:
    """Run all trainings; returns their figures, as the record of a fine-tuning holds them.

    Args:
        kind: what is left out.
        folds: the trainings.
        steps: of each.
        figure: name of the figure of merit.
        run: returns the figures of what was left out, and the temperature that suits it.

    Returns:
        `of` and `n`, what is left out; `steps`; `mean` and `spread` (standard deviation) of the
        figure of merit, None where no training has it; `each` by name; `figures`, all means;
        `temperature`, the geometric mean.
    """
    logger.info("%d short trainings of %d steps measure what is left out of each", len(folds), steps)
    found = {}
    for fold in folds:
        with _few_words():
            found[fold.name] = run(fold)
    each = {name: evaluation[figure] for name, (evaluation, _) in found.items()}
    values = [value for value in each.values() if exists(value)]
    return {
        "of": kind,
        "n": len(folds),
        "steps": steps,
        "mean": fmean(values) if values else None,
        "spread": pstdev(values) if values else None,
        "each": each,
        "figures": _mean([evaluation for evaluation, _ in found.values()]),
        "temperature": float(f"{geometric_mean(temperature for _, temperature in found.values()):.4g}"),
    }


def note_left_out(trainer: Any, found: dict[str, Any]) -> None:
    """Note it with a trainer, its curve and its model; the temperature suits unseen images."""
    trainer.course.left_out = found
    trainer.curve[-1]["left_out"] = {key: found[key] for key in ("mean", "spread", "n", "of", "steps")}
    writes = trainer.is_world_process_zero()
    if trainer.model.calibrates:
        calibration = Calibration(found["temperature"], trainer.model.config.class_offsets)
        write_calibration(trainer.model, calibration, trainer.args.output_dir if writes else None)
    if writes:
        write_text(Path(trainer.args.output_dir) / "curve.json", json.dumps(trainer.curve, indent=1))


def told(found: dict[str, Any], heading: str, form: str = ".4f") -> str:
    """Return in a line how good the model is, as far as that can be known."""
    if found["mean"] is None:
        return f"{heading} of what was left out: none, its labels hold nothing to measure"
    figure = f"{found['mean']:{form}} +- {found['spread']:{form}}"
    return f"{heading} of what was left out: {figure} ({found['n']} {found['of']})"


def _is_labelled(data: Examples) -> bool:
    return isinstance(data, LabelledMicrographs)


def _held(data: Examples, index: int) -> set[int]:
    """Return the classes that are labelled in a micrograph; none of other kinds of truth."""
    if not isinstance(data, LabelledMicrographs):
        return set()
    return {int(label) for label in np.unique(data.masks[index]) if label >= 0}


def _parts(data: Examples, index: int) -> list[Fold]:
    """Return trainings that leave out strips of a micrograph's labels, of equally many pixels."""
    if not isinstance(data, LabelledMicrographs):
        raise EMError(
            "--leave-one-out needs two micrographs with truth, and there is one: add another, or leave it out"
        )
    mask, classes = data.masks[index], _held(data, index)
    places = np.nonzero(mask >= 0)
    for count in PARTS:
        for axis in np.argsort([-side for side in mask.shape], kind="stable"):
            edges = np.quantile(places[axis], np.arange(1, count) / count)
            numbers = np.digitize(np.arange(mask.shape[axis]), np.ceil(edges))
            strips = np.broadcast_to(np.expand_dims(numbers, 1 - int(axis)), mask.shape)
            rests = [np.where(strips == number, IGNORED, mask) for number in range(count)]
            if all({int(label) for label in np.unique(rest) if label >= 0} == classes for rest in rests):
                return [_strip(data, index, rest, f"part {number + 1}") for number, rest in enumerate(rests)]
    raise EMError(
        f"--leave-one-out cannot leave out a part of {data.names[index]}, the only labelled micrograph: a class is "
        "labelled in one place alone. Label each in a second place, or leave --leave-one-out out"
    )


def _strip(data: LabelledMicrographs, index: int, rest: np.ndarray, part: str) -> Fold:
    mask = data.masks[index]
    masks = [rest if number == index else other for number, other in enumerate(data.masks)]
    alone = data.only([index])
    measured = np.where(rest == mask, IGNORED, mask).astype(mask.dtype)
    name = f"{data.names[index]}, {part}"
    return Fold(name, replace(data, masks=masks), replace(alone, masks=[measured]))


def _mean(evaluations: list[Evaluation]) -> Evaluation:
    """Return the mean of every figure over those that have it; counts are added."""
    merged: Evaluation = {}
    for key, first in evaluations[0].items():
        values = [evaluation[key] for evaluation in evaluations]
        if isinstance(first, dict):
            merged[key] = _mean(values)
        elif key == "n":
            merged[key] = sum(values)
        elif key not in ("step", "epoch", "seconds"):
            numbers = [value for value in values if isinstance(value, float) and exists(value)]
            merged[key] = first if isinstance(first, str) else fmean(numbers) if numbers else None
    return merged


@contextmanager
def _few_words() -> Iterator[None]:
    """Let only errors be said: what there is to say of the data was said of all of them."""
    package = logging.getLogger("emfm")
    before = package.level
    package.setLevel(logging.ERROR)
    try:
        yield
    finally:
        package.setLevel(before)
