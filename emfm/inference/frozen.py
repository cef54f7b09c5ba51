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
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from emfm.backbones.unet import InstanceNorm, ResidualBlock
from emfm.io.large_images import release_pages
from emfm.modeling import EMPreTrainedModel
from emfm.processing import IntensityStatistics

# Pixels over which instance norm is measured, and the side of the squares that they are taken in.
NORM_PIXELS = 1024 * 1024
NORM_SIDE = 256


class JointNorm(nn.BatchNorm2d):
    """Instance norm over all images of a batch together, as if they were one; keeps the mean and variance it found."""

    def __init__(self, norm: InstanceNorm):
        super().__init__(norm.num_features, norm.eps)
        self.weight, self.bias = norm.weight, norm.bias
        self.to(norm.weight.device)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of (B, C, H, W)."""
        self.running_var, self.running_mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class FoldedBlock(nn.Module):
    """A residual block whose norms are part of its convolutions; works in place, for prediction alone."""

    def __init__(self, block: ResidualBlock):
        super().__init__()
        self.conv1 = _folded(block.conv1, block.norm1)
        self.conv2 = _folded(block.conv2, block.norm2)
        self.shortcut = block.shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        residual = self.conv2(F.relu_(self.conv1(x)))
        return F.relu_(residual.add_(self.shortcut(x)))


def _folded(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    assert isinstance(norm, nn.BatchNorm2d)
    return fuse_conv_bn_eval(conv, norm)


def frozen_network(model: EMPreTrainedModel, image: Any, statistics: IntensityStatistics) -> EMPreTrainedModel:
    """Return a copy of a model that maps every pixel by its surroundings alone, for tiles of one micrograph.

    Args:
        model: in evaluation mode.
        image: (H, W) micrograph over which instance norm is measured; not used with batch norm.
        statistics: its intensity statistics.
    """
    network = _copy(model)
    if model.config.norm == "instance":
        for module in network.modules():
            for name, norm in module.named_children():
                if isinstance(norm, InstanceNorm):
                    setattr(module, name, JointNorm(norm))
        with torch.no_grad():
            network.eval()(sample(model, image, statistics))
    for module in network.trunk.modules():
        for name, block in module.named_children():
            if isinstance(block, ResidualBlock):
                setattr(module, name, FoldedBlock(block))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-arg]


def _copy(model: EMPreTrainedModel) -> EMPreTrainedModel:
    network = copy.deepcopy(model)
    network.__dict__.pop("forward", None)  # a trainer's wrapper would call the model that was copied
    return network


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
