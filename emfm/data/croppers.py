"""How a training crop is cut from a micrograph and its truth: place, symmetry, intensities; decided by a key alone.

A cropper measures a micrograph once (`prepare`) and then cuts any number of crops from it (`crop`). A crop is
`pixel_values` (1, h, w) float32 and `labels`: class indices (h, w) int64, or the target (1, H, W) float32.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from emfm.data.patches import cut, dihedral
from emfm.data.restoration_pairs import Degradation, mosaic
from emfm.processing import EMImageProcessor, IntensityStatistics

Key = tuple[int, int, int]
# A micrograph, its target, and the micrograph's statistics.
PreparedPair = tuple[np.ndarray, np.ndarray, IntensityStatistics]
# A clean micrograph, its statistics, and a mosaic of it in network values.
PreparedClean = tuple[np.ndarray, IntensityStatistics, np.ndarray]


class Cropper(Protocol):
    """Cuts crops from one kind of example."""

    def prepare(self, image: np.ndarray, truth: np.ndarray) -> Any:
        """Measure a micrograph and its truth once."""

    def crop(self, prepared: Any, key: Key) -> dict[str, Tensor]:
        """Cut the crop that the key (seed, epoch, index) decides."""


class IntensityChange(NamedTuple):
    """What happens to the intensities of one crop."""

    factor: np.float32
    summand: np.float32

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return network values with another contrast and brightness."""
        return values * self.factor + self.summand


@dataclass(frozen=True)
class IntensityJitter:
    """Makes training see other contrasts than the few labelled micrographs have.

    Args:
        strength: contrast is multiplied by 1 +- strength, and +- strength network values are added; 0 changes nothing.
    """

    strength: float

    def draw(self, rng: np.random.Generator) -> IntensityChange:
        """Return the change of a crop."""
        factor, summand = rng.uniform(-self.strength, self.strength, 2)
        return IntensityChange(np.float32(1 + factor), np.float32(summand))


@dataclass(frozen=True)
class PairCropper:
    """Crops of micrographs with their targets, both scaled by the statistics of the micrograph.

    So a network's output means the same as its input, and the micrograph's own statistics turn it into its units.

    Args:
        processor: measures and scales.
        side: of a crop's target in pixels; a multiple of the scale.
        jitter: of the intensities.
        scale: target pixels per image pixel and axis.
        units: gain and offset from the targets' units to those of the images.
    """

    processor: EMImageProcessor
    side: int
    jitter: IntensityJitter
    scale: int = 1
    units: tuple[float, float] = (1.0, 0.0)

    def prepare(self, image: np.ndarray, truth: np.ndarray) -> PreparedPair:
        """Measure a micrograph."""
        return image, truth, self.processor.statistics(image)

    def crop(self, prepared: PreparedPair, key: Key) -> dict[str, Tensor]:
        """Cut the crop that the key (seed, epoch, index) decides."""
        image, target, statistics = prepared
        rng = np.random.default_rng(key)
        side = self.side // self.scale
        top, left = (int(rng.integers(max(1, length - side + 1))) for length in image.shape)
        symmetry = int(rng.integers(8))
        change = self.jitter.draw(rng)
        values = self.processor.normalize(cut(image, top, left, side), statistics)
        wanted = cut(target, top * self.scale, left * self.scale, self.side)
        labels = self.labels(wanted, statistics, change)
        return {
            "pixel_values": torch.from_numpy(change(dihedral(values, symmetry)))[None],
            "labels": torch.from_numpy(dihedral(labels, symmetry))[None],
        }

    def labels(self, target: np.ndarray, statistics: IntensityStatistics, change: IntensityChange) -> np.ndarray:
        """Return what the network shall put out (H, W) float32 for a crop of the target: its network values."""
        gain, offset = self.units
        wanted = gain * target.astype(np.float64) + offset
        return change(((wanted - statistics.offset) / statistics.scale).astype(np.float32))


@dataclass(frozen=True)
class DegradingCropper:
    """Crops of clean micrographs, each damaged anew; scaled as the whole damaged micrograph would be.

    Args:
        processor: measures and scales.
        side: of a clean crop in pixels; a multiple of the degradation's scale.
        jitter: of the intensities.
        degradation: the damage.
    """

    processor: EMImageProcessor
    side: int
    jitter: IntensityJitter
    degradation: Degradation

    def prepare(self, image: np.ndarray, truth: np.ndarray) -> PreparedClean:
        """Measure a clean micrograph."""
        statistics = self.processor.statistics(image)
        sample = mosaic(image)
        height, width = (length // self.degradation.scale * self.degradation.scale for length in sample.shape)
        return image, statistics, self.processor.normalize(sample[:height, :width], statistics)

    def crop(self, prepared: PreparedClean, key: Key) -> dict[str, Tensor]:
        """Cut the crop that the key (seed, epoch, index) decides."""
        image, statistics, sample = prepared
        rng = np.random.default_rng(key)
        top, left = (int(rng.integers(max(1, length - self.side + 1))) for length in image.shape)
        clean = self.processor.normalize(cut(image, top, left, self.side), statistics)
        clean = dihedral(clean, int(rng.integers(8)))
        change = self.jitter.draw(rng)
        damaged = self.degradation(clean, *key[1:])
        # a model meets a damaged micrograph scaled by its own percentiles, which noise moves apart
        measured = self.processor.statistics(self.degradation(sample, *key[1:]))
        limit = np.float32(self.processor.clip)
        values, wanted = ((part - measured.offset) / measured.scale for part in (damaged, clean))
        values = np.clip(values, -limit, limit).astype(np.float32)
        return {
            "pixel_values": torch.from_numpy(change(values))[None],
            "labels": torch.from_numpy(change(wanted.astype(np.float32)))[None],
        }
