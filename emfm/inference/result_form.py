"""Shape and values of a result: its dtype, and what stands where the micrograph holds no data."""

import logging
from typing import Any

import numpy as np

from emfm.modeling import EMPreTrainedModel
from emfm.no_data import no_data
from emfm.processing import IntensityStatistics
from emfm.tasks import task_of

logger = logging.getLogger(__name__)
# Whole numbers that are restored come back as float32 where 98 % of a micrograph's pixels lie
# within fewer of them than this: rounding would cost more than 0.3 dB of a PSNR of 35 dB.
FEW_LEVELS = 64


def result_shape(model: EMPreTrainedModel, image: Any) -> tuple[int, int]:
    """Return the shape (H, W) of a model's result on an image."""
    return image.shape[0] * model.scale, image.shape[1] * model.scale


def result_form(model: EMPreTrainedModel, image: Any) -> tuple[tuple[int, int], np.dtype]:
    """Return the shape (H, W) and the dtype of a model's result on an image.

    A restored micrograph has its own dtype, or float32 where that `has_few_levels`.
    """
    pixel = np.zeros((len(model.classes) if model.classes else 3, 1, 1), dtype=np.float32)
    given = np.dtype(np.float32) if has_few_levels(model, image) else np.dtype(image.dtype).newbyteorder("=")
    return result_shape(model, image), model.result(pixel, IntensityStatistics(0.0, 1.0), given).dtype


def has_few_levels(model: EMPreTrainedModel, image: Any) -> bool:
    """Return whether a restoration of whole numbers (H, W) must not be rounded to such again.

    So it is where the percentiles that become -1 and +1 are fewer than `FEW_LEVELS` apart, as in
    counts of a few electrons.
    """
    if task_of(model).nearest or image.dtype.kind not in "biu":
        return False
    statistics = model.processor.statistics(image)
    return not statistics.flat and 2 * statistics.scale < FEW_LEVELS


def say_few_levels(image: Any, dtype: np.dtype, name: str) -> None:
    """Say that whole numbers are restored to a floating dtype, where they are."""
    if image.dtype.kind in "biu" and dtype.kind == "f":
        logger.warning(
            "%s: %s with fewer than %d grey levels; the result is %s, for rounding would show",
            *(name, image.dtype, FEW_LEVELS, dtype),
        )


def hide_no_data(part: np.ndarray, model: EMPreTrainedModel, image: Any, corner: tuple[int, int]) -> np.ndarray:
    """Return a part of a result (h, w) that says where its micrograph holds no data."""
    if image.dtype.kind != "f":
        return part
    scale, (row, column) = model.scale, corner
    rows, columns = (slice(at // scale, -(-(at + side) // scale)) for at, side in zip(corner, part.shape, strict=True))
    missing = no_data(np.asarray(image[rows, columns]))
    if missing is None:
        return part
    missing = missing.repeat(scale, axis=0).repeat(scale, axis=1)
    top, left = row - rows.start * scale, column - columns.start * scale
    missing = missing[top : top + part.shape[0], left : left + part.shape[1]]
    return np.where(missing, no_data_value(part.dtype), part).astype(part.dtype)


def no_data_value(dtype: Any) -> float:
    """Return what a result holds without data: NaN, the largest integer, or no object."""
    dtype = np.dtype(dtype)
    if dtype == np.uint32:  # numbers of objects, or their maps
        return 0.0
    return np.nan if dtype.kind == "f" else float(np.iinfo(dtype).max)
