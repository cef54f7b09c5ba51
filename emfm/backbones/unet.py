"""Residual U-Nets of Sytwu et al. 2022, as used by Kazimi et al. 2024 (arXiv:2402.18286).

Level l works at stride 2^l: one residual block on the way down, one on the way up, one at the bottom.
The dilation of each level's convolutions sets the receptive field without adding parameters.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emfm.backbones.trunk import Trunk
from emfm.config import EMFoundationConfig


class InstanceNorm(nn.InstanceNorm2d):
    """Instance norm with weight and bias that also takes a map of a single pixel, which equals its own mean."""

    def __init__(self, channels: int):
        super().__init__(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of each image (B, C, H, W) by its own mean and variance."""
        if x.shape[-2:] == (1, 1):
            return self.bias.view(1, -1, 1, 1).expand_as(x)
        return super().forward(x)


NORM_LAYERS: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm2d, "instance": InstanceNorm}


class ResidualBlock(nn.Module):
    """conv3x3 - norm - ReLU - conv3x3 - norm, plus a 1x1 shortcut, then ReLU. All convolutions carry a bias."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int, norm: str):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation)
        self.norm1 = NORM_LAYERS[norm](out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=dilation, dilation=dilation)
        self.norm2 = NORM_LAYERS[norm](out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        residual = F.relu(self.norm1(self.conv1(x)))
        residual = self.norm2(self.conv2(residual))
        return F.relu(residual + self.shortcut(x))


class UNetTrunk(Trunk):
    """The U-Net without its 1x1 output convolution.

    Args:
        config: `width` channels at full resolution, doubled per level; `dilations` one per level, bottleneck
            last; `norm` "batch" or "instance".
    """

    full_resolution = True

    def __init__(self, config: EMFoundationConfig):
        super().__init__()
        depth = len(config.dilations) - 1
        self.channels = [config.width * 2**level for level in range(depth + 1)]
        self.stride = 2**depth
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        in_channels = 1
        for level in range(depth):
            out_channels, dilation = self.channels[level], config.dilations[level]
            self.encoder.append(ResidualBlock(in_channels, out_channels, dilation, config.norm))
            # a decoder block sees the upsampled deeper map beside the skip
            below = self.channels[level + 1]
            self.decoder.append(ResidualBlock(below + out_channels, out_channels, dilation, config.norm))
            in_channels = out_channels
        self.bottleneck = ResidualBlock(in_channels, self.channels[-1], config.dilations[-1], config.norm)

    def blocks(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Return encoder (bottleneck last) and decoder, in the order in which an image passes them."""
        return [*self.encoder, self.bottleneck], list(reversed(self.decoder))

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the decoder's maps and the bottleneck's, finest first: strides 1, 2, 4, ...

        Args:
            x: (B, 1, H, W), H and W multiples of `stride`.
        """
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)  # (B, C_l, H / 2^l, W / 2^l)
            x = F.max_pool2d(x, 2)
        maps = [self.bottleneck(x)]
        for block, skip in zip(reversed(self.decoder), reversed(skips), strict=True):
            # nothing but the joined map lives on while the block works: this is where memory is at its peak
            joined = torch.cat([F.interpolate(maps[0], scale_factor=2, mode="nearest"), skip], dim=1)
            maps.insert(0, block(joined))
        return maps


def receptive_field(config: EMFoundationConfig) -> int:
    """Return the side of the receptive field in pixels, averaged over the phases of the pooling grid.

    A convolution of dilation d at stride s adds 2ds, a pooling step s. Where a pooled cell is cut by the window's
    edge the extent of one output pixel differs by a few pixels with its position; `reach` gives the largest.
    """
    *levels, bottom = config.dilations
    depth = len(levels)
    return 2**depth * (1 + 4 * bottom) + sum(8 * dilation * 2**level for level, dilation in enumerate(levels))


def reach(config: EMFoundationConfig) -> int:
    """Return how far, in pixels, an output pixel can see in any direction, whatever its position."""
    *levels, bottom = config.dilations
    farthest = 0
    for phase in range(2 ** len(levels)):
        low = high = phase
        for dilation in levels:  # output to bottleneck: two convolutions, then the coarser cell below
            low, high = (low - 2 * dilation) // 2, (high + 2 * dilation) // 2
        low, high = low - 2 * bottom, high + 2 * bottom
        for dilation in reversed(levels):  # bottleneck to input: a pooled cell covers two finer ones
            low, high = 2 * low - 2 * dilation, 2 * high + 1 + 2 * dilation
        farthest = max(farthest, phase - low, high - phase)
    return farthest
