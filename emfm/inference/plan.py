"""Choosing tiles, batch and threads from the network and the free memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import torch

from emfm.errors import EMError
from emfm.inference.tiling import Tiling
from emfm.modeling import EMPreTrainedModel

RAMP = 16
# This share of the free memory may be used, and on a CPU no more than this: other work goes on.
SHARE = 0.25
CPU_BYTES = 512 * 2**20
LARGEST_TILE, LARGEST_BATCH = 2048, 8


@dataclass(frozen=True)
class Plan:
    """How a micrograph is predicted.

    Args:
        tiling: how it is cut.
        batch: tiles in one forward pass.
        workers: forward passes at the same time, each with its share of the processor's threads.
    """

    tiling: Tiling
    batch: int
    workers: int


def plan(
    model: EMPreTrainedModel,
    shape: tuple[int, int],
    tile: int | None = None,
    parts: int = 1,
    others: Sequence[EMPreTrainedModel] = (),
) -> Plan:
    """Return how a model predicts a micrograph of some size on its device.

    Args:
        model: any; on the device on which it will predict.
        shape: (H, W) of the micrograph.
        tile: largest side of a tile in pixels; None chooses one by the free memory.
        parts: processes that divide the rows of tiles; without `tile` there are enough for all.
        others: models that see the same tiles, one after the other.

    Raises:
        EMError: the tile is too small for the model.
    """
    models = (model, *others)
    stride, reach = math.lcm(*(one.stride for one in models)), max(one.reach for one in models)
    needed = max(map(bytes_per_pixel, models))
    if tile is not None and tile < 4 * stride:
        raise EMError(f"a tile of {tile} px is too small for this model: use at least {4 * stride}")
    batches = model.device.type != "cpu"  # other devices are faster with several tiles at a time
    budget = min(SHARE * psutil.virtual_memory().available, CPU_BYTES)
    if model.device.type == "cuda":
        budget = SHARE * 2 * torch.cuda.mem_get_info(model.device)[0]
    workers = 1 if batches else torch.get_num_threads()
    if tile is None:
        # smaller tiles than this spend most of the work on what they share
        efficient = 4 * (2 * reach + RAMP)
        while workers > 1 and _side(needed, stride, budget / workers) < efficient:
            workers -= 1
        tile = min(LARGEST_TILE, max(_side(needed, stride, budget / workers), efficient // 2))
        if parts > 1:
            tile = min(tile, max(-(-shape[0] // parts) + efficient // 4, efficient // 2))
        tile = max(4 * stride, tile)
    fitting = max(1, int(budget / (needed * tile**2)))
    ramp = min(RAMP, tile // 16)
    # the margin may take up to a quarter of the tile on each side
    margin = 0 if max(shape) <= tile else min(reach, (tile - ramp) // 4)
    tiling = Tiling(tile, margin, ramp, stride, model.scale)
    count = tiling.count(*shape)
    if batches:
        return Plan(tiling, min(fitting, LARGEST_BATCH, count), 1)
    return Plan(tiling, 1, min(workers, fitting, count))


def _side(bytes_needed: float, stride: int, budget: float) -> int:
    """Return the largest side of a tile, a multiple of the stride, within the budget of bytes."""
    return int((budget / bytes_needed) ** 0.5) // stride * stride


def bytes_per_pixel(model: EMPreTrainedModel) -> float:
    """Return about how many bytes of memory a forward pass takes for each pixel of its input."""
    classes = len(model.classes or [0])
    return (model.trunk.bytes_per_pixel + 12 * classes) * model.scale**2
