"""A model's blended maps of a micrograph, block by block, while the next tiles are computed.

The network predicts with norms that no longer look at their input. Instance norm takes mean and
variance of each channel over the whole input. Over tiles these would differ from tile to tile, and
so would the results of two tiles at their border. Here they are measured once for the micrograph,
over tiles spread over all of it that pass through the network together, and hold for every tile.
They are folded into the convolutions before them. What remains is a chain of convolutions, for
which an overlap of the reach makes the tiled result equal to that of the whole.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emfm.backbones.norms import InstanceNorm, JointNorm, exchange
from emfm.inference.feature_sums import FeatureSums, watched
from emfm.inference.plan import Plan
from emfm.inference.prepared import in_format, prepared
from emfm.inference.tiling import Blend
from emfm.io.large_images import release_pages
from emfm.modeling import EMPreTrainedModel
from emfm.processing import IntensityStatistics
from emfm.tasks import task_of

Block = tuple[int, int, np.ndarray]  # row and column in the result, and the maps (C, h, w)
Span = tuple[int, int]
Place = tuple[int, int, Span, Span]  # row and column of the tile; its rows and columns of pixels
# Pixels over which instance norm is measured, and the side of the squares that they are taken in.
NORM_PIXELS = 1024 * 1024
NORM_SIDE = 256


class Blocks:
    """Iterates over the finished blocks of a model's result on one micrograph.

    Tiles of the image (H, W) are read by one thread and computed by `plan.workers` others, while
    the caller works on the block before. `rows` are the first row of tiles and one past the last.
    With `symmetries` the maps are the means over the eight symmetries of the square, and over the
    `others`, models of the same kind, in any case. With `doubt`, what that makes of the maps of all
    of them is one map more. Each of `sums`, one for each model, takes in the features it sees. The
    networks compute in `dtype`, by default that of the weights.
    """

    def __init__(
        self,
        model: EMPreTrainedModel,
        image: Any,
        statistics: IntensityStatistics,
        plan: Plan,
        rows: tuple[int, int] | None = None,
        symmetries: bool = False,
        doubt: Callable[[Tensor], Tensor] | None = None,
        dtype: torch.dtype | None = None,
        others: Sequence[EMPreTrainedModel] = (),
        sums: Sequence[FeatureSums | None] = (),
    ):
        self._models, self._sums = [model, *others], sums
        self._model, self._image, self._statistics, self._plan = model, image, statistics, plan
        self._symmetries, self._doubt = range(8) if symmetries else range(1), doubt
        self._dtype = dtype or model.dtype
        height, width = image.shape
        self._spans = plan.tiling.spans(height), plan.tiling.spans(width)
        self._rows = rows or (0, len(self._spans[0]))
        self.blend = Blend(plan.tiling, height, width, self._rows)

    def __len__(self) -> int:
        return (self._rows[1] - self._rows[0]) * len(self._spans[1])

    def _groups(self) -> Iterator[list[Place]]:
        """Yield the tiles that pass through the network together: neighbours of one size."""
        for row in range(*self._rows):
            places = [(row, column, self._spans[0][row], span) for column, span in enumerate(self._spans[1])]
            for _, same in groupby(places, key=lambda place: place[3][1] - place[3][0]):
                alike = list(same)
                for start in range(0, len(alike), self._plan.batch):
                    yield alike[start : start + self._plan.batch]

    def __iter__(self) -> Iterator[Block]:
        was_training, threads = [model.training for model in self._models], torch.get_num_threads()
        for model in self._models:
            model.eval()
        workers = self._plan.workers
        share = max(1, threads // workers)
        reading = ThreadPoolExecutor(1)
        computing = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(share,))
        pending: deque[tuple[list[Place], Future[np.ndarray]]] = deque()
        try:
            members = self._members()

            def compute(values: Future[Tensor]) -> np.ndarray:
                return mean_maps(members, values.result(), self._doubt).cpu().numpy()

            for group in self._groups():
                boxes = [(rows, columns) for _, _, rows, columns in group]
                values = reading.submit(network_values, self._model, self._image, self._statistics, boxes)
                pending.append((group, computing.submit(compute, values)))
                if len(pending) > workers:
                    yield from self._blended(*pending.popleft())
            while pending:
                yield from self._blended(*pending.popleft())
        finally:
            for pool in (reading, computing):
                pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)  # what a thread sets holds for threads to come
            for model, was in zip(self._models, was_training, strict=True):
                model.train(was)

    def _members(self) -> list[list[EMPreTrainedModel]]:
        """Return for each model its network in each symmetry."""
        members = [self._networks(model) for model in self._models]
        for networks, sums in zip(members, self._sums, strict=False):
            if sums is not None:
                networks[0] = watched(networks[0], sums)
        return members

    def _networks(self, model: EMPreTrainedModel) -> list[EMPreTrainedModel]:
        """Return the network for each symmetry; instance norm has its own mean in each."""
        # one pass sees the whole of a small one; numbers of objects hang on the last digit
        tiled = len(self._spans[0]) * len(self._spans[1]) > 1 or np.prod(self._image.shape) > NORM_PIXELS
        alone = not tiled and not task_of(model).separates
        if alone or not any(isinstance(module, InstanceNorm) for module in model.modules()):
            return [prepared(model, self._dtype)] * len(self._symmetries)
        found = [frozen_network(model, self._image, self._statistics, symmetry) for symmetry in self._symmetries]
        return [in_format(network, self._dtype) for network in found]

    def _blended(self, group: list[Place], computed: Future[np.ndarray]) -> Iterator[Block]:
        for (row, column, *_), maps in zip(group, computed.result(), strict=True):
            yield self.blend.add(row, column, maps)


def turned(values: Tensor, symmetry: int) -> Tensor:
    """Return values (..., H, W) in one of the eight symmetries of the square; 0 is as they are."""
    return torch.rot90(values.flip(-1) if symmetry >= 4 else values, symmetry % 4, (-2, -1))


def turned_back(values: Tensor, symmetry: int) -> Tensor:
    """Return what `turned` was given."""
    back = torch.rot90(values, -(symmetry % 4), (-2, -1))
    return back.flip(-1) if symmetry >= 4 else back


def mean_maps(
    members: list[list[EMPreTrainedModel]], values: Tensor, doubt: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Return maps (B, C, H, W) of network values (B, 1, h, w): the mean over models and symmetries.

    Each model has a network for each symmetry; with a single one nothing is turned. `doubt` makes
    the last map of those of all models and symmetries (S, B, C, H, W).
    """
    total: Any = 0
    kept = []
    for networks in members:
        for maps in _maps_of(networks, values):
            total = total + maps
            if doubt is not None:
                kept.append(maps)
    mean = total / sum(map(len, members))
    return mean if doubt is None else torch.cat([mean, doubt(torch.stack(kept))[:, None]], dim=1)


