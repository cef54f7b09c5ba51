"""What was drawn into a micrograph is no object: scale bars and the letters beside them."""

import logging
from typing import Any

import numpy as np

from emfm.io.large_images import release_pages
from emfm.io.reading import Micrograph
from emfm.io.scale_bar import Box, find_scale_bars

logger = logging.getLogger(__name__)


def drawn_boxes(micrograph: Micrograph, shape: tuple[int, int]) -> list[Box]:
    """Return where a micrograph's scale bars are, in pixels of its form of some shape (H, W)."""
    bars = find_scale_bars(micrograph.image)
    for bar in bars:
        logger.warning("%s: a scale bar of %d px is left out of the objects", micrograph.name, bar.pixels)
    scale = [new / old for new, old in zip(shape, micrograph.image.shape, strict=True)] * 2
    corners = [np.array(bar.around) * scale for bar in bars]
    return [(int(t), int(left), int(np.ceil(b)), int(np.ceil(r))) for t, left, b, r in corners]


class Blanked:
    """Maps (H, W) in which some boxes are empty; read part by part."""

    def __init__(self, maps: Any, boxes: list[Box]):
        self._maps, self._boxes, self.shape = maps, boxes, maps.shape

    def __getitem__(self, place: Any) -> np.ndarray:
        """Return a part, given as a slice of rows, or slices of rows and columns."""
        rows, columns = place if isinstance(place, tuple) else (place, slice(None))
        part = np.array(self._maps[rows, columns])
        release_pages(self._maps)
        first, start = rows.indices(self.shape[0])[0], columns.indices(self.shape[1])[0]
        for top, left, bottom, right in self._boxes:
            if bottom > first and right > start:  # what lies beyond the end is an empty slice
                part[max(0, top - first) : bottom - first, max(0, left - start) : right - start] = 0
        return part
