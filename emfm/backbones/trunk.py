"""What every trunk offers."""

from torch import Tensor, nn


class Trunk(nn.Module):
    """Everything of a generator but its 1x1 output convolution.

    Attributes:
        channels: channels of the maps that `features` returns, finest first.
        stride: input sides must be a multiple of this; `EMFoundation` pads and crops.
        full_resolution: whether the input's own pixels reach the last map without having been pooled.
    """

    channels: list[int]
    stride: int
    full_resolution: bool

    def features(self, x: Tensor) -> list[Tensor]:
        """Return multi-scale maps, finest first, at strides 1, 2, 4, ...

        Args:
            x: (B, 1, H, W), H and W multiples of `stride`.
        """
        raise NotImplementedError

    def blocks(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Return the encoder's blocks and the decoder's, each in the order in which an image passes them."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 1, H, W) to the full-resolution features (B, channels[0], H, W)."""
        return self.features(x)[0]
