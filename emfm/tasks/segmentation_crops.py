"""Training crops of micrographs with class maps: rare classes are seen as often as common ones."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emfm.data.croppers import IntensityJitter, Key
from emfm.data.examples import IGNORED
from emfm.data.patches import cut, dihedral
from emfm.processing import EMImageProcessor, IntensityStatistics

# How often a crop is placed on a class drawn at random instead of anywhere in the micrograph.
CLASS_CENTRED = 0.5
# Places of a class that are kept: a sample of a large one is as good.
MOST_PLACES = 10_000
# A micrograph (H, W), its class map, its statistics, and flat positions of each class.
PreparedMask = tuple[np.ndarray, np.ndarray, IntensityStatistics, list[np.ndarray]]


@dataclass(frozen=True)
class SegmentationCropper:
    """Cuts crops with class maps.

    Half of the crops lie anywhere; the others are centred on a pixel of a class drawn at random among those in the
    micrograph, so that a rare class is seen as often as a common one. A micrograph without foreground is no problem.

    Args:
        processor: measures and scales.
        side: of a crop in pixels.
        jitter: of its intensities.
    """

    processor: EMImageProcessor
    side: int
    jitter: IntensityJitter

    def prepare(self, image: np.ndarray, truth: np.ndarray) -> PreparedMask:
        """Measure a micrograph and find the places of its classes."""
        return image, truth, self.processor.statistics(image), _places(truth)

    def crop(self, prepared: PreparedMask, key: Key) -> dict[str, Tensor]:
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
        change = self.jitter.draw(rng)
        values = self.processor.normalize(cut(image, *corner, self.side), statistics)
        classes = dihedral(cut(mask, *corner, self.side), symmetry).astype(np.int64)
        return {
            "pixel_values": torch.from_numpy(change(dihedral(values, symmetry)))[None],
            "labels": torch.from_numpy(classes),
        }


def _corner(centre: int, side: int, length: int) -> int:
    return int(np.clip(centre - side // 2, 0, max(0, length - side)))


def _places(mask: np.ndarray) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    flat = mask.ravel()
    places = []
    for value in np.unique(flat):
        if value == IGNORED:
            continue
        positions = np.flatnonzero(flat == value)
        if len(positions) > MOST_PLACES:
            positions = rng.choice(positions, MOST_PLACES, replace=False)
        places.append(positions)
    return places
