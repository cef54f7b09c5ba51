"""Whether a mask or a target fits its micrograph."""

import numpy as np

from emfm.data.classes import GreyValues
from emfm.data.restoration_pairs import SCALES
from emfm.errors import EMError
from emfm.io.large_images import LazyImage
from emfm.io.reading import Micrograph


def _size(image: np.ndarray | LazyImage) -> str:
    return f"{image.shape[0]} x {image.shape[1]}"


def class_map(mask: np.ndarray, micrograph: Micrograph, labels: GreyValues, name: str) -> np.ndarray:
    """Return the class indices (H, W) int16 of a mask.

    Raises:
        EMError: it has another size than its micrograph, or holds a grey value without a class; `name` stands in it.
    """
    if mask.shape != micrograph.image.shape:
        raise EMError(
            f"{name} is {_size(mask)} pixels, its image {_size(micrograph.image)}: a mask has its image's size"
        )
    return labels.indices(mask, name)


def target_scale(image: np.ndarray, micrograph: Micrograph, name: str) -> int:
    """Return how many pixels of a target image belong to one of its micrograph, per axis.

    Raises:
        EMError: their sizes do not fit; `name` stands in it.
    """
    for scale in (1, *SCALES):
        if image.shape == tuple(scale * length for length in micrograph.image.shape):
            return scale
    raise EMError(
        f"{name} is {_size(image)} pixels, its image {_size(micrograph.image)}: a target has its image's size, or "
        "2 or 4 times that a side for super-resolution"
    )


def check_target(image: np.ndarray, micrograph: Micrograph, scale: int, name: str) -> None:
    """Raise an error that names a target which is not (H * scale, W * scale), or holds values that are not finite."""
    if image.shape != tuple(scale * length for length in micrograph.image.shape):
        raise EMError(
            f"{name} is {_size(image)} pixels, its image {_size(micrograph.image)}: that does not fit the scale "
            f"{scale} of this data set; give --scale, or resample the target"
        )
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise EMError(f"{name} holds NaN or infinite values: replace them, or leave the pair out")
