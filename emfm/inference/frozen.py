"""The network as it predicts: norms that no longer look at their input, folded into the convolutions before them.

Instance norm takes mean and variance of each channel over the whole input. Over tiles these would differ from tile to
tile, and so would the results of two tiles at their border. Here they are measured once for the micrograph, over tiles
spread over all of it that pass through the network together, and hold for every tile. What remains is a chain of
convolutions, for which an overlap of the reach makes the tiled result equal to that of the whole.
"""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emfm.backbones.norms import InstanceNorm, JointNorm, exchange
from emfm.io.large_images import release_pages
from emfm.modeling import EMPreTrainedModel
from emfm.processing import IntensityStatistics

# Pixels over which instance norm is measured, and the side of the squares that they are taken in.
NORM_PIXELS = 1024 * 1024
NORM_SIDE = 256


def frozen_network(model: EMPreTrainedModel, image: Any, statistics: IntensityStatistics) -> EMPreTrainedModel:
    """Return a copy of a model that maps every pixel by its surroundings alone, for tiles of one micrograph.

    Args:
        model: in evaluation mode.
        image: (H, W) micrograph over which instance norm is measured; not used with batch norm.
        statistics: its intensity statistics.
    """
    network = copy.deepcopy(model)
    network.__dict__.pop("forward", None)  # a trainer's wrapper would call the model that was copied
    if exchange(network, InstanceNorm, JointNorm):
        with torch.no_grad():
            network(sample(model, image, statistics))
        network.eval()
    network.trunk.fold()
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-arg]


def sample(model: EMPreTrainedModel, image: Any, statistics: IntensityStatistics) -> Tensor:
    """Return squares (B, 1, side, side) of network values spread evenly over a micrograph, or a small one whole."""
    height, width = image.shape
    if height * width <= NORM_PIXELS:
        corners, size = [(0, 0)], (height, width)
    else:
        size = min(NORM_SIDE, height), min(NORM_SIDE, width)
        corners = spread((height, width), size, NORM_PIXELS // (size[0] * size[1]), model.trunk.stride)
    parts = []
    for row, column in corners:
        part = np.asarray(image[row : row + size[0], column : column + size[1]])
        parts.append(model.processor.normalize(part, statistics, (row, column)))
        release_pages(image)
    return torch.from_numpy(np.stack(parts)[:, None]).to(model.device)


def spread(shape: tuple[int, int], size: tuple[int, int], count: int, align: int) -> list[tuple[int, int]]:
    """Return corners of at most `count` rectangles on an even grid over a micrograph, as square-meshed as can be."""
    room = [max(1, whole // part) for whole, part in zip(shape, size, strict=True)]
    rows = min(room[0], count, max(1, round((count * room[0] / room[1]) ** 0.5)))
    numbers = rows, min(room[1], count // rows)
    starts = []
    for whole, part, number in zip(shape, size, numbers, strict=True):
        places = np.linspace(0, whole - part, number) if number > 1 else [(whole - part) / 2]
        starts.append([int(place) // align * align for place in places])
    return [(row, column) for row in starts[0] for column in starts[1]]
