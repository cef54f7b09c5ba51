"""Crops of simulated structures with what pretraining learns from them: flat regions and their boundaries."""

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from torch import Tensor
from torch.utils.data import Dataset

from emfm.processing import EMImageProcessor
from emfm.simulate.structures import simulate_structures

# So that no crop is drawn by the seed of anything else.
STREAM = 0x57


class StructureCrops(Dataset):
    """`count` crops by index: `structures` (1, side, side), network values, and `regions` (2, side, side).

    The first of the regions' channels is every class at its mean in the image, scaled to mean 0 and a standard
    deviation of about 1; the second is 1 on the boundaries between classes, three to four pixels wide, else 0.

    Args:
        processor: scales each crop as if it were a micrograph.
        side: in pixels.
        count: how many crops there are.
        seed: with the index it decides the crop.
    """

    def __init__(self, processor: EMImageProcessor, side: int, count: int, seed: int):
        self.processor, self.side, self.count, self.seed = processor, side, count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < self.count:
            raise IndexError(f"crop {index} of {self.count}")
        simulated = simulate_structures((self.side, self.side), (self.seed, STREAM, index))
        image = self.processor.normalize(simulated.image, self.processor.statistics(simulated.image))
        regions = np.stack([flattened(image, simulated.mask), boundaries(simulated.mask)])
        return {"structures": torch.from_numpy(image)[None], "regions": torch.from_numpy(regions)}


def flattened(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the image (H, W) with every class at its mean, scaled to mean 0 and a standard deviation of about 1."""
    sizes = np.bincount(mask.ravel())
    means = np.bincount(mask.ravel(), weights=image.ravel()) / np.maximum(sizes, 1)
    flat = means[mask]
    return ((flat - flat.mean()) / (flat.std() + 0.05)).astype(np.float32)


def boundaries(mask: np.ndarray) -> np.ndarray:
    """Return 1 within two pixels of where the class changes, else 0; (H, W) float32."""
    edge = np.zeros(mask.shape, dtype=bool)
    edge[1:] |= mask[1:] != mask[:-1]
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    return binary_dilation(edge, np.ones((3, 3), dtype=bool)).astype(np.float32)
