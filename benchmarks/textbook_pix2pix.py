"""Pix2pix as a textbook has it: fp32, eager, one pass of the discriminator after the other, nothing clever."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TextbookPix2Pix:
    """Alternating least-squares GAN steps with 100 x L1, after the loop of Isola et al. 2017.

    Args:
        generator: maps (B, 1, H, W) to an output with `reconstruction`.
        discriminator: scores (condition, image).
    """

    def __init__(self, generator: nn.Module, discriminator: nn.Module):
        self.generator, self.discriminator = generator, discriminator
        self.generator_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
        self.discriminator_optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))

    def step(self, damaged: Tensor, clean: Tensor) -> None:
        """Train the discriminator, then the generator, on one batch."""
        fake = self.generator(damaged).reconstruction

        self.discriminator.requires_grad_(True)
        self.discriminator_optimizer.zero_grad()
        fake_score = self.discriminator(damaged, fake.detach())
        fake_loss = F.mse_loss(fake_score, torch.zeros_like(fake_score))
        real_score = self.discriminator(damaged, clean)
        real_loss = F.mse_loss(real_score, torch.ones_like(real_score))
        (0.5 * (fake_loss + real_loss)).backward()
        self.discriminator_optimizer.step()

        self.discriminator.requires_grad_(False)
        self.generator_optimizer.zero_grad()
        score = self.discriminator(damaged, fake)
        loss = F.mse_loss(score, torch.ones_like(score)) + 100.0 * F.l1_loss(fake, clean)
        loss.backward()
        self.generator_optimizer.step()
