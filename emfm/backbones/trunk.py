"""What every backbone offers: a subclass of `Trunk` in a file of its own."""

from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emfm.errors import EMError


class TrunkConfig(Protocol):
    """The fields of a configuration that a trunk is built from; their meaning is its own."""

    width: int
    dilations: list[int] | tuple[int, ...]
    norm: str
    variant: str | None


class Trunk(nn.Module):
    """Everything of a generator but its head, built from a configuration that `check` accepts."""

    generators: ClassVar[tuple[str, ...]]  # names of the backbone's generators that are listed
    names_hint: ClassVar[str] = ""  # added to messages, after a blank: other names that are valid
    norms: ClassVar[tuple[str, ...]]  # what `norm` of a configuration may be, the usual one first
    full_resolution: ClassVar[bool]  # whether the input's pixels reach the last map unpooled
    channels: list[int]  # channels of the maps that `features` returns, finest first
    stride: int  # input sides must be a multiple of this; `EMFoundation` pads and crops
    reach: int  # how far, in pixels, an output pixel can see in any direction, or an upper bound
    bytes_per_pixel: int  # about how much memory a prediction takes for each pixel of its input

    def __init__(self, config: TrunkConfig):
        super().__init__()

    @classmethod
    def fields_of(cls, name: str) -> dict[str, Any] | None:
        """Return the fields that a generator's name stands for, None if it is not its own."""
        return {} if name in cls.generators else None

    @classmethod
    def check(cls, config: TrunkConfig) -> None:
        """Raise an EMError where a field does not fit; `norm` is checked already."""

    @property
    def receptive_field(self) -> int:
        """Side of the receptive field in pixels, or an upper bound of it."""
        return 2 * self.reach + 1

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout that trains fastest on CPUs: channels last, which instance norm would copy."""
        copied = any(isinstance(module, nn.InstanceNorm2d) for module in self.modules())
        return torch.contiguous_format if copied else torch.channels_last

    def fold(self) -> None:
        """Make batch norms in evaluation mode part of the convolutions, where that is faster."""

    def load_imagenet(self) -> str:
        """Give the encoder its ImageNet weights, in place; return where they are from.

        Raises:
            EMError: there are none, or they cannot be had here.
        """
        raise EMError("there are no ImageNet weights for this network: choose timm-ENCODER, or an HRNet")

    def features(self, x: Tensor) -> list[Tensor]:
        """Return multi-scale maps, finest first, at strides 1, 2, 4, ...

        Args:
            x: (B, 1, H, W), H and W multiples of `stride`.
        """
        raise NotImplementedError

    def blocks(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Return encoder blocks and decoder blocks, each in the order in which an image passes."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 1, H, W) to the full-resolution features (B, channels[0], H, W)."""
        return self.features(x)[0]


def halved(x: Tensor) -> Tensor:
    """Return the largest value of each square of 2 x 2 pixels, (B, C, H / 2, W / 2).

    Forward on a CPU the maximum of four slices takes a fraction of max_pool2d's time. Backward, on
    a GPU and in exports max_pool2d is the better one.
    """
    if torch.is_grad_enabled() or x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.max_pool2d(x, 2)
    upper = torch.maximum(x[..., ::2, ::2], x[..., ::2, 1::2])
    return torch.maximum(upper, torch.maximum(x[..., 1::2, ::2], x[..., 1::2, 1::2]))
