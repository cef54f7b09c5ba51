"""In which number format a model predicts: bf16 where it is fast and changes next to nothing."""

import logging
from typing import Any
from weakref import WeakSet

import numpy as np
import torch

from emfm.inference.blocks import network_values
from emfm.inference.prepared import prepared
from emfm.modeling import EMPreTrainedModel
from emfm.processing import IntensityStatistics
from emfm.training.machine import bf16_units, warn_of_emulated_bf16

logger = logging.getLogger(__name__)
# What may change for bf16: this share of the classes, or of a map's contrast.
MOST_CLASSES = MOST_CONTRAST = 0.001
SIDE = 512  # of the square in pixels on which both are compared
# In smaller images to compare takes longer than bf16 saves.
LARGE = 4 * SIDE * SIDE
# Models of which was said that bf16 would change too much: once is enough.
_told: WeakSet[EMPreTrainedModel] = WeakSet()


def number_format(model: EMPreTrainedModel, image: Any, statistics: IntensityStatistics, precision: str) -> torch.dtype:
    """Return the number format in which a model predicts an image (H, W).

    "auto" compares both on a square in the middle of each micrograph of a megapixel or more: what
    comes out hangs on the micrograph alone, not on those before it. It takes bf16 where the
    hardware has units for it and less than 0.1 % of the classes changes; without classes, maps by
    less than 0.001 of their contrast on average. Other weights than those in fp32 stay as they are.
    """
    if precision == "bf16":
        warn_of_emulated_bf16()
        return torch.bfloat16
    if precision == "fp32":
        return torch.float32
    if model.dtype != torch.float32 or np.prod(image.shape) < LARGE or not bf16_units():
        return model.dtype
    return _compared(model, image, statistics)


def _compared(model: EMPreTrainedModel, image: Any, statistics: IntensityStatistics) -> torch.dtype:
    """Return bf16 if it changes next to nothing; else say what would change, and return fp32."""
    rows, columns = (_middle(side) for side in image.shape)
    values = network_values(model, image, statistics, [(rows, columns)])
    maps = []
    for dtype in (torch.float32, torch.bfloat16):
        maps.append(prepared(model, dtype).maps(values.to(model.device))[0].cpu().numpy())
    exact, quick = maps
    share = change(exact, quick, classes=model.classes is not None)
    if share < (MOST_CLASSES if model.classes is not None else MOST_CONTRAST):
        return torch.bfloat16
    if model in _told:
        return torch.float32
    _told.add(model)
    changed = "of the classes" if model.classes is not None else "of the contrast"
    logger.warning(
        "bf16 would change %.2g %% %s (at most %.2g %%): computed in fp32, which --precision fp32 does without a word",
        100 * share,
        changed,
        100 * MOST_CLASSES,
    )
    return torch.float32


def change(exact: np.ndarray, quick: np.ndarray, classes: bool) -> float:
    """Return by how much maps (C, H, W) differ: share of pixels of another class, or of contrast.

    The contrast is the distance of a map's 1st and 99th percentiles; the largest share of all maps
    counts. Maps without contrast, of which nothing can be said, differ by 1.
    """
    if classes:
        return float((exact.argmax(axis=0) != quick.argmax(axis=0)).mean())
    low, high = np.percentile(exact, [1, 99], axis=(1, 2))
    difference = np.abs(exact - quick).mean(axis=(1, 2))
    contrast = high - low
    return float(np.where(contrast > 0, difference / np.where(contrast > 0, contrast, 1), 1).max())


def _middle(side: int) -> tuple[int, int]:
    """Return first and last (exclusive) pixel of the middle of a side."""
    start = max(0, side - SIDE) // 2
    return start, min(side, start + SIDE)
