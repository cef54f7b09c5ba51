"""Pairs from clean micrographs: the damage of pretraining, larger pixels, or a background."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from emfm.data.degradations import Corruption, CorruptionStrength
from emfm.errors import EMError
from emfm.no_data import filled, no_data
from emfm.processing import EMImageProcessor

# Contrast must stay, and in denoising background and focus, too: "dose" leaves those parts out.
STRENGTHS = {
    "paper": CorruptionStrength(),
    "dose": CorruptionStrength(inverted=0.0, defocus=(0.0, 0.0), jitter=(0.0, 0.5), background=(0.0, 0.0)),
    "background": CorruptionStrength(inverted=0.0, defocus=(0.0, 0.0), jitter=(0.0, 0.5), background=(0.3, 1.0)),
}
DEGRADATIONS = ("dose", "paper", "downsample", "background")
SCALES = (2, 4)
# Epoch of the key of micrographs that are damaged as a whole; training counts from 0.
WHOLE = -1
# A mosaic of so many patches a side stands for the whole when damaged intensities are measured.
PATCHES, PATCH = 4, 16


@dataclass(frozen=True)
class Degradation:
    """Turns clean into damaged micrographs, decided by (seed, epoch, index).

    Kinds are "dose" (counting of few electrons, read-out noise, unsteady scan lines), "paper"
    (Gaussian blur and noise, as in pretraining), "background" ("dose" on a slow background) and
    "downsample" (pixels of `scale` times the size, each the mean of those that it replaces).
    """

    kind: str
    scale: int = 1  # 2 or 4 for "downsample"
    seed: int = 0
    dose: tuple[float, float] | None = None  # fewest and most counts a pixel; None: the usual

    def __post_init__(self):
        if self.kind not in DEGRADATIONS:
            raise EMError(f"degradation '{self.kind}' is not known; expected one of {', '.join(DEGRADATIONS)}")
        if self.kind == "downsample" and self.scale not in SCALES:
            raise EMError(f"scale is {self.scale}; expected 2 or 4 with --degrade downsample")
        if self.kind != "downsample" and self.scale != 1:
            raise EMError(f"scale is {self.scale}; '{self.kind}' keeps the pixels, only 'downsample' has a scale")
        if self.dose is not None and self.kind in ("paper", "downsample"):
            raise EMError(f"dose is {self.dose}, but '{self.kind}' counts no electrons: leave it out")

    def __call__(self, clean: np.ndarray, epoch: int, index: int) -> np.ndarray:
        """Return clean network values (H, W) damaged, (H / scale, W / scale); both float32.

        Sides are multiples of `scale`. Epoch, index in it, and seed decide strength and noise.
        """
        if self.kind == "downsample":
            height, width = clean.shape
            blocks = clean.reshape(height // self.scale, self.scale, width // self.scale, self.scale)
            return blocks.mean(axis=(1, 3), dtype=np.float32)
        strength = STRENGTHS[self.kind] if self.dose is None else replace(STRENGTHS[self.kind], dose=self.dose)
        corrupt = Corruption("paper" if self.kind == "paper" else "dose", strength, self.seed)
        image = torch.from_numpy(np.ascontiguousarray(clean))[None, None]
        damaged, _ = corrupt(image, torch.tensor([[epoch, index]]))
        return damaged[0, 0].numpy()

    def whole(self, image: np.ndarray, index: int) -> np.ndarray:
        """Return a whole micrograph damaged, float32 in its units, H // scale x W // scale."""
        statistics = EMImageProcessor().statistics(image)
        height, width = (length // self.scale * self.scale for length in image.shape)
        values = np.asarray(image[:height, :width], dtype=np.float64)
        missing = no_data(values)
        clean = ((filled(values, missing) - statistics.offset) / statistics.scale).astype(np.float32)
        damaged = self(clean, WHOLE, index) * np.float32(statistics.scale) + np.float32(statistics.offset)
        if missing is not None:  # a larger pixel with a part that holds none holds none
            blocks = missing.reshape(height // self.scale, self.scale, width // self.scale, self.scale)
            damaged[blocks.any(axis=(1, 3))] = np.nan
        return damaged


def mosaic(image: np.ndarray) -> np.ndarray:
    """Return patches from all over a micrograph, 64 x 64 pixels in all; a small one as it is.

    Damaged like a crop, it tells how the damage changes the percentiles of the whole micrograph,
    which would take too long to damage anew for every crop.
    """
    side = PATCHES * PATCH
    if min(image.shape) < side:
        return image[:side, :side]
    rows, columns = (np.linspace(0, length - PATCH, PATCHES).astype(int) for length in image.shape)
    return np.block([[image[row : row + PATCH, column : column + PATCH] for column in columns] for row in rows])
