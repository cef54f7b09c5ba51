"""What turns a trunk's features into an image: drawn anew, or as a change of the input."""

import torch
from torch import Tensor, nn

from emfm.backbones.trunk import Trunk

# Channels of the path for details beside a trunk that has none at full resolution.
DETAILS = 16


class ImageHead(nn.Conv2d):
    """Draws the image itself: one 1x1 convolution, as in Kazimi et al. 2024 (arXiv:2402.18286)."""

    def __init__(self, trunk: Trunk):
        super().__init__(trunk.channels[0], 1, 1)

    @property
    def out(self) -> nn.Conv2d:
        """The convolution itself."""
        return self

    def read(self, features: Tensor, image: Tensor) -> Tensor:
        """Return the features."""
        return features

    def restored(self, outputs: Tensor, image: Tensor) -> Tensor:
        """Return the outputs (B, 1, H, W): they are the image."""
        return outputs


class ResidualHead(nn.Module):
    """Says for every pixel what is to be added to the input, and how much of the input stays.

    A trunk without a path at full resolution cannot tell one pixel from the next: two small convolutions beside it
    see the input itself.
    """

    def __init__(self, trunk: Trunk):
        super().__init__()
        self.details: nn.Sequential | None = None
        channels = trunk.channels[0]
        if not trunk.full_resolution:
            channels += DETAILS
            self.details = nn.Sequential(
                nn.Conv2d(1, DETAILS, 5, padding=2, padding_mode="replicate"),
                nn.ReLU(),
                nn.Conv2d(DETAILS, DETAILS, 3, padding=1, padding_mode="replicate"),
                nn.ReLU(),
            )
        self.out = nn.Conv2d(channels, 2, 1)

    def read(self, features: Tensor, image: Tensor) -> Tensor:
        """Return what `out` reads, from features (B, C, H, W) and the input (B, 1, H, W)."""
        return features if self.details is None else torch.cat([features, self.details(image)], dim=1)

    def restored(self, outputs: Tensor, image: Tensor) -> Tensor:
        """Return the restored image (B, 1, H, W) from what `out` puts out (B, 2, H, W) and the input."""
        added, share = outputs.chunk(2, dim=1)  # (B, 1, H, W) each
        return image + image * share + added
