"""Training crops of micrographs whose objects are told apart."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emfm.data.augmentation import Augmentation, sample, sample_nearest
from emfm.data.croppers import Key, cut, dihedral, part_around, random_corner
from emfm.data.objects import object_map
from emfm.processing import EMImageProcessor, IntensityStatistics

# How often a crop is centred on a pixel of an object.
OBJECT_CENTRED = 0.7
MOST_PLACES = 10_000
# A micrograph (H, W), what is learnt of it (1 or 2, H, W), its statistics, and pixels of its
# objects (flat).
PreparedObjects = tuple[np.ndarray, np.ndarray, IntensityStatistics, np.ndarray]


@dataclass(frozen=True)
class ObjectCropper:
    """Cuts crops with object maps, most of them around a pixel of an object.

    Their labels are (1, h, w) float32: what `object_map` makes of the numbers. Where objects have
    classes a second map holds them, negative where there is none; NaN is unknown in both.
    """

    processor: EMImageProcessor
    side: int  # of a crop in pixels
    augmentation: Augmentation
    shrink: int = 1  # so many times the network sees micrographs scaled down

    def prepare(self, image: np.ndarray, truth: np.ndarray) -> PreparedObjects:
        """Measure a micrograph and its objects, whose numbers may have classes beside them."""
        ids, *classes = truth if truth.ndim == 3 else truth[None]
        target = np.stack([object_map(ids, self.shrink), *classes]).astype(np.float32)
        places = np.flatnonzero(target[0] > 0)
        if len(places) > MOST_PLACES:
            places = np.random.default_rng(0).choice(places, MOST_PLACES, replace=False)
        return image, target, self.processor.statistics(image), places

    def crop(self, prepared: PreparedObjects, key: Key) -> dict[str, Tensor]:
        """Cut the crop that the key (seed, epoch, index) decides."""
        image, target, statistics, places = prepared
        rng = np.random.default_rng(key)
        if len(places) and rng.random() < OBJECT_CENTRED:
            middle = np.array(divmod(int(rng.choice(places)), image.shape[1])) - self.side // 2
            room = np.maximum(0, np.array(image.shape) - self.side)
            top, left = (int(place) for place in np.clip(middle, 0, room))
        else:
            top, left = random_corner(rng, image, self.side)
        symmetry = int(rng.integers(8))
        change = self.augmentation.draw(rng)
        values, labels = self._cut(rng, image, target, (top, left))
        values = dihedral(self.processor.normalize(values, statistics), symmetry)
        return {
            "pixel_values": torch.from_numpy(change(self.augmentation.degrade(rng, values)))[None],
            "labels": torch.from_numpy(dihedral(labels, symmetry).astype(np.float32)),
        }

    def _cut(
        self, rng: np.random.Generator, image: np.ndarray, target: np.ndarray, corner: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return values (h, w) and labels (C, h, w) of a crop, varied at random."""
        view = self.augmentation.view(rng, (corner[0] + self.side // 2, corner[1] + self.side // 2), self.side)
        if view is None:
            return cut(image, *corner, self.side), np.stack([cut(layer, *corner, self.side) for layer in target])
        part, first = part_around(image, view)
        values = sample(part, view - first)
        labels = np.stack([sample_nearest(part_around(layer, view)[0], view - first) for layer in target])
        return values, np.where(np.isnan(values), np.float32(np.nan), labels)
