"""What a generator learns in pretraining beside restoring; the heads for it are left behind.

A generator that only removes damage need not know what is where. Two signals ask for more: what
hand-made filters see in the clean micrograph, and where the regions of simulated structures lie.
Random forests on pixels learn from such responses (Arganda-Carreras et al. 2017, Trainable Weka).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emfm.data.degradations import gaussian_blur
from emfm.modeling import EMFoundation

SCALES = (1.0, 2.0, 4.0)  # of the filters: standard deviations of the Gaussian, in pixels
CHANNELS = 5 * len(SCALES)
# Bring the responses of a typical micrograph to the size of its network values.
GAIN, CONTRAST_GAIN = 3.0, 2.0


class Crops(NamedTuple):
    """A batch of crops, network values."""

    damaged: Tensor  # micrographs (B, 1, H, W)
    clean: Tensor  # the same without damage
    structures: Tensor | None = None  # simulated ones (N, 1, H, W), if they are learnt from
    regions: Tensor | None = None  # their flat regions and boundaries (N, 2, H, W)


@dataclass
class PretextOutput:
    """What the generator made of a batch; None where a signal is not learnt."""

    reconstruction: Tensor  # (B, 1, H, W)
    filters: Tensor | None = None  # (B, 15, H, W)
    regions: Tensor | None = None  # (N, 2, H, W), the boundaries as logits


class Pretext(nn.Module):
    """A generator, trained in place, with a 1x1 convolution for each further signal."""

    def __init__(self, generator: EMFoundation, filters: bool = False, structures: bool = False):
        super().__init__()
        self.generator = generator
        channels = generator.trunk.channels[0]
        self.filter_head = nn.Conv2d(channels, CHANNELS, 1) if filters else None
        # flat regions and boundaries, see `emfm.pretraining.crops.StructureCrops`
        self.region_head = nn.Conv2d(channels, 2, 1) if structures else None

    def forward(self, damaged: Tensor, structures: Tensor | None = None) -> PretextOutput:
        """Run the generator on micrographs, then on structures: batch statistics stay apart."""
        features = self.generator.features(damaged)[0]
        output = PretextOutput(self.generator.restored_from(features, damaged))
        if self.filter_head is not None:
            output.filters = self.filter_head(features)
        if self.region_head is not None and structures is not None:
            output.regions = self.region_head(self.generator.features(structures)[0])
        return output


def pretext_losses(output: PretextOutput, crops: Crops) -> dict[str, Tensor]:
    """Return each further signal's loss: L1 of filters and regions, cross-entropy of boundaries."""
    losses: dict[str, Tensor] = {}
    if output.filters is not None:
        losses["filters"] = F.l1_loss(output.filters.float(), filter_responses(crops.clean))
    if output.regions is not None:
        assert crops.regions is not None
        flat, boundary = output.regions.float().split(1, dim=1)
        losses["regions"] = F.l1_loss(flat, crops.regions[:, :1])
        losses["boundaries"] = F.binary_cross_entropy_with_logits(boundary, crops.regions[:, 1:])
    return losses


def filter_responses(images: Tensor) -> Tensor:
    """Return the responses of images (B, 1, H, W) as (B, 15, H, W): five at each of three scales.

    Of the smoothed image: the gradient's length, the Hessian's larger and smaller eigenvalue, both
    made independent of the scale; the standard deviation of what the smoothing removed, in a
    neighbourhood of twice the scale; and the smoothed image itself.
    """
    found = []
    for scale in SCALES:
        smooth = gaussian_blur(images, images.new_full((len(images),), scale))
        down, right = _slope(smooth, -2), _slope(smooth, -1)
        gradient = (down.square() + right.square() + 1e-8).sqrt()
        vertical, horizontal, mixed = _slope(down, -2), _slope(right, -1), _slope(right, -2)
        middle = (vertical + horizontal) / 2
        half = ((vertical - horizontal).square() / 4 + mixed.square() + 1e-10).sqrt()
        removed = gaussian_blur((images - smooth).square(), images.new_full((len(images),), 2 * scale))
        found += [GAIN * scale * gradient, GAIN * scale**2 * (middle + half), GAIN * scale**2 * (middle - half)]
        found += [CONTRAST_GAIN * removed.clamp_min(1e-8).sqrt(), smooth]
    return torch.cat(found, dim=1)


def _slope(images: Tensor, axis: int) -> Tensor:
    """Return central differences along an axis (-2 or -1); edges are repeated."""
    padding = (1, 1, 0, 0) if axis == -1 else (0, 0, 1, 1)
    padded = F.pad(images, padding, mode="replicate")
    length = images.shape[axis]
    return (padded.narrow(axis, 2, length) - padded.narrow(axis, 0, length)) / 2
