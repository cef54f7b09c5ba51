"""Adversarial losses of pretraining."""

import torch.nn.functional as F
from torch import Tensor

from emfm.errors import EMError
from emfm.pretraining.arguments import ADVERSARIAL


def discriminator_loss(real: Tensor, fake: Tensor, kind: str) -> Tensor:
    """Return the discriminator's loss from its raw scores on real and generated images.

    Args:
        real: scores of real images, any shape.
        fake: scores of generated images.
        kind: "lsgan" (Mao et al. 2017, as in the paper), "vanilla" (Goodfellow et al. 2014) or "hinge".
    """
    if kind == "lsgan":
        return 0.5 * ((real - 1).square().mean() + fake.square().mean())
    if kind == "vanilla":
        return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
    if kind == "hinge":
        return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    raise EMError(f"adversarial loss '{kind}' is not known; expected one of {', '.join(ADVERSARIAL)}")


def generator_loss(fake: Tensor, kind: str) -> Tensor:
    """Return the adversarial part of the generator's loss from the scores of its images; kinds as above."""
    if kind == "lsgan":
        return (fake - 1).square().mean()
    if kind == "vanilla":
        return F.softplus(-fake).mean()
    if kind == "hinge":
        return -fake.mean()
    raise EMError(f"adversarial loss '{kind}' is not known; expected one of {', '.join(ADVERSARIAL)}")
