"""What pretraining does to the input: damage on whole batches, each image's share decided by (seed, index) alone.

Values are network values, where -1 and +1 are a micrograph's lower and upper percentile; so a noise of 0.5 has a
quarter of the contrast between them as its standard deviation.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from emfm.errors import EMError

CORRUPTIONS = ("paper", "masked")


@dataclass(frozen=True)
class CorruptionStrength:
    """Ranges from which each image draws its damage, uniformly; stored with the weights.

    Args:
        noise: standard deviation of the Gaussian noise, in network values.
        blur: standard deviation of the Gaussian blur, in pixels.
        masked_share: share of the area that `masked` hides.
        block: side of a hidden block in pixels.
    """

    noise: tuple[float, float] = (0.0, 0.5)
    blur: tuple[float, float] = (0.0, 2.0)
    masked_share: tuple[float, float] = (0.2, 0.5)
    block: int = 16


class Corruption:
    """Damages batches of clean crops.

    "paper" blurs, then adds noise, as Kazimi et al. 2024 (arXiv:2402.18286) do with strengths that they do not state.
    "masked" hides square blocks on top of it.

    Args:
        kind: "paper" or "masked".
        strength: ranges of the damage.
        seed: with each crop's key it decides everything.
    """

    def __init__(self, kind: str, strength: CorruptionStrength, seed: int):
        if kind not in CORRUPTIONS:
            raise EMError(f"corruption '{kind}' is not known; expected one of {', '.join(CORRUPTIONS)}")
        self.kind, self.strength, self.seed = kind, strength, seed

    def __call__(self, clean: Tensor, keys: Tensor) -> Tensor:
        """Return the damaged batch.

        Args:
            clean: (B, 1, H, W) network values.
            keys: (B,) integers, one per crop.
        """
        rngs = [np.random.default_rng((self.seed, key, 1)) for key in keys.tolist()]
        damaged = gaussian_blur(clean, self._draw(rngs, self.strength.blur, clean))
        noise = torch.from_numpy(np.stack([rng.standard_normal(clean.shape[1:], dtype=np.float32) for rng in rngs]))
        damaged = damaged + self._draw(rngs, self.strength.noise, clean) * noise.to(clean.device)
        if self.kind == "masked":
            damaged = damaged * self._visible(rngs, clean)
        return damaged

    @staticmethod
    def _draw(rngs: list[np.random.Generator], interval: tuple[float, float], like: Tensor) -> Tensor:
        drawn = [rng.uniform(*interval) for rng in rngs]
        return torch.tensor(drawn, dtype=like.dtype, device=like.device).view(-1, 1, 1, 1)

    def _visible(self, rngs: list[np.random.Generator], clean: Tensor) -> Tensor:
        """Return (B, 1, H, W) of ones, zero in the hidden blocks."""
        height, width = clean.shape[-2:]
        block = self.strength.block
        grid = -(-height // block), -(-width // block)
        shown = np.stack([rng.random(grid) >= rng.uniform(*self.strength.masked_share) for rng in rngs])
        blocks = torch.from_numpy(shown).to(clean)[:, None]
        full = blocks.repeat_interleave(block, dim=2).repeat_interleave(block, dim=3)
        return full[..., :height, :width]


def gaussian_blur(images: Tensor, sigmas: Tensor) -> Tensor:
    """Blur every image of a batch with its own Gaussian, edges mirrored.

    Args:
        images: (B, 1, H, W).
        sigmas: B standard deviations in pixels; 0 leaves the image as it is.
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
