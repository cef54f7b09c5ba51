"""How training crops are varied, so that a network sees more than few micrographs hold.

Turns by 90 degrees and mirrors come besides, see `emfm.data.croppers`: they change no pixel.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

# At strength 1: the largest zoom in or out; the standard deviation in pixels of the bending's
# displacements, at knots so many pixels apart; and the share of the crops that are bent.
ZOOM, BEND, KNOT, BENT = 1.4, 6.0, 64, 0.3
# Share of the crops that are zoomed and turned freely.
WARPED = 0.7
# The largest exponent of a change of gamma, and of its inverse; the share of the crops.
GAMMA, GAMMA_SHARE = 1.5, 0.4
# The largest blur (standard deviation in pixels) and noise (in network values), and their shares.
BLUR, BLUR_SHARE = 1.2, 0.2
NOISE, NOISE_SHARE = 0.25, 0.3

Coordinates = np.ndarray  # rows and columns (2, H, W) of a micrograph, no whole numbers
# Gives the network values of a crop another contrast and brightness.
IntensityChange = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training crop.

    Attributes:
        jitter: factors 1 +- jitter and summands +- jitter, in network values; 0: none.
        strength: of zoom, free rotation, bending, gamma, blur and noise; 0: none, 1: the usual.
    """

    jitter: float
    strength: float = 0.0

    def draw(self, rng: np.random.Generator) -> IntensityChange:
        """Return a change of contrast and brightness, which serves input and target alike."""
        contrast, brightness = rng.uniform(-self.jitter, self.jitter, 2)
        factor, summand = np.float32(1 + contrast), np.float32(brightness)
        return lambda values: values * factor + summand

    def view(self, rng: np.random.Generator, centre: tuple[int, int], side: int) -> Coordinates | None:
        """Return where the pixels of a crop (side, side) lie in its micrograph; None: as they are.

        Args:
            rng: decides.
            centre: row and column of the middle of the crop.
            side: of the crop in pixels.
        """
        if not self.strength or rng.random() > WARPED:
            return None
        angle = rng.uniform(-np.pi / 4, np.pi / 4)  # with the turns by 90 degrees, every one
        zoom = ZOOM ** (self.strength * rng.uniform(-1, 1))
        offsets = np.arange(side) - (side - 1) / 2
        down, right = np.meshgrid(offsets, offsets, indexing="ij")
        sine, cosine = np.sin(angle) * zoom, np.cos(angle) * zoom
        places = np.stack([cosine * down - sine * right, sine * down + cosine * right])
        if rng.random() < BENT:
            knots = side // KNOT + 4
            bends = rng.normal(0, BEND * self.strength, (2, knots, knots))
            grid = np.stack([down, right]) / KNOT + (knots - 1) / 2
            places += np.stack([ndimage.map_coordinates(bend, grid, order=3, mode="nearest") for bend in bends])
        return places + np.reshape(centre, (2, 1, 1))

    def degrade(self, rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
        """Return network values (H, W) with another gamma, less sharpness or more noise."""
        if not self.strength:
            return values
        if rng.random() < GAMMA_SHARE:
            exponent = GAMMA ** (self.strength * rng.uniform(-1, 1))
            share = (values + 1) / 2  # of the range between the micrograph's percentiles
            values = np.where(share > 0, np.abs(share) ** exponent, share) * 2 - 1
        if rng.random() < BLUR_SHARE:
            values = ndimage.gaussian_filter(values, rng.uniform(0, BLUR * self.strength))
        if rng.random() < NOISE_SHARE:  # as counted electrons have it: more where it is bright
            spread = rng.uniform(0, NOISE * self.strength) * np.sqrt(np.clip((values + 2) / 3, 0.1, 1.5))
            values = values + spread * rng.standard_normal(values.shape)
        return values.astype(np.float32)


def sample(image: np.ndarray, places: Coordinates) -> np.ndarray:
    """Return values of an image (H, W) between its pixels, bilinear; its edges are mirrored."""
    return ndimage.map_coordinates(image.astype(np.float64), places, order=1, mode="mirror", prefilter=False)


def sample_nearest(mask: np.ndarray, places: Coordinates) -> np.ndarray:
    """Return values of the nearest pixels of a mask (H, W); its edges are mirrored."""
    return ndimage.map_coordinates(mask, places, order=0, mode="mirror", prefilter=False)
