"""How a training crop is cut from a micrograph and its truth: place, symmetry, intensities; decided by a key alone.

A cropper measures a micrograph once (`prepare`) and then cuts any number of crops from it (`crop`). A crop is
`pixel_values` (1, h, w) float32 and `labels`: class indices (h, w) int64, or the target (1, H, W) float32.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from emfm.data.examples import IGNORED, CleanMicrographs, Examples, LabelledMicrographs, PairedMicrographs
from emfm.data.patches import cut, dihedral
from emfm.data.restoration_pairs import Degradation, mosaic
from emfm.errors import EMError
from emfm.processing import EMImageProcessor, IntensityStatistics

# How often a labelled crop is placed on a class drawn at random instead of anywhere in the micrograph.
CLASS_CENTRED = 0.5
Key = tuple[int, int, int]


class Cropper(Protocol):
    """Cuts crops from one kind of example."""

    def prepare(self, image: np.ndarray, truth: np.ndarray) -> Any:
        """Measure a micrograph and its truth once."""

    def crop(self, prepared: Any, key: Key) -> dict[str, Tensor]:
        """Cut the crop that the key (seed, epoch, index) decides."""


@dataclass(frozen=True)
class IntensityJitter:
    """Makes training see other contrasts than the few labelled micrographs have.

    Args:
        strength: contrast is multiplied by 1 +- strength, and +- strength network values are added; 0 changes nothing.
    """

    strength: float

    def draw(self, rng: np.random.Generator) -> tuple[np.float32, np.float32]:
        """Return the factor and the summand of a crop."""
        factor, summand = rng.uniform(-self.strength, self.strength, 2)
        return np.float32(1 + factor), np.float32(summand)


def new_cropper(
    data: Examples, processor: EMImageProcessor, side: int, jitter: float, units: tuple[float, float]
) -> Cropper:
    """Return the cropper for a kind of data.

    Args:
        data: labelled, paired or clean micrographs; in memory or a stream's empty sample of them.
        processor: measures and scales.
        side: of a crop's truth in pixels; a multiple of the scale.
        jitter: strength of the random change of intensities.
        units: gain and offset from the targets' units to those of the images.

    Raises:
        EMError: the side does not fit the scale.
    """
    if isinstance(data, LabelledMicrographs):
        return SegmentationCropper(processor, side, IntensityJitter(jitter))
    assert isinstance(data, (PairedMicrographs, CleanMicrographs))
    if side % data.scale:
        raise EMError(f"a crop of {side} px does not fit the scale {data.scale}: use a multiple of {data.scale}")
    if isinstance(data, PairedMicrographs):
        return PairCropper(processor, side, IntensityJitter(jitter), data.scale, units)
    return DegradingCropper(processor, side, IntensityJitter(jitter), data.degradation)


@dataclass(frozen=True)
class SegmentationCropper:
    """Crops with class maps.

    Half of the crops lie anywhere; the others are centred on a pixel of a class drawn at random among those in the
    micrograph, so that a rare class is seen as often as a common one. A micrograph without foreground is no problem.
    """

    processor: EMImageProcessor
    side: int
    jitter: IntensityJitter

    def prepare(self, image: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any, list[np.ndarray]]:
        """Return micrograph, class map, statistics and the places of each class."""
        return image, truth, self.processor.statistics(image), _places(truth)

    def crop(self, prepared: Any, key: Key) -> dict[str, Tensor]:
        """Cut the crop that the key (seed, epoch, index) decides."""
        image, mask, statistics, places = prepared
        rng = np.random.default_rng(key)
        height, width = mask.shape
        if places and rng.random() < CLASS_CENTRED:
            positions = places[int(rng.integers(len(places)))]
            row, column = divmod(int(rng.choice(positions)), width)
        else:
            row, column = int(rng.integers(height)), int(rng.integers(width))
        corner = _corner(row, self.side, height), _corner(column, self.side, width)
        symmetry = int(rng.integers(8))
        factor, summand = self.jitter.draw(rng)
        values = self.processor.normalize(cut(image, *corner, self.side), statistics)
        classes = dihedral(cut(mask, *corner, self.side), symmetry).astype(np.int64)
        return {
            "pixel_values": torch.from_numpy(dihedral(values, symmetry) * factor + summand)[None],
            "labels": torch.from_numpy(classes),
        }


@dataclass(frozen=True)
class PairCropper:
    """Crops of micrographs with their targets, both scaled by the statistics of the micrograph.

    So a network's output means the same as its input, and the micrograph's own statistics turn it into its units.
    """

    processor: EMImageProcessor
    side: int
    jitter: IntensityJitter
    scale: int
    units: tuple[float, float]

    def prepare(self, image: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, IntensityStatistics]:
        """Return micrograph, target and the micrograph's statistics."""
        return image, truth, self.processor.statistics(image)

    def crop(self, prepared: Any, key: Key) -> dict[str, Tensor]:
        """Cut the crop that the key (seed, epoch, index) decides."""
        image, target, statistics = prepared
        rng = np.random.default_rng(key)
        side = self.side // self.scale
        top, left = (int(rng.integers(max(1, length - side + 1))) for length in image.shape)
        symmetry = int(rng.integers(8))
        factor, summand = self.jitter.draw(rng)
        values = self.processor.normalize(cut(image, top, left, side), statistics)
        gain, offset = self.units
        wanted = gain * cut(target, top * self.scale, left * self.scale, self.side).astype(np.float64) + offset
        wanted = ((wanted - statistics.offset) / statistics.scale).astype(np.float32)
        return {
            "pixel_values": torch.from_numpy(dihedral(values, symmetry) * factor + summand)[None],
            "labels": torch.from_numpy(dihedral(wanted, symmetry) * factor + summand)[None],
        }


