"""What a head sees that looks at all scales: a trunk's maps, and hand-made filters beside them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from emfm.backbones.filters import filter_channels, filter_reach, filtered
from emfm.backbones.trunk import Trunk


def scale_channels(trunk: Trunk, filters: bool) -> list[int]:
    """Return the number of maps at each stride 1, 2, 4, ...: the trunk's, then those of filters."""
    made = filter_channels(len(trunk.channels)) if filters else [0] * len(trunk.channels)
    return [learnt + by_hand for learnt, by_hand in zip(trunk.channels, made, strict=True)]


def scale_maps(trunk: Trunk, padded: Tensor, filters: bool) -> list[Tensor]:
    """Return maps (B, C_i, H / s, W / s) at strides s = 1, 2, 4, ... of a padded image."""
    maps = trunk.features(padded)
    made = filtered(padded, len(maps)) if filters else []
    return [torch.cat([learnt, *made[level : level + 1]], dim=1) for level, learnt in enumerate(maps)]


def scale_reach(trunk: Trunk, filters: bool) -> int:
    """Return how far in pixels such a head sees; enlarging coarse maps takes neighbours, too."""
    return max(trunk.reach, filter_reach(len(trunk.channels)) if filters else 0) + trunk.stride


def joined(maps: list[Tensor], size: tuple[int, int]) -> Tensor:
    """Return maps of all scales enlarged and behind each other (B, C, H, W), cut to a size."""
    whole = torch.cat([enlarged(m, level) for level, m in enumerate(maps)], dim=1)
    return whole[..., : size[0], : size[1]]


def classified(maps: list[Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    """Return what a 1x1 convolution (K, C, 1, 1) makes of joined maps: (B, K, H, W).

    Each map is classified at its own size. That equals the convolution over all maps, enlarged, and
    takes far less memory.
    """
    parts = weight.split([m.shape[1] for m in maps], dim=1)
    sized = [enlarged(F.conv2d(m, part), level) for level, (m, part) in enumerate(zip(maps, parts, strict=True))]
    return torch.stack(sized).sum(dim=0) + bias.view(1, -1, 1, 1)


def enlarged(maps: Tensor, level: int) -> Tensor:
    """Return maps (B, C, H, W) at stride 2^level enlarged to full resolution, bilinear."""
    return maps if level == 0 else F.interpolate(maps, scale_factor=2**level, mode="bilinear")
