"""A temperature for the logits, so that probabilities are what they say: Guo et al. 2017.

One number divides all logits. It changes no class, only how sure the network says that it is.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from emfm.data.classes import read_json_object
from emfm.data.examples import Examples
from emfm.files import write_text
from emfm.finetuning.separation import note_separation
from emfm.inference.blocks import Blocks
from emfm.inference.plan import plan
from emfm.tasks.task import EMTaskModel

# So many micrographs, and pixels of each, tell the temperature: one number needs no more.
MICROGRAPHS, PIXELS = 16, 20_000
# Temperatures that are tried lie between these, in steps of a few per cent.
COLDEST, HOTTEST, TRIED = 0.2, 20.0, 121
# Probabilities below this are taken for it: their logarithm would be infinite.
LEAST = 1e-30


def fit_temperature(model: EMTaskModel, data: Examples) -> float | None:
    """Return the temperature with the lowest cross-entropy on whole micrographs.

    Args:
        model: its own temperature does not matter, and stays.
        data: micrographs on which the model was not trained, if there are such.

    Returns:
        None where the task has no probabilities, or no pixel a truth.
    """
    if not model.calibrates:
        return None
    scores, truths = [], []
    for index in range(0, len(data), -(-len(data) // MICROGRAPHS)):
        found = _sample(model, data, index)
        scores.append(found[0])
        truths.append(found[1])
    score, truth = torch.cat(scores), torch.cat(truths)  # (N, K), (N)
    if not len(truth):
        return None
    tried = np.geomspace(COLDEST, HOTTEST, TRIED)
    losses = [float(F.cross_entropy(score / temperature, truth)) for temperature in tried]
    return float(f"{tried[int(np.argmin(losses))]:.4g}")


def note_calibration(model: EMTaskModel, data: Examples, folder: str | Path, writes: bool) -> None:
    """Give a model what validation says of its maps: a temperature, thresholds of objects."""
    note_temperature(model, data, folder, writes)
    note_separation(model, data, folder, writes)


def note_temperature(model: EMTaskModel, data: Examples, folder: str | Path, writes: bool) -> None:
    """Give a model its temperature, and write it into a `config.json` that is there."""
    temperature = fit_temperature(model, data)
    if temperature is None:
        return
    model.config.temperature = temperature
    path = Path(folder) / "config.json"
    if writes and path.is_file():  # a run without evaluations has saved nothing yet
        content = {**read_json_object(path, "the model's configuration"), "temperature": temperature}
        write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def _sample(model: EMTaskModel, data: Examples, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits (N, K), but for a number per pixel, and classes (N) of some pixels."""
    image, truth = data.images[index], model.truth_of(data, index)
    statistics = model.processor.statistics(image)
    share = min(1.0, PIXELS / max(1, int((truth >= 0).sum())))
    rng = np.random.default_rng(index)
    scores, classes = [np.empty((0, len(model.classes or {})), np.float32)], [np.empty(0, np.int64)]
    for row, column, maps in Blocks(model, image, statistics, plan(model, image.shape)):
        wanted = truth[row : row + maps.shape[1], column : column + maps.shape[2]]
        drawn = (wanted >= 0) & (rng.random(wanted.shape) < share)
        scores.append(model.config.temperature * np.log(np.maximum(maps[:, drawn].T, LEAST)))
        classes.append(wanted[drawn].astype(np.int64))
    return torch.from_numpy(np.concatenate(scores)).float(), torch.from_numpy(np.concatenate(classes))
