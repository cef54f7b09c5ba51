"""The conditional PatchGAN discriminator of pix2pix (Isola et al. 2017): judges 70 x 70 pixels at a time."""

import torch
from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """Five 4x4 convolutions, three of them strided; each score sees 70 x 70 pixels of input and output.

    Instance norm makes an image's scores independent of the rest of the batch, so real and generated images can go
    through together.

    Args:
        width: channels of the first layer; 64 in pix2pix. For a narrow generator the discriminator is the larger
            half of a step's cost.
    """

    receptive_field = 70

    def __init__(self, width: int = 64):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(2, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for factor, stride in ((1, 2), (2, 2), (4, 1)):
            layers += [
                nn.Conv2d(factor * width, 2 * factor * width, 4, stride=stride, padding=1, bias=False),
                nn.InstanceNorm2d(2 * factor * width, affine=True),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, padding=1))
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.02)  # as pix2pix does

    def forward(self, condition: Tensor, image: Tensor) -> Tensor:
        """Score patches.

        Args:
            condition: the generator's input (B, 1, H, W).
            image: its output or the clean image (B, 1, H, W).

        Returns:
            Raw scores (B, 1, H / 8 - 2, W / 8 - 2), high for what looks real.
        """
        return self.layers(torch.cat([condition, image], dim=1))
