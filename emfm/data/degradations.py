"""What pretraining does to a micrograph: damage on whole batches, each image's share decided by (seed, epoch, index).

Values are network values, where -1 and +1 are a micrograph's lower and upper percentile; so a noise of 0.5 has a
quarter of the contrast between them as its standard deviation.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from emfm.data.corruptions import CORRUPTIONS, CorruptionStrength
from emfm.data.keyed_random import KeyedRandom
from emfm.errors import EMError

# Electrons per pixel where the network value is -1, as a share of those where it is +1: no region is free of them.
DARK = 0.1


class Corruption:
    """Damages batches of clean crops.

    "paper" blurs, then adds noise, as Kazimi et al. 2024 (arXiv:2402.18286) do with strengths that they do not state.
    "dose" does what a microscope does: defocus, displaced scan lines, counting of few electrons, read-out noise and a
    slow background; half of the crops have their contrast inverted, input and target alike. "masked" hides square
    blocks on top of "paper", "dose+masked" on top of "dose".

    Args:
        kind: a key of `CORRUPTIONS`.
        strength: ranges of the damage.
        seed: with each crop's key it decides everything.
    """

    def __init__(self, kind: str, strength: CorruptionStrength, seed: int):
        if kind not in CORRUPTIONS:
            raise EMError(f"corruption '{kind}' is not known; expected one of {', '.join(CORRUPTIONS)}")
        self.damage, self.masked = CORRUPTIONS[kind]
        self.strength, self.seed = strength, seed

    @torch.no_grad()
    def __call__(self, clean: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Return damaged input and clean target.

        Args:
            clean: (B, 1, H, W) network values; not modified.
            keys: (B, 2) int64, epoch and index of each crop, on the same device.
        """
        random = KeyedRandom(self.seed, keys)
        if self.damage == "dose":
            sign = torch.where(random.uniform(1, 1, 1) < self.strength.inverted, -1.0, 1.0)
            clean = clean * sign
            damaged = self._microscope(clean, random)
        else:
            damaged = gaussian_blur(clean, random.between(self.strength.blur))
            damaged = damaged + random.between(self.strength.noise) * random.normal(*clean.shape[1:])
        if self.masked:
            damaged = damaged * self._visible(random, clean)
        return damaged, clean

    def _microscope(self, clean: Tensor, random: KeyedRandom) -> Tensor:
        """Image (B, 1, H, W) with few electrons, in the order in which they meet lens, scan, sample and detector."""
        strength = self.strength
        image = gaussian_blur(clean, random.between(strength.defocus))
        image = displace_lines(image, random.between(strength.jitter) * random.normal(1, clean.shape[2], 1))
        # a slow background: smooth, with a standard deviation of about 1, from a 4 x 4 grid of values
        amplitude, grid = random.between(strength.background), random.normal(1, 4, 4)
        background = F.interpolate(grid, size=clean.shape[-2:], mode="bicubic", align_corners=True)
        image = image + amplitude * background
        low, high = np.log(strength.dose)
        dose = torch.exp(random.between((float(low), float(high))))
        share = DARK + (1 - DARK) * (image + 1) / 2  # of the dose; 1 at the network value +1
        counts = random.poisson((dose * share).clamp_min(0))
        counted = 2 * (counts / dose - DARK) / (1 - DARK) - 1
        return counted + random.between(strength.read_out) * random.normal(*clean.shape[1:])

    def _visible(self, random: KeyedRandom, clean: Tensor) -> Tensor:
        """Return (B, 1, H, W) of ones, zero in the hidden blocks."""
        height, width = clean.shape[-2:]
        block = self.strength.block
        share = random.between(self.strength.masked_share)
        shown = (random.uniform(1, -(-height // block), -(-width // block)) >= share).to(clean.dtype)
        return F.interpolate(shown, scale_factor=block, mode="nearest")[..., :height, :width]


def displace_lines(images: Tensor, shifts: Tensor) -> Tensor:
    """Move every line of (B, 1, H, W) sideways by its own distance, as an unsteady scan does; edges are repeated.

    Shifts (B, 1, H, 1) are in pixels; between pixels the values are interpolated linearly.
    """
    width = images.shape[-1]
    places = (torch.arange(width, device=images.device) + shifts).clamp(0, width - 1)
    left = places.floor()
    share = places - left
    indices = left.long()
    beside = (indices + 1).clamp_max(width - 1)
    return images.gather(-1, indices) * (1 - share) + images.gather(-1, beside) * share


def gaussian_blur(images: Tensor, sigmas: Tensor) -> Tensor:
    """Blur every image of a batch (B, 1, H, W) with its own Gaussian, edges mirrored.

    Of the B standard deviations, in pixels, 0 leaves the image as it is.
    """
    radius = int(np.ceil(3 * float(sigmas.max())))
    if radius == 0:
        return images
    batch, _, height, width = images.shape
    if radius >= min(height, width):
        raise EMError(f"a blur of {float(sigmas.max()):.1f} px reaches {radius} px, the image is {height} x {width}")
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    sigmas = sigmas.view(-1, 1).clamp_min(1e-3)  # 0 becomes a kernel of one pixel
    within = offsets.abs() <= torch.ceil(3 * sigmas)  # an image's own reach, whatever the rest of the batch needs
    kernel = torch.exp(-0.5 * (offsets / sigmas) ** 2) * within
    kernel = kernel / kernel.sum(dim=1, keepdim=True)  # (B, 2 radius + 1)
    padded = F.pad(images, (radius,) * 4, mode="reflect").transpose(0, 1)  # the batch becomes groups
    blurred = F.conv2d(padded, kernel.view(batch, 1, -1, 1), groups=batch)
    return F.conv2d(blurred, kernel.view(batch, 1, 1, -1), groups=batch).transpose(0, 1)
