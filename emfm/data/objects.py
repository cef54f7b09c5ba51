"""Micrographs whose objects are told apart, and what a network learns of them."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.ndimage import distance_transform_edt, find_objects

from emfm.class_names import is_background
from emfm.data.examples import Examples, LabelledMicrographs
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

    def __post_init__(self):
        for image, ids in zip(self.images, self.ids, strict=True):
            missing = no_data(image)
            if missing is not None:
                ids[missing] = UNKNOWN

    def truth(self, index: int) -> np.ndarray:
        """Return the numbers of the objects of micrograph `index`."""
        return self.ids[index]


def objects_of_masks(data: LabelledMicrographs) -> LabelledObjects:
    """Return micrographs whose objects are the connected parts of each class but the background.

    Pixels that share a side or a corner belong together, so touching objects are one.
    """
    shown = [index for index, label in data.id2label.items() if not is_background(label)]
    found = []
    for mask in data.masks:
        ids = np.zeros(mask.shape, dtype=np.int32)
        for index in shown:
            parts, _ = ndimage.label(mask == index, structure=EIGHT_NEIGHBOURS)
            ids = np.where(parts > 0, parts + ids.max(), ids)
        ids[mask < 0] = UNKNOWN
        found.append(ids)
    return LabelledObjects(data.images, data.names, data.pixel_sizes, found)


def object_map(ids: np.ndarray) -> np.ndarray:
    """Return what is learnt of the objects of a micrograph (H, W), in one float32 map.

    0 is background, NaN unknown. A pixel of an object has its distance to the object's boundary, as
    a share of the largest in the object, plus 1, or plus 3 beside the background or another object.
    The share does not change with the size of the objects: one threshold finds the middle of all.
    """
    # the edge of the micrograph is no boundary: an object goes on beyond it
    objects = np.pad(np.where(ids > 0, ids, 0), 1, mode="edge")
    target = np.zeros(objects.shape, dtype=np.float32)
    for number, box in enumerate(find_objects(objects), start=1):
        if box is None:
            continue
        inside = objects[box] == number
        distance = distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
        values = distance / max(distance.max(), 1.0) + np.where(distance <= np.sqrt(2), BOUNDARY, INSIDE)
        target[box][inside] = values[inside]
    target = target[1:-1, 1:-1].copy()
    target[ids == UNKNOWN] = np.nan
    return target
