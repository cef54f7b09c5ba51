"""Painted layers of labels as micrographs with labels, and as a labelled folder to train on."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emfm.class_names import class_name
from emfm.data.classes import IGNORE
from emfm.errors import EMError
from emfm.files import write_text
from emfm.io.reading import Micrograph
from emfm.io.writing import write_image
from emfm.napari.layers import micrograph_at, pixel_size_of, pixels_of

UNLABELLED = 0  # in a layer of strokes, where class 0 is painted with label 1
IMAGES, MASKS = "images", "masks"


def class_names(text: str) -> list[str]:
    """Return the names in a text with commas; the first is that of label 1.

    Raises:
        EMError: there are not two of them, or two are alike.
    """
    names = [class_name(name, f"label {number}") for number, name in enumerate(text.split(","), start=1)]
    if len(names) < 2 or len({name.casefold() for name in names}) < len(names) or IGNORE in names:
        raise EMError(f"the classes are '{text}'; expected two names or more, each once, with commas between them")
    return names


@dataclass(frozen=True)
class Painted:
    """A micrograph, above its data bar, and what is painted on it.

    Attributes:
        micrograph: a slice of an image layer.
        labels: (H, W) int16: class indices, -1 where nothing is painted.
    """

    micrograph: Micrograph
    labels: np.ndarray


def painted(image: Any, strokes: Any, classes: list[str]) -> list[Painted]:
    """Return the slices of an image layer on which something is painted.

    Args:
        image: the image layer.
        strokes: the layer of labels on it, of the same shape; label 1 is class 0.
        classes: their names.

    Raises:
        EMError: the shapes differ, or a label has no class.
    """
    labels, shape = np.asarray(strokes.data), tuple(pixels_of(image).shape)
    if labels.shape != shape:
        raise EMError(
            f"the layer '{strokes.name}' has the shape {labels.shape}, '{image.name}' {shape}: paint on a layer "
            "of the image's own shape, as New makes it"
        )
    if labels.max(initial=0) > len(classes):
        raise EMError(
            f"the layer '{strokes.name}' holds label {labels.max()}; expected 1 to {len(classes)}, for "
            f"{', '.join(classes)}: name more classes, or paint it over"
        )
    pixel_size, found = pixel_size_of(image), []
    for place in np.ndindex(shape[:-2]):
        if labels[place].any():
            micrograph = micrograph_at(image, place, pixel_size).without_data_bar()
            indices = labels[place][: micrograph.image.shape[0]].astype(np.int16) - 1
            found.append(Painted(micrograph, indices))
    return found


def write_labelled_folder(folder: Path, slices: list[Painted], classes: list[str]) -> None:
    """Write what is painted as a folder that `emfm finetune` takes; the folder must be new."""
    names = {UNLABELLED: IGNORE, **dict(enumerate(classes, start=1))}
    for number, one in enumerate(slices):
        file = f"{number:03}.tif"
        write_image(folder / IMAGES / file, one.micrograph.array, one.micrograph.pixel_size)
        write_image(folder / MASKS / file, (one.labels + 1).astype(np.uint8), one.micrograph.pixel_size)
    named = {str(value): label for value, label in names.items()}
    write_text(folder / "labels.json", json.dumps(named, ensure_ascii=False, indent=1))


def next_training(folder: Path) -> Path:
    """Return a folder for one more training: `training-1`, or the next that is not there yet."""
    number = 1
    while (folder / f"training-{number}").exists():
        number += 1
    return folder / f"training-{number}"
