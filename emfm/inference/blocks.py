"""A model's blended maps of a micrograph, block by block, while the next tiles are read and computed."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emfm.inference import frozen
from emfm.inference.plan import Plan
from emfm.inference.tiling import Blend
from emfm.io.large_images import release_pages
from emfm.modeling import EMPreTrainedModel
from emfm.processing import IntensityStatistics

Block = tuple[int, int, np.ndarray]  # row and column in the result, and the maps (C, h, w)
Place = tuple[int, int, tuple[int, int], tuple[int, int]]  # row and column of the tile; its rows and columns of pixels


class Blocks:
    """Iterates over the finished blocks of a model's result on one micrograph.

    Tiles are read by one thread and computed by `plan.workers` others, while the caller works on the block before.

    Args:
        model: any.
        image: (H, W); what is read of it at a time is a tile.
        statistics: the intensity statistics of the whole.
        plan: tiles and threads.
        rows: first row of tiles and the one after the last; None for all.
    """

    def __init__(
        self,
        model: EMPreTrainedModel,
        image: Any,
        statistics: IntensityStatistics,
        plan: Plan,
        rows: tuple[int, int] | None = None,
    ):
        self._model, self._image, self._statistics, self._plan = model, image, statistics, plan
        height, width = image.shape
        self._spans = plan.tiling.spans(height), plan.tiling.spans(width)
        self._rows = rows or (0, len(self._spans[0]))
        self.blend = Blend(plan.tiling, height, width, self._rows)

    def __len__(self) -> int:
        return (self._rows[1] - self._rows[0]) * len(self._spans[1])

    def _network(self) -> EMPreTrainedModel:
        """Return the model itself where one pass sees the whole of a small micrograph, else its frozen copy."""
        height, width = self._image.shape
        if self._plan.tiling.count(height, width) == 1 and height * width <= frozen.NORM_PIXELS:
            return self._model
        return frozen.frozen_network(self._model, self._image, self._statistics)

    def _groups(self) -> Iterator[list[Place]]:
        """Yield the tiles that pass through the network together: neighbours of one size."""
        for row in range(*self._rows):
            places = [(row, column, self._spans[0][row], span) for column, span in enumerate(self._spans[1])]
            for _, same in groupby(places, key=lambda place: place[3][1] - place[3][0]):
                alike = list(same)
                for start in range(0, len(alike), self._plan.batch):
                    yield alike[start : start + self._plan.batch]

    def _read(self, group: list[Place]) -> Tensor:
        parts = []
        for _, _, rows, columns in group:
            part = np.asarray(self._image[rows[0] : rows[1], columns[0] : columns[1]])
            parts.append(self._model.processor.normalize(part, self._statistics, (rows[0], columns[0])))
            release_pages(self._image)
        return torch.from_numpy(np.stack(parts)[:, None])  # (B, 1, h, w)

    def __iter__(self) -> Iterator[Block]:
        was_training, threads = self._model.training, torch.get_num_threads()
        self._model.eval()
        workers = self._plan.workers
        share = max(1, threads // workers)
        reading = ThreadPoolExecutor(1)
        computing = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(share,))
        pending: deque[tuple[list[Place], Future[np.ndarray]]] = deque()
        try:
            network = self._network()

            def compute(values: Future[Tensor]) -> np.ndarray:
                return network.maps(values.result().to(network.device)).cpu().numpy()

            for group in self._groups():
                pending.append((group, computing.submit(compute, reading.submit(self._read, group))))
                if len(pending) > workers:
                    yield from self._blended(*pending.popleft())
            while pending:
                yield from self._blended(*pending.popleft())
        finally:
            for pool in (reading, computing):
                pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)  # a number set in a thread is taken over by threads to come
            self._model.train(was_training)

    def _blended(self, group: list[Place], computed: Future[np.ndarray]) -> Iterator[Block]:
        for (row, column, *_), maps in zip(group, computed.result(), strict=True):
            yield self.blend.add(row, column, maps)