@dataclass(frozen=True)
class DegradingCropper:
    """Crops of clean micrographs, each damaged anew; scaled as the whole damaged micrograph would be."""

    processor: EMImageProcessor
    side: int
    jitter: IntensityJitter
    degradation: Degradation

    def prepare(self, image: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, IntensityStatistics, np.ndarray]:
        """Return the clean micrograph, its statistics, and a mosaic of it in network values."""
        statistics = self.processor.statistics(image)
        sample = mosaic(image)
        height, width = (length // self.degradation.scale * self.degradation.scale for length in sample.shape)
        return image, statistics, self.processor.normalize(sample[:height, :width], statistics)

    def crop(self, prepared: Any, key: Key) -> dict[str, Tensor]:
        """Cut the crop that the key (seed, epoch, index) decides."""
        image, statistics, sample = prepared
        rng = np.random.default_rng(key)
        top, left = (int(rng.integers(max(1, length - self.side + 1))) for length in image.shape)
        clean = self.processor.normalize(cut(image, top, left, self.side), statistics)
        clean = dihedral(clean, int(rng.integers(8)))
        factor, summand = self.jitter.draw(rng)
        damaged = self.degradation(clean, *key[1:])
        # a model meets a damaged micrograph scaled by its own percentiles, which noise moves apart
        measured = self.processor.statistics(self.degradation(sample, *key[1:]))
        limit = np.float32(self.processor.clip)
        values, wanted = ((part - measured.offset) / measured.scale for part in (damaged, clean))
        return {
            "pixel_values": torch.from_numpy(np.clip(values, -limit, limit).astype(np.float32) * factor + summand)[
                None
            ],
            "labels": torch.from_numpy(wanted.astype(np.float32) * factor + summand)[None],
        }


def _corner(centre: int, side: int, length: int) -> int:
    return int(np.clip(centre - side // 2, 0, max(0, length - side)))


def _places(mask: np.ndarray, most: int = 10_000) -> list[np.ndarray]:
    """Return flat positions of each class; of large classes a sample, which is as good."""
    rng = np.random.default_rng(0)
    flat = mask.ravel()
    places = []
    for value in np.unique(flat):
        if value != IGNORED:
            positions = np.flatnonzero(flat == value)
            places.append(rng.choice(positions, most, replace=False) if len(positions) > most else positions)
    return places
