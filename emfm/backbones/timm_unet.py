"""Any convolutional encoder of timm as a trunk, with a U-Net's decoder up to full resolution.

What ImageNet teaches an encoder serves micrographs, too. Encoders begin at half or a quarter of the
resolution; a small path beside them keeps the pixels, which fine structures need.
"""

import math
import re
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emfm.backbones.imagenet import load_imagenet
from emfm.backbones.norms import NORM_LAYERS, InstanceNorm, exchange
from emfm.backbones.timm_library import import_timm, timm_name
from emfm.backbones.trunk import Trunk, TrunkConfig
from emfm.errors import EMError

PREFIX = "timm-"
# Channels of the decoder's maps at strides 1, 2, 4, ..., as multiples of the width.
FACTORS = (1, 2, 3, 4, 6)
USUAL_WIDTH, MAX_WIDTH = 16, 256
PROBE = 512  # side in pixels of the image without content that tells strides and reach


class Anatomy(NamedTuple):
    """What is known of an encoder before it is built."""

    strides: tuple[int, ...]  # of the maps that it returns, finest first
    channels: tuple[int, ...]  # of those maps
    reach: int  # how far, in pixels, its coarsest map sees, or an upper bound


class AlignedConv(nn.Conv2d):
    """A strided convolution padded as in TensorFlow; sides are multiples of its stride.

    timm works the padding out anew for every image, which no export follows.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, H / stride, W / stride)."""
        pads: list[int] = []
        for kernel, dilation, step in zip(self.kernel_size, self.dilation, self.stride, strict=True):
            missing = max(0, (kernel - 1) * dilation + 1 - step)
            pads = [missing // 2, missing - missing // 2, *pads]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _aligned(conv: nn.Conv2d) -> AlignedConv:
    """Return the convolution with timm's weights."""
    kernel, step, dilation = (cast(tuple[int, int], sides) for sides in (conv.kernel_size, conv.stride, conv.dilation))
    biased = conv.bias is not None
    alike = AlignedConv(conv.in_channels, conv.out_channels, kernel, step, 0, dilation, conv.groups, biased)
    alike.weight, alike.bias = conv.weight, conv.bias
    return alike


def build_encoder(variant: str, **options: Any) -> nn.Module:
    """Return timm's encoder for one input channel, which gives maps at several strides.

    Args:
        variant: timm's name of it.
        **options: as `timm.create_model` takes them, such as `pretrained`.

    Raises:
        EMError: timm cannot cut it into stages.
    """
    try:
        encoder = import_timm().create_model(variant, features_only=True, in_chans=1, **options)
    except (RuntimeError, TypeError, AttributeError, NotImplementedError) as error:
        raise EMError(
            f"'{variant}' of timm gives no maps of its stages ({error}): choose a convolutional encoder"
        ) from error
    exchange(encoder, import_module("timm.layers").Conv2dSame, _aligned)
    return encoder


@lru_cache(maxsize=64)
def anatomy(variant: str) -> Anatomy:
    """Return strides, channels and reach of an encoder, found without computing anything.

    Raises:
        EMError: it takes one image size alone, or its maps do not halve from stride 1, 2 or 4 on.
    """
    with torch.device("meta"):
        encoder = build_encoder(variant).eval()
        found: list[tuple[int, int, int]] = []  # kernel's extent, stride, and the stride it works at
        hooks = [
            module.register_forward_pre_hook(lambda part, inputs: found.append((*_extent(part), inputs[0].shape[-2])))
            for module in encoder.modules()
            if isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d))
        ]
        try:
            maps = encoder(torch.zeros(1, 1, PROBE, PROBE))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise EMError(f"'{variant}' of timm does not take images of any size: {error}") from error
        for hook in hooks:
            hook.remove()
    strides = tuple(PROBE // m.shape[-1] for m in maps)
    info: Any = encoder.feature_info
    channels = tuple(info.channels())
    halving = [strides[0] * 2**level for level in range(len(strides))]
    if strides[0] > 4 or list(strides) != halving or [m.shape[1] for m in maps] != list(channels):
        raise EMError(
            f"'{variant}' of timm gives maps at strides {', '.join(map(str, strides))}; expected each to halve the one "
            "before, from 1, 2 or 4 on: choose a convolutional encoder, such as resnet18"
        )
    reach = 0
    for extent, step, height in found:  # as if they came one after the other: an upper bound
        at = 2 ** round(math.log2(PROBE / height))
        reach += at * (extent if step > 1 else -(-extent // 2))
    return Anatomy(strides, channels, reach)


def _extent(layer: nn.Module) -> tuple[int, int]:
    """Return how many pixels beyond the first a layer's kernel covers, and its stride."""
    sides: list[Any] = [layer.kernel_size, getattr(layer, "dilation", 1), layer.stride]
    kernel, dilation, stride = (side if isinstance(side, int) else max(side) for side in sides)
    return (kernel - 1) * dilation, stride


def exchange_batch_norms(network: nn.Module) -> None:
    """Put instance norms in the places of an encoder's batch norms; weights and activation stay."""

    def substitute(norm: nn.BatchNorm2d) -> nn.Module:
        alike = InstanceNorm(norm.num_features)
        if norm.affine:
            alike.load_state_dict({"weight": norm.weight, "bias": norm.bias})
        # timm's norms bring the activation that follows
        return nn.Sequential(alike.to(norm.weight.device), getattr(norm, "act", nn.Identity()))

    exchange(network, nn.BatchNorm2d, substitute)


def _parts(stage: nn.Module) -> list[nn.Module]:
    """Return the modules of a stage, one after the other."""
    return list(stage.children()) if isinstance(stage, nn.Sequential) else [stage]


class DecoderBlock(nn.Module):
    """Two 3x3 convolutions on the enlarged coarser map and what the encoder had at this size."""

    def __init__(self, in_channels: int, out_channels: int, norm: str):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = NORM_LAYERS[norm](out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = NORM_LAYERS[norm](out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        x = F.relu_(self.norm1(self.conv1(x)))  # in place: a norm's output serves nobody else
        return F.relu_(self.norm2(self.conv2(x)))


class TimmUNetTrunk(Trunk):
    """An encoder of timm for one input channel, a decoder, and a path at full resolution.

    `variant` of the configuration is timm's name, such as "tf_efficientnet_lite0"; `width` is the
    number of channels at full resolution. An encoder with attention or squeeze-and-excitation sees
    the whole of what it is given: `reach` is that of its convolutions.
    """

    generators = ("timm-tf-efficientnet-lite0",)
    names_hint = ", or timm-ENCODER for any convolutional encoder of timm, as in timm-resnet18"
    norms = ("instance", "batch")
    full_resolution = True
    bytes_per_pixel = 1000  # largest in the decoder

    def __init__(self, config: TrunkConfig):
        super().__init__(config)
        self._variant = str(config.variant)
        parts = anatomy(self._variant)
        self.body = build_encoder(self._variant)
        if config.norm == "instance":
            exchange_batch_norms(self.body)
        self.stride = parts.strides[-1]
        levels = int(math.log2(self.stride))
        widths = [config.width * FACTORS[min(level, len(FACTORS) - 1)] for level in range(levels)]
        self.detail = DecoderBlock(1, config.width, config.norm)
        skips = dict(zip(parts.strides, parts.channels, strict=True))
        coarser = [*widths[1:], skips[self.stride]]
        self.decoder = nn.ModuleList()  # coarsest first
        for level in reversed(range(levels)):
            beside = skips.get(2**level, 0) + (config.width if level == 0 else 0)
            self.decoder.append(DecoderBlock(coarser[level] + beside, widths[level], config.norm))
        self.channels = [*widths, skips[self.stride]]
        # two 3x3 at each level, and a coarse cell spread over the pixels below it
        self.reach = parts.reach + 2 * (self.stride - 1) + self.stride
        self._strides = parts.strides

    @classmethod
    def fields_of(cls, name: str) -> dict[str, Any] | None:
        """Return timm's name of the encoder and the width; None if the prefix is missing."""
        match = re.fullmatch(rf"{PREFIX}(.+?)(?:-w([1-9]\d{{0,2}}))?", name)
        if match is None:
            return None
        try:
            return {"variant": timm_name(name.removeprefix(PREFIX)), "width": USUAL_WIDTH}
        except EMError:
            if match[2] is None:
                raise
        return {"variant": timm_name(match[1]), "width": int(match[2])}

    @classmethod
    def check(cls, config: TrunkConfig) -> None:
        """Raise an EMError where width or encoder do not fit."""
        if not 1 <= config.width <= MAX_WIDTH:
            raise EMError(f"width is {config.width}; expected 1 to {MAX_WIDTH} channels at full resolution")
        if not config.variant:
            raise EMError(f"variant is {config.variant!r}; expected timm's name of an encoder, such as resnet18")

    def blocks(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Return timm's stages, and the path for details with the decoder, coarsest block first."""
        parts = [part for stage in self.body.children() for part in _parts(stage)]
        learning = [part for part in parts if next(part.parameters(), None) is not None]
        return learning, [self.detail, *self.decoder]

    def load_imagenet(self) -> str:
        """Give the encoder its ImageNet weights, from a package or the Hub."""
        encoder = build_encoder(self._variant)
        origin = load_imagenet(encoder, self._variant)
        if any(isinstance(module, InstanceNorm) for module in self.body.modules()):
            exchange_batch_norms(encoder)
        self.body.load_state_dict(encoder.state_dict())
        return origin

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the decoder's maps at strides 1, 2, 4, ... and the encoder's coarsest."""
        skips = dict(zip(self._strides, self.body(x), strict=True))  # (B, C_i, H / stride, W / stride)
        maps = [skips.pop(self.stride)]
        for level, block in zip(reversed(range(len(self.decoder))), self.decoder, strict=True):
            joined = [F.interpolate(maps[0], scale_factor=2, mode="nearest")]
            if 2**level in skips:
                joined.append(skips.pop(2**level))
            if level == 0:
                joined.append(self.detail(x))
            maps.insert(0, block(torch.cat(joined, dim=1)))
        return maps