def _maps_of(networks: list[EMPreTrainedModel], values: Tensor) -> Iterator[Tensor]:
    """Yield a model's maps in each symmetry, turned back."""
    first = networks[0]
    values = values.to(first.device)
    if len(networks) == 1:
        yield first.maps(values)
        return
    padded = first.padded(values)  # first, so that every symmetry pools the same pixels
    height, width = (side * first.scale for side in values.shape[-2:])
    for symmetry, network in enumerate(networks):
        maps = network.maps(turned(padded, symmetry).contiguous())
        yield turned_back(maps, symmetry)[..., :height, :width]


def frozen_network(
    model: EMPreTrainedModel, image: Any, statistics: IntensityStatistics, symmetry: int = 0
) -> EMPreTrainedModel:
    """Return a copy of a model that maps every pixel of an image (H, W) by its surroundings alone.

    The model is in evaluation mode. Only instance norm is measured over the micrograph, which is
    turned into a symmetry of the square (0: as it is), as the network will see it.
    """
    network = copy.deepcopy(model).float()
    network.__dict__.pop("forward", None)  # a trainer's wrapper would call the copied model
    torch.nn.Module.to(network, memory_format=torch.channels_last)
    if exchange(network, InstanceNorm, JointNorm):
        height, width = image.shape
        boxes = [((0, height), (0, width))]
        if height * width > NORM_PIXELS:  # squares spread evenly over the micrograph
            size = min(NORM_SIDE, height), min(NORM_SIDE, width)
            corners = spread((height, width), size, NORM_PIXELS // (size[0] * size[1]), model.stride)
            boxes = [((row, row + size[0]), (column, column + size[1])) for row, column in corners]
        with torch.no_grad():
            values = turned(network_values(model, image, statistics, boxes), symmetry).contiguous()
            network(values.to(model.device))
        network.eval()
    network.trunk.fold()
    return network


def network_values(
    model: EMPreTrainedModel, image: Any, statistics: IntensityStatistics, boxes: list[tuple[Span, Span]]
) -> Tensor:
    """Return network values (B, 1, h, w) of boxes of one size, their rows and columns."""
    parts = []
    for (top, bottom), (left, right) in boxes:
        part = np.asarray(image[top:bottom, left:right])
        parts.append(model.processor.normalize(part, statistics, (top, left)))
        release_pages(image)
    return torch.from_numpy(np.stack(parts)[:, None])


def spread(shape: tuple[int, int], size: tuple[int, int], count: int, align: int) -> list[tuple[int, int]]:
    """Return corners of at most `count` rectangles on an even, nearly square-meshed grid."""
    room = [max(1, whole // part) for whole, part in zip(shape, size, strict=True)]
    rows = min(room[0], count, max(1, round((count * room[0] / room[1]) ** 0.5)))
    numbers = rows, min(room[1], count // rows)
    starts = []
    for whole, part, number in zip(shape, size, numbers, strict=True):
        places = np.linspace(0, whole - part, number) if number > 1 else [(whole - part) / 2]
        starts.append([int(place) // align * align for place in places])
    return [(row, column) for row in starts[0] for column in starts[1]]
