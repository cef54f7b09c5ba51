"""The trunks: everything of a generator but its 1x1 output convolution."""

from dataclasses import dataclass
from types import ModuleType

from torch import nn

from emfm.backbones import hrnet, unet


@dataclass(frozen=True)
class Backbone:
    """A trunk class, and the module whose `receptive_field` and `reach` describe it."""

    trunk: type[nn.Module]
    geometry: ModuleType


BACKBONES = {
    "unet": Backbone(unet.UNetTrunk, unet),
    "hrnet": Backbone(hrnet.HRNetTrunk, hrnet),
}
