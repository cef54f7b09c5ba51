"""Micrographs with their truth out of a dataset that is read as it comes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np

from emfm.data.examples import Examples
from emfm.errors import EMError

# Undecoded micrographs that wait to be drawn: their order is random within so many.
SHUFFLE_BUFFER = 200
READ_BATCH = 4


@dataclass(frozen=True)
class StreamedExamples:
    """A stream of micrographs with their truth."""

    stream: Any  # a `datasets.IterableDataset` of undecoded images
    like: Examples  # examples of the same kind that hold nothing yet: classes, scale or degradation
    # decodes some rows, each with its name for errors, into examples of that kind
    examples: Callable[[list[tuple[str, dict[str, Any]]]], Examples]

    def take(self, count: int, seed: int = 0) -> Examples:
        """Read the first `count` micrographs into memory, fewer where the stream ends before.

        The seed is not used: the first micrographs are what can be had without reading the whole stream.

        Raises:
            EMError: the stream is empty, or a micrograph is broken.
        """
        rows = [(f"row {number}", row) for number, row in enumerate(islice(_rows(self.stream), count))]
        if not rows:
            raise EMError("the stream holds no micrograph")
        return self.examples(rows)

    def epochs(
        self, seed: int, consumer: int, consumers: int
    ) -> Iterator[tuple[int, int, tuple[np.ndarray, np.ndarray]]]:
        """Yield (epoch, index in the epoch, (image, truth)) without end, in a new order for every epoch.

        The stream has a share for each of `consumers`; no two shares hold the same micrograph.

        Raises:
            EMError: the share is empty, or a micrograph is broken.
        """
        from datasets.distributed import split_dataset_by_node

        shuffled = self.stream.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER, max_buffer_input_shards=1)
        share = split_dataset_by_node(shuffled, rank=consumer, world_size=consumers)
        for epoch in count():
            share.set_epoch(epoch)
            number = -1
            for number, row in enumerate(_rows(share)):
                index = number * consumers + consumer
                one = self.examples([(f"sample {index} of epoch {epoch}", row)])
                yield epoch, index, (one.images[0], one.truth(0))
            if number < 0:
                raise EMError(
                    f"the stream has no micrograph for data worker {consumer + 1} of {consumers}: use fewer processes "
                    "or workers, or leave --streaming out"
                )


def _rows(stream: Any) -> Iterator[dict[str, Any]]:
    """Yield all rows: plain iteration would share them between data workers once more."""
    for batch in stream.iter(batch_size=READ_BATCH):
        for index in range(len(batch["image"])):
            yield {name: column[index] for name, column in batch.items()}
