"""Crops of unlabelled micrographs for pretraining: by index, or from a stream; each decided by (seed, epoch, index).

An item is `clean` (1, side, side), float32 network values, and `key`, its epoch and its index within the epoch, int64.
"""

import logging
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from emfm.data.hub_images import ImageStream, decode
from emfm.data.patches import cut, dihedral
from emfm.data.unlabelled import InMemory, Micrographs
from emfm.errors import EMError
from emfm.processing import EMImageProcessor, IntensityStatistics

logger = logging.getLogger(__name__)
# One in so many micrographs is kept out of training, for the validation figures.
HOLD_OUT = 20
# A stream is read through for so many held-out micrographs.
STREAM_VALIDATION = 32
SHUFFLE_BUFFER = 1000
READ_BATCH = 16


def random_crop(
    image: np.ndarray,
    statistics: IntensityStatistics,
    processor: EMImageProcessor,
    side: int,
    key: tuple[int, int, int],
) -> dict[str, Tensor]:
    """Return the crop of a micrograph that `key` (seed, epoch, index) decides: place, flip and rotation."""
    rng = np.random.default_rng(key)
    top, left = (int(rng.integers(max(1, length - side + 1))) for length in image.shape)
    crop = processor.normalize(cut(image, top, left, side), statistics)
    clean = dihedral(crop, int(rng.integers(8)))
    return {"clean": torch.from_numpy(clean)[None], "key": torch.tensor(key[1:])}


@dataclass(frozen=True)
class EpochOrder:
    """Which micrograph each crop of an epoch comes from: a shuffled round through every source.

    Args:
        groups: the indices of each source's micrographs.
        draws: how many crops of each source an epoch holds; a source goes on where it stopped, so that its
            micrographs are all seen before one is seen again.
        seed: with the epoch it decides the order.
    """

    groups: tuple[np.ndarray, ...]
    draws: tuple[int, ...]
    seed: int

    @classmethod
    def weighted(cls, groups: Sequence[np.ndarray], weights: Sequence[float] | None, seed: int) -> "EpochOrder":
        """Return the order in which an epoch holds as many crops as there are micrographs, shared out by weight.

        Args:
            groups: the indices of each source's micrographs.
            weights: one positive number per source; None for every micrograph once.
            seed: with the epoch it decides the order.
        """
        total = sum(len(group) for group in groups)
        shares = [len(group) for group in groups] if weights is None else weights
        draws = tuple(max(1, round(total * share / sum(shares))) for share in shares)
        return cls(tuple(groups), draws, seed)

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


class UnlabelledCrops(Dataset):
    """`count` crops by index, over as many epochs as that takes.

    Args:
        micrographs: where they come from.
        processor: scales them.
        side: of a crop in pixels.
        count: how many crops there are.
        order: of the micrographs within an epoch; its seed decides the crops, too.
    """

    def __init__(self, micrographs: Micrographs, processor: EMImageProcessor, side: int, count: int, order: EpochOrder):
        self.micrographs, self.processor, self.order = micrographs, processor, order
        self.side, self.count = side, count
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


def is_held_out(sample: dict[str, Any] | None) -> bool:
    """Tell whether a streamed micrograph belongs to validation: its bytes decide, whatever place it comes at."""
    content = (sample["bytes"] or (sample["path"] or "").encode()) if sample else b""
    return bool(content) and zlib.crc32(content) % HOLD_OUT == 0


class StreamedCrops(IterableDataset):
    """Endless crops from a stream, one of each micrograph an epoch; no two consumers see the same one in an epoch.

    A consumer is a data worker of a process. Its position is (epoch, samples read); it is found again by reading on to
    it without decoding.

    Args:
        stream: undecoded.
        processor: scales each micrograph by its own statistics.
        side: of a crop in pixels.
        seed: decides order and crops.
        process: index and number of processes.
        starts: the position at which each data worker goes on.
        turn: which worker's batch comes first.
    """

    def __init__(
        self,
        stream: ImageStream,
        processor: EMImageProcessor,
        side: int,
        seed: int,
        process: tuple[int, int] = (0, 1),
        starts: Sequence[tuple[int, int]] = ((0, 0),),
        turn: int = 0,
    ):
        self.name = stream.name
        self.stream = stream.rows.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER, max_buffer_input_shards=1)
        self.processor, self.side, self.seed = processor, side, seed
        self.process, self.starts, self.turn = process, starts, turn

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        from datasets.distributed import split_dataset_by_node

        info = get_worker_info()
        workers, worker = (info.num_workers, info.id) if info else (1, 0)
        worker = (worker + self.turn) % workers
        rank, processes = self.process
        consumer, consumers = rank * workers + worker, processes * workers
        share = split_dataset_by_node(self.stream, rank=consumer, world_size=consumers)
        first, skipped = self.starts[worker]
        for epoch in count(first):
            share.set_epoch(epoch)
            found = skipped > 0
            for number, sample in enumerate(read_samples(share)):
                if number < skipped:
                    continue
                crop = self._crop(sample, epoch, number * consumers + consumer)
                if crop is not None:
                    found = True
                    yield crop
            if not found:
                raise EMError(
                    f"the stream has no micrograph to train on for data worker {consumer + 1} of {consumers}: use "
                    "fewer processes or workers, or leave --streaming out"
                )
            skipped = 0

    def _crop(self, sample: dict[str, Any] | None, epoch: int, index: int) -> dict[str, Tensor] | None:
        if is_held_out(sample):
            return None
        try:
            image = decode(sample, f"{self.name}, sample {index} of epoch {epoch}").array
            return random_crop(
                image, self.processor.statistics(image), self.processor, self.side, (self.seed, epoch, index)
            )
        except EMError as error:
            logger.warning("left out: %s", error)
            return None


def read_samples(stream: Any) -> Iterator[dict[str, Any] | None]:
    """Yield the undecoded images of a stream, all of them: `iter` leaves the sharing between data workers to us."""
    for batch in stream.iter(batch_size=READ_BATCH):
        yield from batch["image"]


def held_out_of_stream(stream: ImageStream, processor: EMImageProcessor) -> InMemory:
    """Read a stream from its start until enough micrographs for validation are found.

    Raises:
        EMError: it holds none.
    """
    images = []
    for number, sample in enumerate(read_samples(stream.rows)):
        if is_held_out(sample):
            try:
                images.append(decode(sample, f"{stream.name}, row {number}").array)
            except EMError as error:
                logger.warning("left out of validation: %s", error)
        if len(images) == STREAM_VALIDATION:
            break
    if not images:
        raise EMError(
            f"the stream of {stream.name} is too small to keep one in {HOLD_OUT} micrographs for validation: leave "
            "--streaming out"
        )
    return InMemory(images, processor)
