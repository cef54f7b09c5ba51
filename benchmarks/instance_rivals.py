"""What a user would do without `instances`: a semantic map, divided into objects afterwards."""

from typing import Any

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from emfm.data.examples import LabelledMicrographs
from emfm.data.objects import LabelledObjects
from emfm.inference.predict import predict

# Smaller parts are left out, as the task itself does, in pixels.
LEAST_AREA = 60
PEAK_DISTANCE = 5  # of two tops of the distance transform at least, in pixels


def smaller(image: np.ndarray, shrink: int) -> np.ndarray:
    """Return a micrograph whose pixels are means of squares of pixels."""
    height, width = (side // shrink * shrink for side in image.shape)
    parts = np.asarray(image[:height, :width], dtype=np.float32)
    return parts.reshape(height // shrink, shrink, width // shrink, shrink).mean(axis=(1, 3))


def small_masks(data: LabelledObjects, shrink: int) -> LabelledMicrographs:
    """Return the foreground of objects, of micrographs scaled down as `instances` sees them."""
    images = [smaller(image, shrink) for image in data.images]
    masks: list[Any] = []
    for image, ids in zip(images, data.ids, strict=True):
        small = ids[shrink // 2 :: shrink, shrink // 2 :: shrink][: image.shape[0], : image.shape[1]]
        masks.append(np.where(small < 0, -100, small > 0).astype(np.int16))
    return LabelledMicrographs(images, data.names, data.pixel_sizes, masks, {0: "background", 1: "particle"})


def parts_of(model: Any, image: np.ndarray, shrink: int) -> np.ndarray:
    """Return where a semantic network sees particles (H, W), at the micrograph's size."""
    found = predict(model, smaller(image, shrink), compare=False).output == 1
    rows, columns = (
        np.minimum(np.arange(side) // shrink, small - 1) for side, small in zip(image.shape, found.shape, strict=True)
    )
    return found[rows][:, columns]


def divided(mask: np.ndarray, smoothing: float | None) -> np.ndarray:
    """Return the objects (H, W) of a mask: connected parts, or a watershed from the tops of their distance transform.

    Args:
        mask: (H, W).
        smoothing: of the distance transform, a standard deviation in pixels; None: connected parts.
    """
    parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if smoothing is not None and count:
        distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), smoothing)
        tops = peak_local_max(distance, min_distance=PEAK_DISTANCE, labels=parts)
        markers = np.zeros(mask.shape, dtype=np.int32)
        markers[tuple(tops.T)] = np.arange(1, len(tops) + 1)
        parts = watershed(-distance, markers, mask=mask)
    areas = np.bincount(parts.ravel())
    parts[(areas < LEAST_AREA)[parts]] = 0
    return parts
