"""Residual U-Nets of Sytwu et al. 2022, as used by Kazimi et al. 2024 (arXiv:2402.18286).

Level l works at stride 2^l: one residual block on the way down, one on the way up, one at the end.
The dilation of each level's convolutions sets the receptive field without adding parameters.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from emfm.backbones.norms import NORM_LAYERS, exchange
from emfm.backbones.trunk import Trunk, TrunkConfig, halved
from emfm.errors import EMError

# One solution per named receptive field (pixels); the bottleneck's dilation stands last.
DILATIONS: dict[str, tuple[int, ...]] = {
    "unet2-rf44": (1, 1, 1),
    "unet2-rf84": (2, 2, 2),
    "unet2-rf116": (2, 2, 4),
    "unet3-rf96": (1, 1, 1, 1),
    "unet3-rf176": (1, 2, 2, 2),
    "unet3-rf240": (1, 2, 2, 4),
    "unet4-rf200": (1, 1, 1, 1, 1),
    "unet4-rf360": (1, 1, 2, 2, 2),
    "unet4-rf424": (1, 1, 2, 2, 3),
}
# Channels at full resolution: the paper's, and the most.
PAPER_WIDTH, MAX_WIDTH = 4, 256


class ResidualBlock(nn.Module):
    """conv3x3 - norm - ReLU - conv3x3 - norm, plus a 1x1 shortcut, then ReLU; all with bias."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int, norm: str):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation)
        self.norm1 = NORM_LAYERS[norm](out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=dilation, dilation=dilation)
        self.norm2 = NORM_LAYERS[norm](out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        residual = F.relu_(self.norm1(self.conv1(x)))  # in place: a norm's output serves nobody else
        residual = self.norm2(self.conv2(residual))
        return F.relu_(residual.add_(self.shortcut(x)))


class FoldedBlock(nn.Module):
    """A residual block with its batch norms inside its convolutions. In place: only to predict."""

    def __init__(self, block: ResidualBlock):
        super().__init__()
        assert isinstance(block.norm1, nn.BatchNorm2d) and isinstance(block.norm2, nn.BatchNorm2d)
        self.conv1 = fuse_conv_bn_eval(block.conv1, block.norm1)
        self.conv2 = fuse_conv_bn_eval(block.conv2, block.norm2)
        self.shortcut = block.shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        residual = self.conv2(F.relu_(self.conv1(x)))
        return F.relu_(residual.add_(self.shortcut(x)))


class UNetTrunk(Trunk):
    """The U-Net without its 1x1 output convolution.

    The configuration gives `width` channels at full resolution, doubled per level; `dilations`, one
    per level, bottleneck last; `norm` "batch" or "instance".
    """

    generators = tuple(DILATIONS)
    names_hint = " U-Nets take a width, as in -w16"
    norms = ("instance", "batch")
    full_resolution = True

    def __init__(self, config: TrunkConfig):
        super().__init__(config)
        depth = len(config.dilations) - 1
        self.dilations = config.dilations
        self.channels = [config.width * 2**level for level in range(depth + 1)]
        self.stride = 2**depth
        self.reach = _reach(config.dilations)
        # largest in the last block: the joined map (3 times the width), the skip connection and
        # what follows; measured: 132 to 163 at width 4, 655 at 16, with two classes
        self.bytes_per_pixel = 38 * config.width + 60
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

    @classmethod
    def fields_of(cls, name: str) -> dict[str, Any] | None:
        """Return width and dilations that a name stands for; `-wN` at its end is another width."""
        match = re.fullmatch(r"(.+?)(?:-w([1-9]\d{0,3}))?", name)
        if match is None or match[1] not in DILATIONS:
            return None
        return {"width": int(match[2] or PAPER_WIDTH), "dilations": DILATIONS[match[1]]}

    @classmethod
    def check(cls, config: TrunkConfig) -> None:
        """Raise an EMError where width or dilations are out of range."""
        width, dilations = config.width, config.dilations
        if not 1 <= width <= MAX_WIDTH:
            raise EMError(f"width is {width}; expected 1 to {MAX_WIDTH} channels at full resolution")
        if not 2 <= len(dilations) <= 7 or not all(1 <= dilation <= 16 for dilation in dilations):
            raise EMError(f"dilations are {dilations}; expected 2 to 7 levels, each 1 to 16")

    @property
    def receptive_field(self) -> int:
        """Side of the receptive field in pixels, averaged over the phases of the pooling grid.

        A convolution of dilation d at stride s adds 2ds, a pooling step s. Where the window's edge
        cuts a pooled cell, the extent differs by a few pixels; `reach` gives the largest.
        """
        *levels, bottom = self.dilations
        upper = sum(8 * dilation * 2**level for level, dilation in enumerate(levels))
        return self.stride * (1 + 4 * bottom) + upper

    def fold(self) -> None:
        """Fold each block's norms into its convolutions."""
        exchange(self, ResidualBlock, FoldedBlock)

    def blocks(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Return encoder (bottleneck last) and decoder, in the order in which an image passes."""
        return [*self.encoder, self.bottleneck], list(reversed(self.decoder))

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the decoder's maps and the bottleneck's, finest first: strides 1, 2, 4, ..."""
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)  # (B, C_l, H / 2^l, W / 2^l)
            x = halved(x)
        maps = [self.bottleneck(x)]
        for block, skip in zip(reversed(self.decoder), reversed(skips), strict=True):
            # only the joined map lives on while the block works: here memory is at its peak
            joined = torch.cat([F.interpolate(maps[0], scale_factor=2, mode="nearest"), skip], dim=1)
            maps.insert(0, block(joined))
        return maps


def _reach(dilations: Sequence[int]) -> int:
    """Return how far, in pixels, an output pixel can see in any direction, at any position."""
    *levels, bottom = dilations
    farthest = 0
    for phase in range(2 ** len(levels)):
        low = high = phase
        for dilation in levels:  # output to bottleneck: two convolutions, then the coarser cell
            low, high = (low - 2 * dilation) // 2, (high + 2 * dilation) // 2
        low, high = low - 2 * bottom, high + 2 * bottom
        for dilation in reversed(levels):  # bottleneck to input: a pooled cell covers two
            low, high = 2 * low - 2 * dilation, 2 * high + 1 + 2 * dilation
        farthest = max(farthest, phase - low, high - phase)
    return farthest
