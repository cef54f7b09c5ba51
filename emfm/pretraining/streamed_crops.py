"""Crops for pretraining from a stream of micrographs; items are as in `emfm.pretraining.crops`."""

import logging
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from emfm.data.hub_images import ImageStream
from emfm.data.unlabelled import InMemory
from emfm.errors import EMError
from emfm.pretraining.crops import random_crop
from emfm.processing import EMImageProcessor

logger = logging.getLogger(__name__)
HOLD_OUT = 20  # one in so many micrographs is kept out of training, for the validation figures
STREAM_VALIDATION = 32  # a stream is read through until so many held-out micrographs are found
SHUFFLE_BUFFER = 1000
READ_BATCH = 16


def is_held_out(sample: dict[str, Any] | None) -> bool:
    """Tell whether a streamed micrograph belongs to validation: its bytes decide, not its place."""
    content = (sample["bytes"] or (sample["path"] or "").encode()) if sample else b""
    return bool(content) and zlib.crc32(content) % HOLD_OUT == 0


@dataclass(eq=False)
class StreamedCrops(IterableDataset):
    """Endless crops from a stream, one of each micrograph an epoch.

    A consumer is a data worker of a process; no two see the same micrograph in an epoch. Its
    position is (epoch, samples read), which is found again by reading on to it without decoding.
    """

    stream: ImageStream  # undecoded
    processor: EMImageProcessor  # scales each micrograph by its own statistics
    side: int  # of a crop in pixels
    seed: int  # decides order and crops
    process: tuple[int, int] = (0, 1)  # index and number of processes
    starts: Sequence[tuple[int, int]] = ((0, 0),)  # the position at which each data worker goes on
    turn: int = 0  # which worker's batch comes first

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        from datasets.distributed import split_dataset_by_node

        info = get_worker_info()
        workers, worker = (info.num_workers, info.id) if info else (1, 0)
        worker = (worker + self.turn) % workers
        rank, processes = self.process
        consumer, consumers = rank * workers + worker, processes * workers
        rows = self.stream.rows.shuffle(seed=self.seed, buffer_size=SHUFFLE_BUFFER, max_buffer_input_shards=1)
        share = split_dataset_by_node(rows, rank=consumer, world_size=consumers)
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
                    f"the stream has no micrograph to train on for data worker {consumer + 1} of "
                    f"{consumers}: use fewer processes or workers, or leave --streaming out"
                )
            skipped = 0

    def _crop(self, sample: dict[str, Any] | None, epoch: int, index: int) -> dict[str, Tensor] | None:
        if is_held_out(sample):
            return None
        try:
            image = self.stream.decode(sample, f"sample {index} of epoch {epoch}").array
            statistics = self.processor.statistics(image)
            return random_crop(image, statistics, self.processor, self.side, (self.seed, epoch, index))
        except EMError as error:
            logger.warning("left out: %s", error)
            return None


def read_samples(stream: Any) -> Iterator[dict[str, Any] | None]:
    """Yield all undecoded images of a stream; plain iteration would share them among workers."""
    for batch in stream.iter(batch_size=READ_BATCH):
        yield from batch["image"]


def held_out_of_stream(stream: ImageStream, processor: EMImageProcessor) -> InMemory:
    """Read a stream until enough micrographs to validate on are found; none is an EMError."""
    images = []
    for number, sample in enumerate(read_samples(stream.rows)):
        if is_held_out(sample):
            try:
                images.append(stream.decode(sample, f"row {number}").array)
            except EMError as error:
                logger.warning("left out of validation: %s", error)
        if len(images) == STREAM_VALIDATION:
            break
    if not images:
        raise EMError(
            f"the stream of {stream.name} is too small to keep one in {HOLD_OUT} micrographs for "
            "validation: leave --streaming out"
        )
    return InMemory(images, processor)
