"""Crops for pretraining by index: of unlabelled micrographs, and of simulated structures.

An item of a micrograph is `clean` (1, side, side), float32 network values, and `key`, its epoch
and its index within the epoch, int64. The seed and the key decide it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from torch import Tensor
from torch.utils.data import Dataset

from emfm.data.croppers import cut, dihedral, random_corner
from emfm.data.unlabelled import Micrographs
from emfm.processing import EMImageProcessor, IntensityStatistics
from emfm.simulate.structures import simulate_structures

# With the seed it decides the structures, so that none is drawn by the seed of anything else.
STRUCTURES = 0x57


def random_crop(
    image: np.ndarray,
    statistics: IntensityStatistics,
    processor: EMImageProcessor,
    side: int,
    key: tuple[int, int, int],
) -> dict[str, Tensor]:
    """Return a crop; `key` (seed, epoch, index) decides its place, flip and rotation."""
    rng = np.random.default_rng(key)
    top, left = random_corner(rng, image, side)
    crop = processor.normalize(cut(image, top, left, side), statistics)
    clean = dihedral(crop, int(rng.integers(8)))
    return {"clean": torch.from_numpy(clean)[None], "key": torch.tensor(key[1:])}


class EpochOrder:
    """Which micrograph each crop of an epoch comes from: a shuffled round through every source.

    An epoch holds as many crops as there are micrographs, shared out by weight. A source goes on
    where it stopped: all its micrographs are seen before one is seen again.

    Args:
        groups: the indices of each source's micrographs.
        weights: one positive number per source; None for every micrograph once.
        seed: with the epoch it decides the order.
    """

    def __init__(self, groups: Sequence[np.ndarray], weights: Sequence[float] | None, seed: int):
        self.groups, self.seed = groups, seed
        total = sum(len(group) for group in groups)
        shares = [len(group) for group in groups] if weights is None else weights
        self.draws = [max(1, round(total * share / sum(shares))) for share in shares]

    def __len__(self) -> int:
        return sum(self.draws)

    def __call__(self, epoch: int) -> np.ndarray:
        """Return the micrographs' indices in the order of the epoch."""
        chosen = []
        for source, (group, draws) in enumerate(zip(self.groups, self.draws, strict=True)):
            first = epoch * draws
            rounds = range(first // len(group), (first + draws - 1) // len(group) + 1)
            pool = [np.random.default_rng((self.seed, source, turn)).permutation(group) for turn in rounds]
            start = first - rounds.start * len(group)
            chosen.append(np.concatenate(pool)[start : start + draws])
        return np.random.default_rng((self.seed, epoch)).permutation(np.concatenate(chosen))


@dataclass(eq=False)
class UnlabelledCrops(Dataset):
    """`count` crops by index, over as many epochs as that takes."""

    micrographs: Micrographs
    processor: EMImageProcessor
    side: int  # in pixels
    count: int
    order: EpochOrder  # of the micrographs within an epoch; its seed decides the crops, too

    def __post_init__(self):
        self._epoch, self._drawn = -1, np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < self.count:
            raise IndexError(f"crop {index} of {self.count}")
        epoch, position = divmod(index, len(self.order))
        if epoch != self._epoch:
            self._epoch, self._drawn = epoch, self.order(epoch)
        image, statistics = self.micrographs[int(self._drawn[position])]
        return random_crop(image, statistics, self.processor, self.side, (self.order.seed, epoch, position))


@dataclass(eq=False)
class StructureCrops(Dataset):
    """`count` crops of simulated structures (1, side, side), with their `regions` (2, side, side).

    The first channel of the regions is every class at its mean in the image, scaled to mean 0 and
    a standard deviation of about 1. The second is 1 on the boundaries between classes, three to
    four pixels wide, and 0 elsewhere.
    """

    processor: EMImageProcessor  # scales each crop as if it were a micrograph
    side: int  # in pixels
    count: int
    seed: int  # with the index it decides the crop

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < self.count:
            raise IndexError(f"crop {index} of {self.count}")
        simulated = simulate_structures((self.side, self.side), (self.seed, STRUCTURES, index))
        image = self.processor.normalize(simulated.image, self.processor.statistics(simulated.image))
        regions = np.stack([flattened(image, simulated.mask), boundaries(simulated.mask)])
        return {"structures": torch.from_numpy(image)[None], "regions": torch.from_numpy(regions)}


def flattened(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the image (H, W) with every class at its mean, scaled to mean 0 and deviation 1."""
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
