"""Hand-made filters: edges, ridges and texture at several scales, as pixel classifiers use them.

They need no training. Beside a trunk's features they help a head that learns from a few strokes.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

RESPONSES = 7  # maps at each scale
LEVELS = 5  # scales, at strides 1 to 16; coarser ones tell places apart, not classes
NARROW, WIDE = 1.0, 2.0  # standard deviations of the Gaussians, in pixels of each scale
RADII = 3  # a Gaussian ends after so many standard deviations
TINY = 1e-12  # keeps the slope of a root finite at 0
# Which of the Gaussian and its derivatives is taken along rows, and along columns.
ORDERS = ((0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0))


def filter_channels(levels: int) -> list[int]:
    """Return how many maps `filtered` gives at each of so many strides 1, 2, 4, ..."""
    return [RESPONSES if level < LEVELS else 0 for level in range(levels)]


def filter_reach(levels: int) -> int:
    """Return how far in pixels the responses see."""
    radius = round(RADII * NARROW) + round(RADII * WIDE)
    return 2 ** (min(levels, LEVELS) - 1) * (radius + 1)


def filtered(image: Tensor, levels: int) -> list[Tensor]:
    """Return responses (B, 7, H / s, W / s) to an image (B, 1, H, W) at strides s = 1, 2, 4, ...

    Height and width are multiples of the coarsest stride, as for a trunk.
    """
    maps = []
    for level in range(min(levels, LEVELS)):
        image = F.avg_pool2d(image, 2) if level else image
        maps.append(responses(image))
    return maps


def responses(image: Tensor) -> Tensor:
    """Return seven maps (B, 7, H, W) of an image (B, 1, H, W) that do not change when it is turned.

    Smoothed values, length of the gradient, the two curvatures, the two sizes of the structure
    tensor (how strong edges are around, along their main direction and across), and the local
    standard deviation.
    """
    kernels = torch.tensor([_gaussian(NARROW, order) for order in range(3)], dtype=image.dtype, device=image.device)
    rows = [across for across, _ in ORDERS]
    columns = [along for _, along in ORDERS]
    smooth, to_right, down, right_right, right_down, down_down = _separable(
        image.expand(-1, len(ORDERS), -1, -1), kernels[rows], kernels[columns]
    ).split(1, dim=1)
    spread = torch.cat([down * down, down * to_right, to_right * to_right, image, image * image], 1)
    wide = torch.tensor([_gaussian(WIDE, 0)] * spread.shape[1], dtype=image.dtype, device=image.device)
    downward, mixed, sideways, mean, squares = _separable(spread, wide, wide).split(1, dim=1)
    gradient = (to_right**2 + down**2 + TINY).sqrt()
    strong, weak = _eigenvalues(downward, mixed, sideways)
    deviation = ((squares - mean**2).clamp_min(0) + TINY).sqrt()
    curvatures = _eigenvalues(down_down, right_down, right_right)
    roots = [(size.clamp_min(0) + TINY).sqrt() for size in (strong, weak)]
    return torch.cat([smooth, gradient, *curvatures, *roots, deviation], dim=1)


def _gaussian(deviation: float, order: int) -> list[float]:
    """Return a Gaussian of sum 1, or its first or second derivative, exact on a slope or a bowl."""
    radius = round(RADII * deviation)
    places = range(-radius, radius + 1)
    values = [math.exp(-(place**2) / (2 * deviation**2)) for place in places]
    if order == 1:
        values = [place * value for place, value in zip(places, values, strict=True)]
        return [value / sum(p * v for p, v in zip(places, values, strict=True)) for value in values]
    smooth = [value / sum(values) for value in values]
    if order == 0:
        return smooth
    spread = sum(place**2 * value for place, value in zip(places, smooth, strict=True))
    values = [(place**2 - spread) * value for place, value in zip(places, smooth, strict=True)]  # of sum 0
    return [2 * value / sum(p**2 * v for p, v in zip(places, values, strict=True)) for value in values]


def _separable(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return maps (B, C, H, W), each filtered by its kernels (C, K); the edges are repeated."""
    channels, length = rows.shape
    radius = length // 2
    maps = F.pad(maps, (radius, radius, radius, radius), mode="replicate")
    maps = F.conv2d(maps, rows.view(channels, 1, length, 1), groups=channels)
    return F.conv2d(maps, columns.view(channels, 1, 1, length), groups=channels)


def _eigenvalues(first: Tensor, mixed: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return the larger and the smaller one of [[first, mixed], [mixed, second]]."""
    middle = (first + second) / 2
    half = (((first - second) / 2) ** 2 + mixed**2 + TINY).sqrt()
    return middle + half, middle - half
