"""A simulated volume of balls, some of them touching, with the number of its ball at every voxel.

SIMULATED: balls of one grey value in a matrix of another with a slow texture, blurred, with noise. No
physics of a microscope.
"""

from dataclasses import dataclass

import numpy as np
import tifffile
from scipy import ndimage

from emfm.files import write_text

MATRIX, BALL, NOISE, TEXTURE = 110.0, 150.0, 28.0, 10.0  # grey values; the noise's standard deviation
RADII = (7.0, 13.0)  # voxels
TOUCHING = 0.4  # share of the balls that are set against an earlier one
TRIES = 60  # for a place
SIDE = 8.0  # nm of a voxel


@dataclass(frozen=True, eq=False)
class BallVolume:
    """What was simulated."""

    image: np.ndarray  # (Z, Y, X) uint8
    clean: np.ndarray  # the same without noise
    ids: np.ndarray  # (Z, Y, X) uint16, 0 is the matrix
    radii: np.ndarray  # (N,) voxels, of ball 1, 2, ...


def simulate_balls(shape: tuple[int, int, int], seed: int, share: float = 0.2) -> BallVolume:
    """Simulate a volume in which balls take about a share of the voxels."""
    rng = np.random.default_rng(seed)
    wanted = int(share * np.prod(shape) / (4 / 3 * np.pi * np.mean(RADII) ** 3))
    middles, radii = np.empty((0, 3)), np.empty(0)
    for _ in range(wanted):
        for _ in range(TRIES):
            radius = rng.uniform(*RADII)
            place = rng.uniform(0, shape)
            if len(radii) and rng.random() < TOUCHING:
                other, direction = rng.integers(len(radii)), rng.normal(size=3)
                place = middles[other] + (radii[other] + radius) * direction / np.linalg.norm(direction)
            distance = np.linalg.norm(middles - place, axis=1) if len(radii) else np.empty(0)
            # apart, or just touching
            if (distance >= radii + radius - 0.01).all():
                middles, radii = np.vstack([middles, place]), np.append(radii, radius)
                break
    ids = np.zeros(shape, dtype=np.uint16)
    for number, (middle, radius) in enumerate(zip(middles, radii, strict=True), start=1):
        low = np.maximum(0, np.floor(middle - radius)).astype(int)
        high = np.maximum(low, np.minimum(shape, np.ceil(middle + radius + 1)).astype(int))
        place = tuple(slice(*ends) for ends in zip(low, high, strict=True))
        points = np.stack(np.meshgrid(*(np.arange(*ends) for ends in zip(low, high, strict=True)), indexing="ij"), -1)
        inside = ((points - middle) ** 2).sum(axis=-1) <= radius**2
        ids[place][inside] = number
    clean = ndimage.gaussian_filter(np.where(ids > 0, BALL, MATRIX), 1.0)
    texture = ndimage.gaussian_filter(rng.normal(size=shape), 6.0)
    clean += TEXTURE * texture / texture.std()
    image = clean + rng.normal(scale=NOISE, size=shape)
    return BallVolume(*(np.clip(np.rint(part), 0, 255).astype(np.uint8) for part in (image, clean)), ids, radii)


def write_volume(path, volume: np.ndarray, side: float | None = SIDE) -> None:
    """Write a volume as a TIFF stack with the sides of its voxels in nm."""
    kind = {} if side is None else {"resolution": (1e7 / side, 1e7 / side), "resolutionunit": "CENTIMETER"}
    described = {"axes": "ZYX"} if side is None else {"axes": "ZYX", "spacing": side, "unit": "nm"}
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, volume, photometric="minisblack", metadata=described, **kind)


def write_labelled_balls(folder, truth: str, seeds: tuple[int, int] = (0, 1)) -> None:
    """Write stacks to train and to validate with: `images/`, and `masks/` or `instances/`."""
    for name, seed in zip(("train.tif", "validation.tif"), seeds, strict=True):
        volume = simulate_balls((24, 128, 128), seed)
        write_volume(folder / "images" / name, volume.image)
        labels = (volume.ids > 0).astype(np.uint8) if truth == "masks" else volume.ids
        write_volume(folder / truth / name, labels, None)
    write_text(folder / "splits.json", '{"train": ["train.tif"], "validation": ["validation.tif"]}')
    if truth == "masks":
        write_text(folder / "labels.json", '{"0": "background", "1": "ball"}')
