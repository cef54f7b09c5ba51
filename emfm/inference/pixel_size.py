"""The pixel size is part of a model: whether a micrograph has it, and giving it to one that has not."""

import logging
from dataclasses import replace
from typing import Any

from emfm.errors import EMError
from emfm.inference.resampling import Resampled
from emfm.io.reading import Micrograph
from emfm.modeling import EMPreTrainedModel

logger = logging.getLogger(__name__)
# Rounded header fields do not make a pixel size another one.
TOLERANCE = 0.02


def _fitting(model: EMPreTrainedModel, pixel_size: float) -> float:
    """Return the pixel size in nm, the nearest within the range that the model was trained at."""
    smallest, largest = model.config.pixel_size_range
    if smallest / (1 + TOLERANCE) <= pixel_size <= largest * (1 + TOLERANCE):
        return pixel_size
    return min(max(pixel_size, smallest), largest)


def check_pixel_size(model: EMPreTrainedModel, micrograph: Micrograph) -> None:
    """Log a warning where a micrograph's pixel size is known and not one that the model was trained at."""
    if model.config.pixel_size_range is None or micrograph.pixel_size is None:
        return
    if _fitting(model, micrograph.pixel_size) != micrograph.pixel_size:
        smallest, largest = model.config.pixel_size_range
        logger.warning(
            "%s has %.4g nm per pixel, the model was trained at %.4g to %.4g: --match-pixel-size resamples it",
            *(micrograph.name, micrograph.pixel_size, smallest, largest),
        )


def matched(model: EMPreTrainedModel, micrograph: Micrograph) -> Micrograph:
    """Return a micrograph at a pixel size that the model was trained at: itself, or resampled as it is read.

    Raises:
        EMError: the model's or the micrograph's pixel size is not known.
    """
    if model.config.pixel_size_range is None:
        raise EMError("this model does not say which pixel sizes it was trained at: leave --match-pixel-size out")
    if micrograph.pixel_size is None:
        raise EMError(f"{micrograph.name} does not say its pixel size: give it with --pixel-size NM")
    target = _fitting(model, micrograph.pixel_size)
    if target == micrograph.pixel_size:
        return micrograph
    height, width = (max(1, round(side * micrograph.pixel_size / target)) for side in micrograph.image.shape)
    image: Any = Resampled(micrograph.image, (height, width))
    return replace(micrograph, image=image, pixel_size=target)
