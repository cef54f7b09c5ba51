"""Offsets and a temperature for the logits, so that probabilities are what they say.

Class weights and the Dice loss make rare classes likelier than they are. A number added to the
logits of each class takes that back (vector scaling), and a temperature divides them all, which
changes no class, only how sure the network says that it is: Guo et al. 2017, arXiv:1706.04599.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from emfm.data.classes import read_json_object
from emfm.data.examples import Examples
from emfm.files import write_text
from emfm.inference.blocks import Blocks
from emfm.inference.plan import plan
from emfm.tasks.task import EMTaskModel

# So many micrographs of validation at most are looked at, and with those of the training, of which
# there are a few in any case; so many pixels of each, of which the last number fits the offsets.
MICROGRAPHS, FEWEST, PIXELS, FITTED = 16, 4, 20_000, 5_000
# Temperatures that are tried lie between these, in steps of a few per cent.
COLDEST, HOTTEST, TRIED = 0.2, 20.0, 121
# Weight of the squares of the offsets: a class that nobody has seen has none.
PRIOR = 1e-3
# Probabilities below this are taken for it: their logarithm would be infinite.
LEAST = 1e-30
Sample = tuple[Tensor, Tensor]  # logits (N, K), up to a number per pixel, and classes (N)


@dataclass(frozen=True)
class Calibration:
    """What makes logits as sure as they may be, by the names of the configuration's fields."""

    temperature: float
    class_offsets: list[float] | None = None


def fit_calibration(
    model: EMTaskModel, validation: Examples, training: Examples | None = None, offsets: bool = True
) -> Calibration | None:
    """Return offsets and temperature with the lowest cross-entropy on whole micrographs.

    Offsets are fitted on all micrographs, for they need every class. The temperature is fitted on
    validation alone: of what it has learnt by heart a network is too sure. Offsets that lower
    validation's Dice are none.

    Args:
        model: its own calibration does not matter, and stays.
        validation: micrographs on which the model was not trained, if there are such.
        training: those on which it was.
        offsets: whether classes may have some.

    Returns:
        None where the task has no probabilities, or no pixel of validation a truth.
    """
    if not model.calibrates:
        return None
    own = Calibration(model.config.temperature, model.config.class_offsets)
    try:
        _set(model, Calibration(1.0))
        measured = _samples(model, validation, MICROGRAPHS)
        seen = [] if training is None else _samples(model, training, max(FEWEST, MICROGRAPHS - len(measured)))
    finally:
        _set(model, own)
    if not measured:
        return None
    score, truth = _joined(measured)
    added = _fit_offsets([(s[:FITTED], t[:FITTED]) for s, t in measured + seen]) if offsets else None
    if added is None or _dice(score + added, truth) < _dice(score, truth):
        return Calibration(_fit_temperature(score, truth))
    rounded = [float(f"{value:.4g}") for value in added.tolist()]
    return Calibration(_fit_temperature(score + torch.tensor(rounded), truth), rounded)


def note_calibration(
    model: EMTaskModel, validation: Examples, training: Any, folder: str | None, offsets: bool = True
) -> None:
    """Give a model its calibration, and write it into the `config.json` of a folder, if it has one.

    Training data that are no micrographs in memory are left out.
    """
    found = fit_calibration(model, validation, training if isinstance(training, Examples) else None, offsets)
    if found is not None:
        write_calibration(model, found, folder)


def write_calibration(model: EMTaskModel, found: Calibration, folder: str | None) -> None:
    """Give a model a calibration, and write it into a folder's `config.json`, if it has one."""
    _set(model, found)
    path = None if folder is None else Path(folder) / "config.json"
    if path is not None and path.is_file():  # a run without evaluations has saved nothing yet
        content = {**read_json_object(path, "the model's configuration"), **asdict(found)}
        write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def _set(model: EMTaskModel, found: Calibration) -> None:
    model.config.temperature, model.config.class_offsets = found.temperature, found.class_offsets


def _fit_temperature(score: Tensor, truth: Tensor) -> float:
    tried = np.geomspace(COLDEST, HOTTEST, TRIED)
    losses = [float(F.cross_entropy(score / temperature, truth)) for temperature in tried]
    return float(f"{tried[int(np.argmin(losses))]:.4g}")


def _fit_offsets(samples: list[Sample]) -> Tensor:
    """Return the offsets (K,) that are best with their temperature; micrographs count alike."""
    score, truth = _joined(samples)
    weights = torch.cat([torch.full((len(t),), 1 / len(t)) for _, t in samples]) / len(samples)
    offsets, coldness = torch.zeros(score.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
    search = torch.optim.LBFGS([offsets, coldness], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        losses = F.cross_entropy((score + offsets) * coldness.exp(), truth, reduction="none")
        total = (weights * losses).sum() + PRIOR * offsets.square().sum()
        total.backward()
        return total

    with torch.enable_grad():
        search.step(loss)
    return offsets.detach()


def _dice(score: Tensor, truth: Tensor) -> float:
    """Return the mean Dice of the classes but for the first, of those that are there."""
    count = score.shape[1]
    table = torch.bincount(truth * count + score.argmax(dim=1), minlength=count * count).view(count, count)
    total = table.sum(dim=0) + table.sum(dim=1)
    return float((2 * table.diag() / total.clamp_min(1))[1:][total[1:] > 0].mean())


def _joined(samples: list[Sample]) -> Sample:
    return torch.cat([score for score, _ in samples]), torch.cat([truth for _, truth in samples])


def _samples(model: EMTaskModel, data: Examples, most: int) -> list[Sample]:
    """Return some pixels of so many micrographs at most, where these have a truth."""
    found = [_sample(model, data, index) for index in range(0, len(data), max(1, -(-len(data) // most)))]
    return [sample for sample in found if len(sample[1])]


def _sample(model: EMTaskModel, data: Examples, index: int) -> Sample:
    image, truth = data.images[index], model.truth_of(data, index)
    statistics = model.processor.statistics(image)
    share = min(1.0, PIXELS / max(1, int((truth >= 0).sum())))
    rng = np.random.default_rng(index)
    scores, classes = [np.empty((0, len(model.classes or {})), np.float32)], [np.empty(0, np.int64)]
    for row, column, maps in Blocks(model, image, statistics, plan(model, image.shape)):
        wanted = truth[row : row + maps.shape[1], column : column + maps.shape[2]]
        drawn = (wanted >= 0) & (rng.random(wanted.shape) < share)
        scores.append(np.log(np.maximum(maps[:, drawn].T, LEAST)))
        classes.append(wanted[drawn].astype(np.int64))
    order = torch.from_numpy(rng.permutation(sum(map(len, classes))))
    return torch.from_numpy(np.concatenate(scores)).float()[order], torch.from_numpy(np.concatenate(classes))[order]
