"""Normalisation layers of the trunks, and what takes their place in prediction and export."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# With so many, kernels for channels last are at their fastest.
ENOUGH_CHANNELS = 128


class InstanceNorm(nn.InstanceNorm2d):
    """Instance norm with weight and bias that also takes a map of one pixel, its own mean."""

    def __init__(self, channels: int):
        super().__init__(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of each image (B, C, H, W) by its own mean and variance."""
        if x.shape[-2:] == (1, 1):
            return self.bias.view(1, -1, 1, 1).expand_as(x).clone()  # an activation may change it in place
        if x.device.type == "cpu" and x.is_contiguous():  # the same, twice as fast and more
            return F.group_norm(x, x.shape[1], self.weight, self.bias, self.eps)
        if len(x) == 1 and x.device.type == "cpu" and not torch.is_grad_enabled():
            return _one_normalised(x, self)
        if len(x) == 1:  # the same without a copy, whatever the layout
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)
        return super().forward(x)


def joined(x: Tensor) -> tuple[Tensor, int]:
    """Return a view of (B, C, H, W) in channels last as a narrower image, and how much narrower.

    Kernels for channels last are made for many channels: pixels beside each other count as such.
    """
    count, channels, height, width = x.shape
    most = max(1, ENOUGH_CHANNELS // channels)
    beside = max(number for number in range(1, most + 1) if width % number == 0)
    rows = x.permute(0, 2, 3, 1).reshape(count, height, width // beside, beside * channels)
    return rows.permute(0, 3, 1, 2), beside


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return means and variances (C) of (B, C, H, W) over images and pixels, at least in fp32."""
    there = x.device.type == "cpu" and x.dtype != torch.float64  # the kernel below
    if not there or not x.is_contiguous(memory_format=torch.channels_last):
        variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
        return mean, variance
    view, beside = joined(x)
    unused = torch.zeros(2, view.shape[1])  # in fp32, so what is found of bf16 is, too
    found = torch.batch_norm_update_stats(view, unused[0], unused[1], 0.0)
    means, variances = (part.view(beside, -1) for part in found)
    return means.mean(0), variances.mean(0) + means.var(0, correction=0)  # short sums are accurate


def _one_normalised(x: Tensor, norm: InstanceNorm) -> Tensor:
    """Return instance norm of one image (1, C, H, W) in channels last."""
    mean, variance = moments(x)
    gain = norm.weight.float() * torch.rsqrt(variance + norm.eps)
    view, beside = joined(x)
    gain, offset = gain.repeat(beside), (norm.bias.float() - mean * gain).repeat(beside)
    found = F.batch_norm(view, torch.zeros_like(gain), torch.ones_like(gain), gain, offset, eps=0.0)
    return found.permute(0, 2, 3, 1).reshape(1, *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)


# By the value of `norm` in a configuration.
NORM_LAYERS: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm2d, "instance": InstanceNorm}


class JointNorm(nn.BatchNorm2d):
    """Instance norm over all images of a batch together, as if they were one.

    In training mode it keeps the mean and variance that it finds; in evaluation mode they hold.
    """

    def __init__(self, norm: InstanceNorm):
        super().__init__(norm.num_features, norm.eps)
        self.weight, self.bias = norm.weight, norm.bias
        self.to(norm.weight.device)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of (B, C, H, W)."""
        if self.training:
            self.running_mean, self.running_var = moments(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class SpelledInstanceNorm(nn.Module):
    """Instance norm in elementary operations, for export; also for a map of a single pixel.

    The mean of row means keeps float32's error small on large images.
    """

    def __init__(self, norm: InstanceNorm):
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of each image (B, C, H, W)."""
        centred = x - x.mean(3, keepdim=True).mean(2, keepdim=True)
        variance = (centred * centred).mean(3, keepdim=True).mean(2, keepdim=True)
        scaled = centred * torch.rsqrt(variance + self.eps)
        return scaled * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


def exchange(network: nn.Module, kind: type[nn.Module], substitute: Callable[[Any], nn.Module]) -> bool:
    """Put `substitute(module)` in place of every module of a kind; tell whether there was one."""
    found = [name for name, module in network.named_modules() if isinstance(module, kind)]
    for name in found:
        parent, _, last = name.rpartition(".")
        setattr(network.get_submodule(parent), last, substitute(network.get_submodule(name)))
    return bool(found)


def fold_batch_norms(network: nn.Module) -> None:
    """Make each batch norm part of the convolution that stands right before it in its module.

    In place, and only to predict. An activation that a norm of timm's brings along stays.
    """
    for module in list(network.modules()):
        for (name, conv), (norm_name, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, getattr(norm, "act", nn.Identity()))
