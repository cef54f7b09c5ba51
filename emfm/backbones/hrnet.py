"""HRNet from timm as a trunk: stride-4 stem, no full-resolution skip, an upsampling head.

The four branches (strides 4 to 32) are brought to stride 4, mixed, and upsampled in two steps to
full resolution, as Kazimi et al. 2024 (arXiv:2402.18286) use HRNet for image-to-image work.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emfm.backbones.imagenet import load_imagenet
from emfm.backbones.norms import fold_batch_norms
from emfm.backbones.timm_library import import_timm
from emfm.backbones.trunk import Trunk, TrunkConfig
from emfm.errors import EMError

# By timm's names.
VARIANTS = ("hrnet_w18_small", "hrnet_w18", "hrnet_w32", "hrnet_w48")
# Channels after the mix at stride 4, after the first and after the second upsampling.
HEAD_CHANNELS = (64, 32, 16)


def _conv_block(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


class HRNetTrunk(Trunk):
    """timm's HRNet for one input channel, and the multi-scale head back to full resolution.

    `variant` of the configuration is timm's name, such as "hrnet_w18_small".
    """

    generators = tuple(variant.replace("_", "-") for variant in VARIANTS)
    norms = ("batch",)
    full_resolution = False
    stride = 32
    bytes_per_pixel = 1000  # largest in the head

    def __init__(self, config: TrunkConfig):
        super().__init__(config)
        timm = import_timm()
        # feature_location "" gives the plain branches; out_indices 1..4 skips the stride-2 stem
        self.body = timm.create_model(
            config.variant, features_only=True, in_chans=1, feature_location="", out_indices=(1, 2, 3, 4)
        )
        branches = self.body.feature_info.channels()
        self.mix = _conv_block(sum(branches), HEAD_CHANNELS[0], 1)
        self.up2 = _conv_block(HEAD_CHANNELS[0], HEAD_CHANNELS[1], 3)
        self.up1 = _conv_block(HEAD_CHANNELS[1], HEAD_CHANNELS[2], 3)
        self.channels = [HEAD_CHANNELS[2], HEAD_CHANNELS[1], *branches]
        self._variant = str(config.variant)
        self.reach = _reach(self._variant)

    @classmethod
    def fields_of(cls, name: str) -> dict[str, Any] | None:
        """Return timm's name of a generator."""
        return {"variant": name.replace("-", "_")} if name in cls.generators else None

    @classmethod
    def check(cls, config: TrunkConfig) -> None:
        """Raise an EMError where the variant is not one of those known."""
        if config.variant not in VARIANTS:
            raise EMError(f"variant is '{config.variant}'; an HRNet has one of {', '.join(VARIANTS)}")

    def blocks(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Return timm's stages and the head to full resolution, in the order an image passes."""
        stages = [module for module in self.body.children() if next(module.parameters(), None) is not None]
        return stages, [self.mix, self.up2, self.up1]

    def fold(self) -> None:
        """Fold the norms into the convolutions before them; activations work in place."""
        fold_batch_norms(self)
        for module in self.modules():
            if isinstance(module, nn.ReLU):  # of sums and convolutions that serve nobody else
                module.inplace = True

    def load_imagenet(self) -> str:
        """Give timm's body its ImageNet weights, from the Hub; the head keeps its own."""
        return load_imagenet(self.body, self._variant)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the head's maps at strides 1 and 2 and the branches at strides 4, 8, 16, 32."""
        branches = self.body(x)  # (B, C_i, H / 2^i, W / 2^i), i = 2..5
        size = branches[0].shape[-2:]
        same_size = [branches[0], *(F.interpolate(b, size=size, mode="bilinear") for b in branches[1:])]
        mixed = self.mix(torch.cat(same_size, dim=1))
        half = self.up2(F.interpolate(mixed, scale_factor=2, mode="bilinear"))
        full = self.up1(F.interpolate(half, scale_factor=2, mode="bilinear"))
        return [full, half, *branches]


def _reach(variant: str) -> int:
    """Return how far in pixels an output pixel can see: an upper bound on the coarsest branch."""
    from timm.models.hrnet import cfg_cls

    cfg: dict[str, Any] = cfg_cls[variant]
    pixels = 1 + 2  # two stem convolutions 3x3 of stride 2
    pixels += cfg["stage1"]["num_blocks"][0] * 4  # one 3x3 at stride 4 in each bottleneck block
    for stage, stride in (("stage2", 8), ("stage3", 16), ("stage4", 32)):
        pixels += stride // 2  # the strided 3x3 that opens the coarser branch
        pixels += cfg[stage]["num_modules"] * cfg[stage]["num_blocks"][-1] * 2 * stride  # two 3x3
    pixels += 32 + 32  # a coarse cell spread by nearest upsampling, and its neighbour by bilinear
    return pixels + (4 + 2) + (2 + 1)  # the head: two bilinear steps and two 3x3
