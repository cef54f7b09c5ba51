"""The trunks: everything of a generator but its 1x1 output convolution."""

from dataclasses import dataclass
from types import ModuleType

from emfm.backbones import hrnet, unet
from emfm.backbones.trunk import Trunk


@dataclass(frozen=True)
class Backbone:
    """A trunk class, and the module whose `receptive_field` and `reach` describe it."""

    trunk: type[Trunk]
    geometry: ModuleType


BACKBONES = {
    "unet": Backbone(unet.UNetTrunk, unet),
    "hrnet": Backbone(hrnet.HRNetTrunk, hrnet),
}
