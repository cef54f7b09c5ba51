"""Micrographs whose objects are told apart, and what a network learns of them."""

from dataclasses import dataclass, field, replace

import numpy as np
from scipy import ndimage
from scipy.ndimage import distance_transform_edt, find_objects

from emfm.class_names import is_background
from emfm.data.examples import IGNORED, Examples, LabelledMicrographs
from emfm.no_data import no_data

EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)
UNKNOWN = -1  # instead of a number: nobody knows whose pixel this is
# What `object_map` adds to the distance, which lies between 0 and 1.
INSIDE, BOUNDARY = 1.0, 3.0


@dataclass(frozen=True)
class LabelledObjects(Examples):
    """Micrographs in which every object has a number of its own."""

    #: (H, W) int32: 0 for the background, -1 where nobody knows, else the number of the object
    ids: list[np.ndarray]
    #: (H, W) int16: class of the object that a pixel belongs to, -100 where there is none or nobody
    #: knows; None where objects have no classes
    classes: list[np.ndarray] | None = None
    id2label: dict[int, str] = field(default_factory=dict)  #: names of these classes by their index

    def __post_init__(self):
        for image, ids in zip(self.images, self.ids, strict=True):
            missing = no_data(image)
            if missing is not None:
                ids[missing] = UNKNOWN

    def truth(self, index: int) -> np.ndarray:
        """Return the numbers (H, W) of the objects of micrograph `index`.

        Where objects have classes it is (2, H, W) int32: the numbers, and the classes.
        """
        if self.classes is None:
            return self.ids[index]
        return np.stack([self.ids[index], self.classes[index]]).astype(np.int32)


def objects_of_masks(data: LabelledMicrographs) -> LabelledObjects:
    """Return micrographs whose objects are the connected parts of each class but the background.

    Pixels that share a side or a corner belong together, so touching objects of a class are one.
    """
    found = []
    for mask in data.masks:
        ids = np.zeros(mask.shape, dtype=np.int32)
        for index in shown_classes(data.id2label):
            parts, _ = ndimage.label(mask == index, structure=EIGHT_NEIGHBOURS)
            ids = np.where(parts > 0, parts + ids.max(), ids)
        ids[mask < 0] = UNKNOWN
        found.append(ids)
    return with_classes(LabelledObjects(data.images, data.names, data.pixel_sizes, found), data)


def shown_classes(id2label: dict[int, str]) -> list[int]:
    """Return the indices of all classes but the background."""
    return [index for index, label in sorted(id2label.items()) if not is_background(label)]


def with_classes(objects: LabelledObjects, masks: LabelledMicrographs) -> LabelledObjects:
    """Return objects that have the classes of masks of the same micrographs, each one class.

    It is that of the most of its pixels; the background is none. Of a single class nothing is
    noted. What is no object, and "ignore" in the mask, is unknown.
    """
    for ids, mask in zip(objects.ids, masks.masks, strict=True):
        ids[(ids == 0) & (mask < 0)] = UNKNOWN
    shown = shown_classes(masks.id2label)
    if len(shown) < 2:
        return objects
    position = np.full(len(masks.id2label), IGNORED, dtype=np.int16)
    position[shown] = np.arange(len(shown))
    maps = []
    for ids, mask in zip(objects.ids, masks.masks, strict=True):
        maps.append(_majority(ids, np.where(mask < 0, IGNORED, position[np.maximum(mask, 0)]), len(shown)))
    names = {number: masks.id2label[index] for number, index in enumerate(shown)}
    return replace(objects, classes=maps, id2label=names)


def _majority(ids: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """Return class maps (H, W) int16 in which all pixels of an object have one class."""
    numbers, inverse = np.unique(ids, return_inverse=True)
    inverse = inverse.reshape(ids.shape)
    voting = classes >= 0
    votes = np.bincount(inverse[voting] * count + classes[voting], minlength=len(numbers) * count)
    votes = votes.reshape(len(numbers), count)
    chosen = np.where((numbers > 0) & votes.any(axis=1), votes.argmax(axis=1), IGNORED)
    return chosen.astype(np.int16)[inverse]


def object_map(ids: np.ndarray, width: int = 1) -> np.ndarray:
    """Return what is learnt of the objects of a micrograph (H, W), in one float32 map.

    0 is background, NaN unknown. A pixel of an object has its distance to the object's boundary, as
    a share of the largest in the object, plus 1, or plus 3 beside the background or another object.
    The share does not change with the size of the objects: one threshold finds the middle of all.

    Args:
        ids: (H, W) numbers, negative where nobody knows.
        width: of the boundary inside each object, in pixels.
    """
    # the edge of the micrograph is no boundary: an object goes on beyond it
    objects = np.pad(np.where(ids > 0, ids, 0), 1, mode="edge")
    target = np.zeros(objects.shape, dtype=np.float32)
    for number, box in enumerate(find_objects(objects), start=1):
        if box is None:
            continue
        inside = objects[box] == number
        distance = distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
        values = distance / max(distance.max(), 1.0) + np.where(distance <= width * np.sqrt(2), BOUNDARY, INSIDE)
        target[box][inside] = values[inside]
    target = target[1:-1, 1:-1].copy()
    target[ids == UNKNOWN] = np.nan
    return target
