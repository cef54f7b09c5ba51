"""The thresholds with which maps become objects, chosen on validation after a training.

How high boundaries and distances rise depends on the data and on how long a network has learnt.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from emfm.data.classes import read_json_object
from emfm.data.examples import Examples
from emfm.files import write_text
from emfm.inference.blocks import Blocks
from emfm.inference.plan import plan
from emfm.tasks.instance_metrics import InstanceMetrics
from emfm.tasks.instances import EMForInstanceSegmentation
from emfm.tasks.separation import Separation
from emfm.tasks.task import EMTaskModel
from emfm.tasks.watershed import separate

# So many micrographs, and the middle of each of this side in pixels, choose: they are separated
# again and again.
MICROGRAPHS, SIDE = 6, 1024
# What is tried of each threshold, the one that matters most first.
TRIED: dict[str, tuple[Any, ...]] = {
    "sure": (0.6, 0.85),
    "depth": (0.12, 0.3),
    "boundary": (0.4,),
    "foreground": (0.65,),
}
# Another one is taken if it is better by so much: few objects choose.
BETTER = 0.01
Seen = list[tuple[np.ndarray, np.ndarray]]  # packed maps and truth of each micrograph


def fit_separation(model: EMForInstanceSegmentation, data: Examples) -> Separation:
    """Return the thresholds of the best objects on whole micrographs, one after the other.

    Those of the model's configuration stay where none is better.

    Args:
        model: stays as it is.
        data: micrographs on which the model was not trained, if there are such.
    """
    seen = [_maps_of(model, data, index) for index in range(0, len(data), max(1, -(-len(data) // MICROGRAPHS)))]
    best = Separation.of(model.config.separation)
    if not any((truth > 0).any() for _, truth in seen):
        return best
    most = _merit(seen, best)
    for name, values in TRIED.items():
        for other in [replace(best, **{name: value}) for value in values]:
            merit = _merit(seen, other)
            if merit > most + BETTER:
                best, most = other, merit
    return best


def note_separation(model: EMTaskModel, data: Examples, folder: str | None) -> None:
    """Give a model its thresholds, and write them into a folder's `config.json`, if it has one.

    Models of other tasks stay as they are.
    """
    if not isinstance(model, EMForInstanceSegmentation):
        return
    model.config.separation = asdict(fit_separation(model, data))
    path = None if folder is None else Path(folder) / "config.json"
    if path is not None and path.is_file():  # a run without evaluations has saved nothing yet
        content = {**read_json_object(path, "the model's configuration"), "separation": model.config.separation}
        write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def _maps_of(model: EMForInstanceSegmentation, data: Examples, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Return packed maps (h, w) and the numbers of the objects in the middle of a micrograph."""
    image, ids = data.images[index], np.asarray(data.truth(index))
    ids = ids if ids.ndim == 2 else ids[0]
    statistics = model.processor.statistics(image)
    packed = np.zeros(ids.shape, dtype=np.uint32)
    for row, column, maps in Blocks(model, image, statistics, plan(model, image.shape)):
        part = model.result(maps, statistics, packed.dtype)
        packed[row : row + part.shape[0], column : column + part.shape[1]] = part
    top, left = (max(0, (side - SIDE) // 2) for side in ids.shape)
    middle = slice(top, top + SIDE), slice(left, left + SIDE)
    return packed[middle], ids[middle]


def _merit(seen: Seen, how: Separation) -> float:
    """Return AP at IoU 0.5 + AP at 0.5 to 0.95, which tells finer differences."""
    metrics = InstanceMetrics()
    for packed, truth in seen:
        found = np.zeros(packed.shape, dtype=np.int64)

        def write(row: int, column: int, block: np.ndarray, found: np.ndarray = found) -> None:
            found[row : row + block.shape[0], column : column + block.shape[1]] = block

        separate(packed, write, how=how)
        metrics.add(found, truth.astype(np.int64))
    figures = metrics.result()
    return float((figures["ap50"] or 0.0) + (figures["ap"] or 0.0))
