"""What a generator learns in pretraining beside restoring micrographs; the heads for it are left behind.

A generator that only removes damage need not know what is where. Two signals ask for more: what hand-made filters see
in the clean micrograph, and where the regions of simulated structures lie.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from emfm.modeling import EMFoundation
from emfm.pretraining.filters import CHANNELS, filter_responses

# Flat regions and boundaries, see `emfm.pretraining.crops`.
REGION_CHANNELS = 2


class Crops(NamedTuple):
    """A batch.

    Attributes:
        damaged: micrographs (B, 1, H, W), network values.
        clean: the same without damage.
        structures: simulated ones (N, 1, H, W); None where they are not learnt from.
        regions: their flat regions and boundaries (N, 2, H, W).
    """

    damaged: Tensor
    clean: Tensor
    structures: Tensor | None = None
    regions: Tensor | None = None


@dataclass
class PretextOutput:
    """What the generator made of a batch: `reconstruction` (B, 1, H, W), and where they are learnt, logits and maps."""

    reconstruction: Tensor
    filters: Tensor | None = None
    regions: Tensor | None = None


class Pretext(nn.Module):
    """A generator with one 1x1 convolution for each further signal.

    Args:
        generator: is trained in place.
        filters: whether it learns the filters' responses.
        structures: whether it learns the regions of simulated structures.
    """

    def __init__(self, generator: EMFoundation, filters: bool = False, structures: bool = False):
        super().__init__()
        self.generator = generator
        channels = generator.trunk.channels[0]
        self.filter_head = nn.Conv2d(channels, CHANNELS, 1) if filters else None
        self.region_head = nn.Conv2d(channels, REGION_CHANNELS, 1) if structures else None

    def forward(self, damaged: Tensor, structures: Tensor | None = None) -> PretextOutput:
        """Run the generator on micrographs and, by themselves, on structures: each has its own batch statistics."""
        features = self.generator.features(damaged)[0]
        output = PretextOutput(self.generator.restored_from(features, damaged))
        if self.filter_head is not None:
            output.filters = self.filter_head(features)
        if self.region_head is not None and structures is not None:
            output.regions = self.region_head(self.generator.features(structures)[0])
        return output


def pretext_losses(output: PretextOutput, crops: Crops) -> dict[str, Tensor]:
    """Return the loss of each further signal: L1 of filters and flat regions, cross-entropy of the boundaries."""
    losses: dict[str, Tensor] = {}
    if output.filters is not None:
        losses["filters"] = F.l1_loss(output.filters.float(), filter_responses(crops.clean))
    if output.regions is not None:
        assert crops.regions is not None
        flat, boundary = output.regions.float().split(1, dim=1)
        losses["regions"] = F.l1_loss(flat, crops.regions[:, :1])
        losses["boundaries"] = F.binary_cross_entropy_with_logits(boundary, crops.regions[:, 1:])
    return losses
