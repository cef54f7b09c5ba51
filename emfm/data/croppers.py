"""How a crop is cut from a micrograph and its truth: place, symmetry, intensities; by a key.

A cropper measures a micrograph once (`prepare`), then cuts any number of crops (`crop`). A crop is
`pixel_values` (1, h, w) and `labels`: classes (h, w) int64 or a target (1, H, W), both float32.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from emfm.data.augmentation import Augmentation, Coordinates, IntensityChange
from emfm.data.examples import Examples
from emfm.data.restoration_pairs import Degradation, mosaic
from emfm.data.streamed_examples import StreamedExamples
from emfm.no_data import naming, no_data
from emfm.processing import EMImageProcessor, IntensityStatistics

Key = tuple[int, int, int]  # seed, epoch, index
# A crop of which less than this share holds data is drawn again, so often at most.
LEAST_KNOWN, DRAWS = 0.5, 16


def dihedral(array: np.ndarray, symmetry: int) -> np.ndarray:
    """Turn or mirror an array (..., H, W) by one of the square's symmetries, 0 (none) to 7."""
    rotated = np.rot90(array, symmetry % 4, axes=(-2, -1))
    return (rotated[..., ::-1] if symmetry >= 4 else rotated).copy()  # never a view


def cut(array: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
    """Return a (side, side) crop; a smaller micrograph is mirrored at bottom and right."""
    crop = array[top : top + side, left : left + side]
    missing = side - crop.shape[0], side - crop.shape[1]
    return np.pad(crop, ((0, missing[0]), (0, missing[1])), mode="symmetric") if any(missing) else crop


def random_corner(rng: np.random.Generator, image: np.ndarray, side: int) -> tuple[int, int]:
    """Return row and column of a crop of which most holds data; among several draws the best."""
    best, most = (0, 0), -1.0
    for _ in range(DRAWS):
        top, left = (int(rng.integers(max(1, length - side + 1))) for length in image.shape)
        missing = no_data(image[top : top + side, left : left + side])
        known = 1.0 if missing is None else 1 - float(missing.mean())
        if known > most:
            best, most = (top, left), known
        if known >= LEAST_KNOWN:
            break
    return best


def part_around(array: np.ndarray, view: Coordinates) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of a micrograph (H, W) that a view looks at, and its corner (2, 1, 1)."""
    low = np.floor(view.min(axis=(1, 2))).astype(int) - 1
    high = np.ceil(view.max(axis=(1, 2))).astype(int) + 2
    size = np.array(array.shape)
    # what is mirrored at an edge lies as far inside as the view looks outside
    first = np.clip(np.minimum(low, 2 * size - high - 2), 0, None)
    last = np.clip(np.maximum(high, 2 - low), None, size)
    return np.asarray(array[first[0] : last[0], first[1] : last[1]]), first.reshape(2, 1, 1)


class Cropper(Protocol):
    """Cuts crops from one kind of example."""

    def prepare(self, image: np.ndarray, truth: np.ndarray) -> Any:
        """Measure a micrograph and its truth once."""

    def crop(self, prepared: Any, key: Key) -> dict[str, Tensor]:
        """Cut the crop that the key (seed, epoch, index) decides."""


@dataclass(frozen=True)
class PairCropper:
    """Crops of micrographs with their targets, both scaled by the statistics of the micrograph.

    Output and input of a network mean the same, and the micrograph's statistics give its units.
    """

    processor: EMImageProcessor
    side: int  # of a crop's target in pixels; a multiple of the scale
    augmentation: Augmentation
    scale: int = 1  # target pixels per image pixel and axis
    units: tuple[float, float] = (1.0, 0.0)  # gain and offset from targets' units to the images'

    def prepare(self, image: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, IntensityStatistics]:
        """Return a micrograph, its target, and the micrograph's statistics."""
        return image, truth, self.processor.statistics(image)

    def crop(self, prepared: tuple[np.ndarray, np.ndarray, IntensityStatistics], key: Key) -> dict[str, Tensor]:
        """Cut the crop that the key (seed, epoch, index) decides."""
        image, target, statistics = prepared
        rng = np.random.default_rng(key)
        side = self.side // self.scale
        top, left = random_corner(rng, image, side)
        symmetry = int(rng.integers(8))
        change = self.augmentation.draw(rng)
        values = self.processor.normalize(cut(image, top, left, side), statistics)
        wanted = cut(target, top * self.scale, left * self.scale, self.side)
        labels = self.labels(wanted, statistics, change)
        return _as_tensors(change(dihedral(values, symmetry)), dihedral(labels, symmetry))

    def labels(self, target: np.ndarray, statistics: IntensityStatistics, change: IntensityChange) -> np.ndarray:
        """Return what the network shall put out for a target's crop: network values (H, W)."""
        gain, offset = self.units
        wanted = gain * target.astype(np.float64) + offset
        return change(((wanted - statistics.offset) / statistics.scale).astype(np.float32))


@dataclass(frozen=True)
class DegradingCropper:
    """Crops of clean micrographs, each damaged anew; scaled like the whole damaged micrograph."""

    processor: EMImageProcessor
    side: int  # of a clean crop in pixels; a multiple of the degradation's scale
    augmentation: Augmentation
    degradation: Degradation

    def prepare(self, image: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, IntensityStatistics, np.ndarray]:
        """Return a clean micrograph, its statistics, and a mosaic of it in network values."""
        statistics = self.processor.statistics(image)
        sample = mosaic(image)
        height, width = (length // self.degradation.scale * self.degradation.scale for length in sample.shape)
        return image, statistics, self.processor.normalize(sample[:height, :width], statistics)

    def crop(self, prepared: tuple[np.ndarray, IntensityStatistics, np.ndarray], key: Key) -> dict[str, Tensor]:
        """Cut the crop that the key (seed, epoch, index) decides."""
        image, statistics, sample = prepared
        rng = np.random.default_rng(key)
        top, left = random_corner(rng, image, self.side)
        part = cut(image, top, left, self.side)
        missing, symmetry = no_data(part), int(rng.integers(8))
        clean = dihedral(self.processor.normalize(part, statistics), symmetry)
        change = self.augmentation.draw(rng)
        damaged = self.degradation(clean, *key[1:])
        # a model meets a damaged micrograph scaled by its own percentiles, which noise moves apart
        measured = self.processor.statistics(self.degradation(sample, *key[1:]))
        limit = np.float32(self.processor.clip)
        values, wanted = ((part - measured.offset) / measured.scale for part in (damaged, clean))
        values = np.clip(values, -limit, limit).astype(np.float32)
        if missing is not None:  # of what has no data nothing is learnt
            wanted = np.where(dihedral(missing, symmetry), np.nan, wanted)
        return _as_tensors(change(values), change(wanted.astype(np.float32)))


def _as_tensors(values: np.ndarray, labels: np.ndarray) -> dict[str, Tensor]:
    return {"pixel_values": torch.from_numpy(values)[None], "labels": torch.from_numpy(labels)[None]}


class TrainingCrops(Dataset):
    """`count` crops by index, over as many rounds through the micrographs as that takes.

    The crop of an index is the same in any process and order: the seed, the round (epoch) and the
    place in it decide micrograph and crop.
    """

    def __init__(self, data: Examples, cropper: Cropper, count: int, seed: int):
        self.cropper, self.count, self.seed = cropper, count, seed
        self._prepared = []
        for index, image in enumerate(data.images):
            with naming(data.names[index]):
                self._prepared.append(cropper.prepare(image, data.truth(index)))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < self.count:
            raise IndexError(f"crop {index} of {self.count}")
        epoch, position = divmod(index, len(self._prepared))
        # each micrograph once per round, in an order drawn anew for every round
        order = np.random.default_rng((self.seed, epoch, len(self._prepared))).permutation(len(self._prepared))
        return self.cropper.crop(self._prepared[int(order[position])], (self.seed, epoch, position))


class StreamedTrainingCrops(IterableDataset):
    """Endless crops from a stream, one of each micrograph an epoch.

    No two processes or data workers see the same micrograph in an epoch. The seed decides order
    and crops; `process` holds index and number of processes.
    """

    def __init__(self, data: StreamedExamples, cropper: Cropper, seed: int, process: tuple[int, int] = (0, 1)):
        self.data, self.cropper, self.seed, self.process = data, cropper, seed, process

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        info = get_worker_info()
        workers, worker = (info.num_workers, info.id) if info else (1, 0)
        rank, processes = self.process
        consumer, consumers = rank * workers + worker, processes * workers
        for epoch, number, (image, truth) in self.data.epochs(self.seed, consumer, consumers):
            yield self.cropper.crop(self.cropper.prepare(image, truth), (self.seed, epoch, number))
