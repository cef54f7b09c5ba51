"""Training crops as torch datasets: by index from micrographs in memory, or from a stream of them."""

from collections.abc import Iterator

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from emfm.data.croppers import Cropper
from emfm.data.examples import Examples
from emfm.data.streamed_examples import StreamedExamples


class TrainingCrops(Dataset):
    """`count` crops by index, over as many rounds through the micrographs as that takes.

    The crop of an index is the same in any process and in any order.

    Args:
        data: the micrographs with their truth.
        cropper: measures each micrograph once, here, and cuts.
        count: how many crops there are.
        seed: with the round (epoch) and the place in it, it decides micrograph and crop.
    """

    def __init__(self, data: Examples, cropper: Cropper, count: int, seed: int):
        self.cropper, self.count, self.seed = cropper, count, seed
        self._prepared = [cropper.prepare(image, data.truth(index)) for index, image in enumerate(data.images)]

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

    No two processes or data workers see the same micrograph in an epoch.

    Args:
        data: the stream.
        cropper: measures and cuts.
        seed: decides order and crops.
        process: index and number of processes.
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
