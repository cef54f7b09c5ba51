"""Simulated nanoparticles of which many touch, each with its number."""

import numpy as np

from emfm.data.object_sizes import diameters
from emfm.data.objects import LabelledObjects
from emfm.simulate.nanoparticles import NanoparticleParameters, SimulatedMicrograph, simulate_nanoparticles

SIDE = 512  # of a micrograph in pixels
TOUCHING = NanoparticleParameters(touching_fraction=0.6, pixels_across=(30.0, 60.0), coverage=(0.2, 0.4))


def simulated(count: int, first: int) -> LabelledObjects:
    """Return simulated micrographs, of seeds from `first` on, with the numbers of their particles."""
    made = [simulate_nanoparticles((SIDE, SIDE), first + number, TOUCHING) for number in range(count)]
    names = [f"{first + number}.tif" for number in range(count)]
    images: list = [one.image for one in made]
    return LabelledObjects(images, names, [one.pixel_size for one in made], [numbered(one) for one in made])


def numbered(micrograph: SimulatedMicrograph) -> np.ndarray:
    """Return the number of each pixel's particle (H, W) int32; shared pixels have the deeper one's."""
    ids = np.zeros(micrograph.mask.shape, dtype=np.int32)
    nearest = np.ones(ids.shape)  # distance from the middle as a share of the radius
    particles = micrograph.particles
    modulation = np.abs(particles.outlines[:, :5])
    bent = np.sqrt(1 + (modulation**2).sum(axis=1) / 2)  # which enlarges the area
    radii = particles.diameters / micrograph.pixel_size / 2 / bent  # in pixels
    reaches = radii * (1 + modulation.sum(axis=1)) + 1
    for number, (middle, reach) in enumerate(zip(particles.centers, reaches, strict=True)):
        first = np.clip(np.floor(middle - reach), 0, ids.shape).astype(int)
        last = np.clip(np.ceil(middle + reach) + 1, 0, ids.shape).astype(int)
        box = slice(first[0], last[0]), slice(first[1], last[1])
        rows, columns = np.ogrid[box]
        down, right = rows - middle[0], columns - middle[1]
        outline = np.polyval(particles.outlines[number], np.exp(1j * np.arctan2(down, right))).real
        share = np.hypot(down, right) / (radii[number] * outline)
        nearer = share < nearest[box]
        ids[box][nearer], nearest[box][nearer] = number + 1, share[nearer]
    return np.where(micrograph.mask > 0, ids, 0)


def median_error(found: list[np.ndarray], true: list[np.ndarray]) -> float:
    """Return how far the median diameter of all whole objects is from the true one, as a share of that."""
    medians = [np.median(np.concatenate([diameters(whole(ids)) for ids in each])) for each in (found, true)]
    return float(medians[0] / medians[1] - 1)


def whole(ids: np.ndarray) -> np.ndarray:
    """Return the objects (H, W) that the edge of the micrograph does not cut."""
    cut = np.unique(np.concatenate([ids[0], ids[-1], ids[:, 0], ids[:, -1]]))
    return np.where(np.isin(ids, cut), 0, ids).astype(np.int64)
