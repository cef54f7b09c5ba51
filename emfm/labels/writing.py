"""Files of labels for other programs."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import tifffile

from emfm.files import write_atomically, write_text
from emfm.labels.formats.coco import coco_annotation
from emfm.labels.formats.imagej import write_selections
from emfm.labels.formats.labelme import labelme_file
from emfm.labels.formats.qupath import qupath_feature
from emfm.labels.shapes import Region

Object = tuple[str, int, Region]  #: class, number and pixels


@dataclass(frozen=True)
class LabelledImage:
    """One image with its class indices, -100 where nobody knows."""

    name: str  #: relative to `images/`
    path: Path
    classes: list[np.ndarray]  #: of each slice (H, W)
    stack: bool

    @property
    def shape(self) -> tuple[int, int]:
        """The size (H, W) of its slices."""
        height, width = self.classes[0].shape
        return height, width


Drawings = list[tuple[LabelledImage, list[Object]]]


def write_label_images(
    folder: Path, images: list[LabelledImage], shown: dict[int, str], numbers: list[list[np.ndarray]] | None
) -> int:
    """Write a TIFF of numbers for each image, as napari opens them; return how many there are.

    Args:
        folder: for the files.
        images: with their classes.
        shown: class index: name; the first becomes 1, and 0 is what is not among them.
        numbers: of the objects in each image's slices, in the place of the classes.
    """
    count = 0
    for position, image in enumerate(images):
        slices = _ordered(image.classes, shown) if numbers is None else numbers[position]
        most = max(int(values.max(initial=0)) for values in slices)
        dtype = np.uint8 if most < 2**8 else np.uint16 if most < 2**16 else np.uint32
        array = (np.stack(slices) if image.stack else slices[0]).astype(dtype)
        count += sum(len(np.unique(values[values > 0])) for values in slices)
        _write_tiff(folder / PurePosixPath(image.name).with_suffix(".tif"), array)
    return count


def _ordered(slices: list[np.ndarray], shown: dict[int, str]) -> list[np.ndarray]:
    """Return class indices as numbers from 1, in the order of those that are shown."""
    found = []
    for classes in slices:
        values = np.zeros(classes.shape, dtype=np.int64)
        for number, index in enumerate(shown, start=1):
            values[classes == index] = number
        found.append(values)
    return found


def _write_tiff(path: Path, array: np.ndarray) -> None:
    write_atomically(path, lambda temporary: tifffile.imwrite(temporary, array, photometric="minisblack"))


def _write_labelme(folder: Path, output: Path, drawn: Drawings, classes: list[str]) -> None:
    for image, found in drawn:
        path = PurePosixPath(image.name).with_suffix(".json")
        try:
            place = Path(os.path.relpath(image.path.resolve(), (output / path).parent.resolve())).as_posix()
        except ValueError:  # another drive of Windows
            place = image.path.resolve().as_posix()
        write_text(folder / path, json.dumps(labelme_file(place, image.shape, found), ensure_ascii=False))


def _write_coco(folder: Path, output: Path, drawn: Drawings, classes: list[str]) -> None:
    names = list(dict.fromkeys([*classes, *(label for _, found in drawn for label, _, _ in found)]))
    content: dict[str, list[dict[str, Any]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
    }
    for number, (image, found) in enumerate(drawn, start=1):
        height, width = image.shape
        content["images"].append({"id": number, "file_name": image.name, "height": height, "width": width})
        for label, _, region in found:
            entry = {"id": len(content["annotations"]) + 1, "image_id": number, "category_id": names.index(label) + 1}
            content["annotations"].append({**entry, **coco_annotation(region, image.shape)})
    write_text(folder / "annotations.json", json.dumps(content, ensure_ascii=False))


def _write_qupath(folder: Path, output: Path, drawn: Drawings, classes: list[str]) -> None:
    for image, found in drawn:
        features = [qupath_feature(label, region) for label, _, region in found]
        text = json.dumps({"type": "FeatureCollection", "features": features}, ensure_ascii=False)
        write_text(folder / PurePosixPath(image.name).with_suffix(".geojson"), text)


def _write_imagej(folder: Path, output: Path, drawn: Drawings, classes: list[str]) -> None:
    for image, found in drawn:
        named = {f"{label}-{number:04d}": region for label, number, region in found}
        path = folder / f"{PurePosixPath(image.name).with_suffix('')}_RoiSet.zip"
        write_atomically(path, lambda temporary, named=named: write_selections(temporary, named))  # type: ignore[misc]


# Format: what writes into a folder, which gets another name when it is whole, the labels of images.
WRITERS: dict[str, Callable[[Path, Path, Drawings, list[str]], None]] = {
    "labelme": _write_labelme,
    "coco": _write_coco,
    "qupath": _write_qupath,
    "imagej": _write_imagej,
}
