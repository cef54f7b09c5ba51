"""Crops for training, each decided by (seed, index) alone: the same crop in any process, in any order."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from emfm.data.datasets import LabelledMicrographs
from emfm.processing import EMImageProcessor

# How often a labelled crop is placed on a class drawn at random instead of anywhere in the micrograph.
CLASS_CENTRED = 0.5


def dihedral(array: np.ndarray, symmetry: int) -> np.ndarray:
    """Apply one of the eight flips and right-angle rotations of the square to the last two axes.

    Args:
        array: (..., H, W).
        symmetry: 0 to 7; 0 is the identity.
    """
    rotated = np.rot90(array, symmetry % 4, axes=(-2, -1))
    return (rotated[..., ::-1] if symmetry >= 4 else rotated).copy()  # never a view of the micrograph


def cut(array: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
    """Return a (side, side) crop; where the micrograph is smaller it is mirrored at its bottom and right edges."""
    crop = array[top : top + side, left : left + side]
    missing = side - crop.shape[0], side - crop.shape[1]
    return np.pad(crop, ((0, missing[0]), (0, missing[1])), mode="symmetric") if any(missing) else crop


def _corner(centre: int, side: int, length: int) -> int:
    return int(np.clip(centre - side // 2, 0, max(0, length - side)))


class LabelledCrops(Dataset):
    """Crops with class maps for fine-tuning segmentation.

    Half of the crops lie anywhere; the others are centred on a pixel of a class drawn at random among those in the
    micrograph, so that a rare class is seen as often as a common one. A micrograph without foreground is no problem.
    An item is `pixel_values` (1, side, side) float32 and `labels` (side, side) int64.

    Args:
        data: micrographs and masks.
        processor: measures each micrograph once, here.
        side: of a crop in pixels.
        count: how many crops there are.
        seed: with the index it decides micrograph, place and symmetry.
    """

    def __init__(self, data: LabelledMicrographs, processor: EMImageProcessor, side: int, count: int, seed: int):
        self.side, self.count, self.seed = side, count, seed
        self.images = [processor.normalize(image, processor.statistics(image)) for image in data.images]
        self.masks = data.masks
        # flat positions of each class in each micrograph; for large classes a sample is as good
        self.places = [_places(mask, seed) for mask in data.masks]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < self.count:
            raise IndexError(f"crop {index} of {self.count}")
        rng = np.random.default_rng((self.seed, index))
        which = self._shuffled(index)
        height, width = self.masks[which].shape
        if rng.random() < CLASS_CENTRED:
            positions = self.places[which][int(rng.integers(len(self.places[which])))]
            row, column = divmod(int(rng.choice(positions)), width)
        else:
            row, column = int(rng.integers(height)), int(rng.integers(width))
        corner = _corner(row, self.side, height), _corner(column, self.side, width)
        symmetry = int(rng.integers(8))
        image = dihedral(cut(self.images[which], *corner, self.side), symmetry)
        mask = dihedral(cut(self.masks[which], *corner, self.side), symmetry)
        return {"pixel_values": torch.from_numpy(image)[None], "labels": torch.from_numpy(mask)}

    def _shuffled(self, index: int) -> int:
        """Return the micrograph of a crop: each once per round, in an order drawn anew for every round."""
        turn, position = divmod(index, len(self.images))
        return int(np.random.default_rng((self.seed, turn, len(self.images))).permutation(len(self.images))[position])


def _places(mask: np.ndarray, seed: int, most: int = 10_000) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    flat = mask.ravel()
    places = []
    for value in np.unique(flat):
        positions = np.flatnonzero(flat == value)
        places.append(rng.choice(positions, most, replace=False) if len(positions) > most else positions)
    return places
