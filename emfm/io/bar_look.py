"""Whether a micrograph's lowest rows look like a data bar that its header does not tell of."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from emfm.io.reading import Micrograph

logger = logging.getLogger(__name__)
LEAST_ROWS = 12
# A bar has one grey value, its ground, in at least so many of its pixels; letters have the others.
GROUND = 0.4
# With fewer grey values, as in an image of almost no contrast, many pixels share one anyway.
LEAST_VALUES = 32
# A row of the specimen has no such value: at most so many of its pixels have the bar's ground.
PICTURE = 0.25
LARGEST_SHARE = 0.25  # of the picture that is looked at
SAMPLED = 64  # rows of the picture above
SHOWN = 5  # files of many


def seen_data_bar(image: Any) -> int:
    """Return about how many rows at the bottom of an image (H, W) look like a data bar; 0 for none.

    They share one grey value, which the rows above do not have. Images of floating point and those
    that stay in their files are not looked at.
    """
    if not isinstance(image, np.ndarray):
        return 0
    height = image.shape[0]
    lowest = int(height * LARGEST_SHARE)
    if image.dtype.kind not in "iu" or lowest < LEAST_ROWS:
        return 0
    rows = np.asarray(image[height - lowest - LEAST_ROWS :, :])
    values, counts = np.unique(rows[-LEAST_ROWS:], return_counts=True)
    ground = values[counts.argmax()]
    shares = (rows == ground).mean(axis=1)
    # letters interrupt the ground, so several rows are looked at together
    smooth = np.convolve(shares, np.full(LEAST_ROWS, 1 / LEAST_ROWS), mode="valid")
    below = int((smooth[::-1] < GROUND).argmax()) if (smooth < GROUND).any() else 0
    if not below:
        return 0
    highest = below + LEAST_ROWS - 1  # rows of the last window, of which the upper may be specimen
    bar = highest - int((shares[-highest:] >= GROUND).argmax())
    above = np.asarray(image[: height - bar - LEAST_ROWS : max(1, height // SAMPLED), :])
    if not above.size or len(np.unique(above)) < LEAST_VALUES or (above == ground).mean(axis=1).max() > PICTURE:
        return 0
    return bar


def with_seen_bar(micrograph: Micrograph) -> Micrograph:
    """Return a micrograph with the rows of its data bar, by its look where its header says none."""
    return micrograph if micrograph.data_bar else replace(micrograph, data_bar=seen_data_bar(micrograph.image))


def say_seen_bars(images: Sequence[Any], names: Sequence[str]) -> None:
    """Warn of images in memory whose lowest rows may be taken for the specimen, by their names."""
    rows = {name: seen_data_bar(image) for image, name in zip(images, names, strict=True)}
    some = [f"{name} (about {bar} rows)" for name, bar in rows.items() if bar]
    if some:
        more = f" and {len(some) - SHOWN} more" if len(some) > SHOWN else ""
        logger.warning(
            "%s%s: at the bottom is what looks like a microscope's data bar; it counts as image: "
            "cut it off, or leave it out of the masks with a value named 'ignore'",
            *(", ".join(some[:SHOWN]), more),
        )
