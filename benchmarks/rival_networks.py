"""Networks that others would take, as trunks: so emfm trains, measures and predicts them like its own.

`register` adds them to `BACKBONES` in this process alone. Each follows the paper or the library it is named after; the
last layer is emfm's, one 1x1 convolution, which is fitted before the first step as for every network here.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emfm.backbones import BACKBONES
from emfm.backbones.imagenet import load_imagenet
from emfm.backbones.timm_unet import anatomy
from emfm.backbones.trunk import Trunk, TrunkConfig
from emfm.errors import EMError

ENCODER = "tf_efficientnet_lite0"


class SMPTrunk(Trunk):
    """The U-Net of segmentation-models-pytorch on EfficientNet-Lite0, at its own defaults."""

    generators = ("smp-unet-lite0",)
    norms = ("batch",)
    full_resolution = False
    stride = 32
    bytes_per_pixel = 1000

    def __init__(self, config: TrunkConfig):
        super().__init__(config)
        try:
            from segmentation_models_pytorch import Unet
        except ImportError as error:
            raise EMError(
                f"segmentation-models-pytorch is missing ({error}): pip install 'emfm[benchmarks]'"
            ) from error
        network = Unet(f"tu-{ENCODER}", encoder_weights=None, in_channels=1)
        self.encoder, self.decoder = network.encoder, network.decoder
        self.channels = [16]
        # a coarse cell spread over its pixels, and two 3x3 at each level
        self.reach = anatomy(ENCODER).reach + 3 * self.stride

    def blocks(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Return the encoder's stages and the decoder's blocks, in the order an image passes."""
        stages = [part for part in self.encoder.model.children() if next(part.parameters(), None) is not None]
        return stages, list(self.decoder.blocks)

    def load_imagenet(self) -> str:
        """Give the encoder its ImageNet weights, from the package or the Hub."""
        return load_imagenet(self.encoder.model, ENCODER)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the decoder's map at full resolution."""
        return [self.decoder(self.encoder(x))]


class DnCNNTrunk(Trunk):
    """DnCNN of Zhang et al. 2017 (arXiv:1608.03981): 17 layers of 64 channels at full resolution, the last emfm's."""

    generators = ("dncnn",)
    norms = ("batch",)
    full_resolution = True
    stride = 1
    bytes_per_pixel = 1000
    depth, usual_width = 17, 64

    def __init__(self, config: TrunkConfig):
        super().__init__(config)
        width = self.usual_width
        layers: list[nn.Module] = [nn.Conv2d(1, width, 3, padding=1), nn.ReLU()]
        for _ in range(self.depth - 2):
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.channels, self.reach = [width], self.depth - 1

    def blocks(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Return the convolutions: there is no decoder."""
        return [layer for layer in self.body if isinstance(layer, nn.Conv2d)], []

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the last map."""
        return [self.body(x)]


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W)."""
        pixels = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias)
        return pixels.permute(0, 3, 1, 2)


class _Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        return first * second


class NAFBlock(nn.Module):
    """A block without activations: a gated depthwise part with channel attention, then a gated pointwise one."""

    def __init__(self, channels: int):
        super().__init__()
        self.mixing = nn.Sequential(
            ChannelNorm(channels),
            nn.Conv2d(channels, 2 * channels, 1),
            nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels),
            _Gate(),
        )
        self.attention = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))
        self.joining = nn.Conv2d(channels, channels, 1)
        self.pointwise = nn.Sequential(
            ChannelNorm(channels), nn.Conv2d(channels, 2 * channels, 1), _Gate(), nn.Conv2d(channels, channels, 1)
        )
        # both parts begin as nothing, as in the paper
        self.shares = nn.ParameterList([nn.Parameter(torch.zeros(1, channels, 1, 1)) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        mixed = self.mixing(x)
        x = x + self.shares[0] * self.joining(mixed * self.attention(mixed))
        return x + self.shares[1] * self.pointwise(x)


class NAFNetTrunk(Trunk):
    """NAFNet of Chen et al. 2022 (arXiv:2204.04676), about as large as `unet4-rf200-w16`: a block a level, 3 below."""

    generators = ("nafnet-w16",)
    norms = ("layer",)
    full_resolution = True
    stride = 16
    bytes_per_pixel = 1500
    usual_width, levels, middle_blocks = 16, 4, 3

    def __init__(self, config: TrunkConfig):
        super().__init__(config)
        widths = [self.usual_width * 2**level for level in range(self.levels + 1)]
        self.opening = nn.Conv2d(1, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(NAFBlock(width) for width in widths[:-1])
        self.down = nn.ModuleList(nn.Conv2d(width, 2 * width, 2, stride=2) for width in widths[:-1])
        self.middle = nn.Sequential(*(NAFBlock(widths[-1]) for _ in range(self.middle_blocks)))
        self.up = nn.ModuleList(nn.Conv2d(2 * width, 4 * width, 1, bias=False) for width in widths[-2::-1])
        self.decoder = nn.ModuleList(NAFBlock(width) for width in widths[-2::-1])
        self.channels = [widths[0]]
        # a 3x3 in each block, at its stride; attention looks at the whole besides
        blocks = 2 * sum(2**level for level in range(self.levels))
        self.reach = 1 + blocks + (self.middle_blocks + 2) * self.stride

    def blocks(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Return the blocks on the way down, and those on the way up."""
        return [self.opening, *self.encoder, self.middle], list(self.decoder)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the map at full resolution."""
        x = self.opening(x)
        skips = []
        for block, down in zip(self.encoder, self.down, strict=True):
            x = block(x)
            skips.append(x)
            x = down(x)
        x = self.middle(x)
        for up, block in zip(self.up, self.decoder, strict=True):
            x = block(F.pixel_shuffle(up(x), 2) + skips.pop())
        return [x]


def register() -> None:
    """Make these networks' names known in this process."""
    known: dict[str, Any] = {"smp": SMPTrunk, "dncnn": DnCNNTrunk, "nafnet": NAFNetTrunk}
    BACKBONES.update(known)
