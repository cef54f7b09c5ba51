"""The features of micrographs, computed once, tile by tile, and kept at their own strides.

A head that is fitted again and again sees the same features. Kept in half precision, where each
map has its own stride, those of an HRNet take some 50 bytes a pixel.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from emfm.backbones.norms import InstanceNorm
from emfm.inference.blocks import NORM_PIXELS, frozen_network
from emfm.io.large_images import release_pages
from emfm.processing import IntensityStatistics
from emfm.tasks.segmentation import EMForSemanticSegmentation

TILE = 1024  # side of the part of a tile that is used, in pixels
# Pixels around it that are seen, too: at the edge of what it sees, a network is unsure.
MARGIN = 128
WHOLE = 1.5 * TILE**2  # up to so many pixels, a micrograph is one tile
KEPT_BYTES = 2**30
Box = tuple[int, int, int, int]  # first row, first column, row after the last, column after the last


@dataclass
class Source:
    """A micrograph (H, W) whose features are wanted."""

    image: Any  #: an array, or anything with `shape`, `dtype` and `image[rows, columns]`
    statistics: IntensityStatistics
    network: EMForSemanticSegmentation  #: whose norms no longer look at the tile

    def tiles(self, box: Box | None = None) -> Iterator[Box]:
        """Yield the tiles that cover a box, without what is seen around them."""
        height, width = self.image.shape
        top, left, bottom, right = box or (0, 0, height, width)
        side = max(height, width) if height * width <= WHOLE else TILE
        for row in range(top // side * side, bottom, side):
            for column in range(left // side * side, right, side):
                yield row, column, min(row + side, height), min(column + side, width)


@dataclass(frozen=True)
class TileFeatures:
    """A tile's features: half-precision maps (1, C_i, h / s, w / s) at strides s = 1, 2, 4, ..."""

    maps: list[Tensor]
    origin: tuple[int, int]  #: row and column of the micrograph at which the maps begin
    box: Box  #: what of them is used

    def at(self, rows: np.ndarray, columns: np.ndarray) -> Tensor:
        """Return the features (N, C) of pixels: coarse maps enlarged, as the network does."""
        row = torch.from_numpy(rows - self.origin[0])
        column = torch.from_numpy(columns - self.origin[1])
        parts = []
        for level, kept in enumerate(self.maps):
            if level == 0:
                parts.append(kept[0, :, row, column].T.float())
                continue
            height, width = (side * 2**level for side in kept.shape[-2:])
            grid = torch.stack([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1], dim=-1)
            sampled = F.grid_sample(kept.float(), grid.float()[None, None], padding_mode="border", align_corners=False)
            parts.append(sampled[0, :, 0].T)
        return torch.cat(parts, dim=1)

    def inner(self, whole: Tensor) -> Tensor:
        """Return what is used of maps (C, h, w) at full resolution."""
        top, left, bottom, right = self.box
        row, column = self.origin
        return whole[:, top - row : bottom - row, left - column : right - column]


class KeptFeatures:
    """Features of named micrographs; the longest unused ones make room for others.

    Args:
        model: whose trunk makes the features; in evaluation mode.
        most: bytes that may be kept.
    """

    def __init__(self, model: EMForSemanticSegmentation, most: int = KEPT_BYTES):
        self._model, self._most = model, most
        self._measures = any(isinstance(module, InstanceNorm) for module in model.modules())
        self._folded: EMForSemanticSegmentation | None = None
        self._sources: dict[str, Source] = {}
        self._kept: OrderedDict[tuple[str, Box], TileFeatures] = OrderedDict()

    def __contains__(self, name: str) -> bool:
        return name in self._sources

    def add(self, name: str, image: Any, statistics: IntensityStatistics | None = None) -> bool:
        """Name a micrograph; returns whether it is another than the one of this name before."""
        before = self._sources.get(name)
        if before is not None and _same(before.image, image):
            return False
        statistics = statistics or self._model.processor.statistics(image)
        for key in [key for key in self._kept if key[0] == name]:
            del self._kept[key]
        self._sources[name] = Source(image, statistics, self._network(image, statistics))
        return True

    def source(self, name: str) -> Source:
        """Return a micrograph by its name."""
        return self._sources[name]

    def tile(self, name: str, box: Box) -> TileFeatures:
        """Return the features of a tile, computed where they are not kept."""
        key = name, box
        if key not in self._kept:
            self._kept[key] = _features(self._sources[name], box)
            while len(self._kept) > 1 and self._bytes() > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _bytes(self) -> int:
        return sum(kept.numel() * kept.element_size() for tile in self._kept.values() for kept in tile.maps)

    def _network(self, image: Any, statistics: IntensityStatistics) -> EMForSemanticSegmentation:
        """Return the network that sees a micrograph; instance norm has its own mean in each."""
        if not self._measures:
            if self._folded is None:
                self._folded = frozen_network(self._model, image, statistics)  # type: ignore[assignment]
            return self._folded  # type: ignore[return-value]
        if np.prod(image.shape) <= NORM_PIXELS:
            return self._model
        return frozen_network(self._model, image, statistics)  # type: ignore[return-value]


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    arrays = isinstance(one, np.ndarray) and isinstance(other, np.ndarray)
    return arrays and one.dtype == other.dtype and np.array_equal(one, other)


@torch.no_grad()
def _features(source: Source, box: Box) -> TileFeatures:
    model, (height, width) = source.network, source.image.shape
    stride = model.trunk.stride
    margin = -(-MARGIN // stride) * stride
    top, left = max(0, box[0] // stride * stride - margin), max(0, box[1] // stride * stride - margin)
    bottom, right = min(height, box[2] + margin), min(width, box[3] + margin)
    part = np.asarray(source.image[top:bottom, left:right])
    values = model.processor.normalize(part, source.statistics, (top, left))
    release_pages(source.image)
    padded = model.padded(torch.from_numpy(values)[None, None].to(model.device, model.dtype))
    maps = [kept.half().cpu() for kept in model.scale_maps(padded)]
    return TileFeatures(maps, (top, left), box)
