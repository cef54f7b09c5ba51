"""Simulated structures: regions of many shapes, contrasts and textures, with an exact class map.

These images are SIMULATED and model no specimen. They draw at random what micrographs have in common: phases
that interpenetrate, cells with walls and organelles, particles with and without a shell, fibres; regions that differ in
grey, in texture, or in texture alone; a slow background, blur and noise. A network that learns to tell such regions
apart has learnt what segmentation needs, whatever the specimen is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy.fft import fftfreq, irfft2, rfft2, rfftfreq
from scipy.ndimage import gaussian_filter, grey_dilation
from scipy.spatial import cKDTree

from emfm.simulate.drawing import Shape, check_shape_and_seed

MIN_SIDE = 32  # px
MOST_CLASSES = 6
TEXTURED = 0.75  # chance that a class has a texture of its own
SAME_GREY = 0.25  # chance that the classes of an image, walls apart, differ by little but their textures
SCALE = 1000.0  # counts per unit of contrast, around an offset of 32768


@dataclass(frozen=True, eq=False)
class SimulatedStructures:
    """A simulated image and its class map."""

    image: np.ndarray  # (H, W) uint16, counts
    mask: np.ndarray  # (H, W) uint8, class indices 0 to 5; not every one occurs


@dataclass(frozen=True, eq=False)
class _Layout:
    """Where the classes lie."""

    classes: np.ndarray  # (H, W) class indices
    walls: np.ndarray | None = None  # (H, W) boolean, what lies between regions and has a class of its own
    pieces: np.ndarray | None = None  # (H, W) indices of pieces whose grey varies within a class


def simulate_structures(shape: Shape, seed: int | Sequence[int]) -> SimulatedStructures:
    """Simulate one image of structures; the same shape and seed give the same values under one NumPy version.

    Raises:
        EMError: the height or width is below 32 px, or the seed is not zero, positive, or several such numbers.
    """
    for number in [seed] if isinstance(seed, int | np.integer) else seed:
        check_shape_and_seed(shape, int(number), MIN_SIDE)
    rng = np.random.default_rng(seed)
    layout = LAYOUTS[int(rng.integers(len(LAYOUTS)))](rng, shape)
    classes = np.minimum(layout.classes, MOST_CLASSES - 2)
    count = int(classes.max()) + 1
    if layout.walls is not None:
        classes, count = np.where(layout.walls, count, classes), count + 1
    image = _paint(rng, classes, count, layout)
    image = gaussian_filter(image, rng.uniform(0, 1.5), mode="reflect")
    image += rng.uniform(0, 0.25) * _field(rng, shape, 4, 80)
    image += np.exp(rng.uniform(np.log(0.02), np.log(0.6))) * rng.standard_normal(shape, dtype=np.float32)
    counts = np.clip(np.rint(SCALE * image + 32768), 0, 65535)
    return SimulatedStructures(counts.astype(np.uint16), classes.astype(np.uint8))


def _paint(rng: Generator, classes: np.ndarray, count: int, layout: _Layout) -> np.ndarray:
    """Give each class its grey and its texture."""
    greys = rng.permutation(np.linspace(-1, 1, count + 1))[:count] + rng.normal(0, 0.2, count)
    same = rng.random() < SAME_GREY
    if same:
        inner = count - (layout.walls is not None)
        greys[:inner] = greys[0] + rng.normal(0, 0.08, inner)
    image = greys.astype(np.float32)[classes]
    for index in range(count):
        if same or rng.random() < TEXTURED:
            image += np.where(classes == index, np.float32(rng.uniform(0.05, 0.6)) * _texture(rng, classes.shape), 0)
    if layout.pieces is not None and rng.random() < 0.5:
        image += rng.normal(0, 0.2, int(layout.pieces.max()) + 1).astype(np.float32)[layout.pieces]
    return image


def _phases(rng: Generator, shape: Shape) -> _Layout:
    """Two or three phases: the level sets of a random field."""
    field = _field(rng, shape, rng.uniform(2.5, 5), rng.uniform(8, 60), rng.uniform(0, 1))
    return _Layout(np.digitize(field, np.sort(rng.uniform(-1.2, 1.2, rng.integers(1, 3)))))


def _cells(rng: Generator, shape: Shape) -> _Layout:
    """Cells around random points, curved, with and without walls; half of the images with organelles inside."""
    area = shape[0] * shape[1] / 80**2
    count = int(rng.uniform(4, 40) * area) + 2
    points = rng.uniform(-0.2, 1.2, (count, 2)) * shape
    bend = rng.uniform(0, 4)
    places = np.indices(shape, dtype=np.float32) + bend * np.stack(
        [_field(rng, shape, 4, rng.uniform(10, 40)) for _ in range(2)]
    )
    distances, nearest = cKDTree(points).query(places.reshape(2, -1).T, k=2)
    pieces = nearest[:, 0].reshape(shape)
    gap = (distances[:, 1] - distances[:, 0]).reshape(shape)
    kinds = int(rng.integers(1, 4))
    classes = rng.integers(0, kinds, count)[pieces]
    walls = gap < rng.uniform(1.5, 6) if rng.random() < 0.75 else np.zeros(shape, bool)
    if rng.random() < 0.5:
        organelles = (_field(rng, shape, 4, rng.uniform(8, 25)) > rng.uniform(0.7, 1.6)) & (gap > 8)
        classes = np.where(organelles, kinds, classes)
        if rng.random() < 0.5:  # with a membrane around each
            walls = walls | (organelles & (grey_dilation((~organelles).astype(np.uint8), (3, 3)) > 0))
    return _Layout(classes, walls if walls.any() else None, pieces)


def _particles(rng: Generator, shape: Shape) -> _Layout:
    """Round, elongated and boxy particles of one size, some of them with a shell; they may overlap."""
    radius = np.exp(rng.uniform(np.log(4), np.log(30)))
    most = max(2, int(0.5 * shape[0] * shape[1] / (np.pi * radius**2)) + 2)
    warp = rng.uniform(0, 3)
    rows, columns = np.indices(shape, dtype=np.float32) + warp * np.stack([_field(rng, shape, 4, 30) for _ in range(2)])
    shell = rng.uniform(0.15, 0.4) if rng.random() < 0.35 else 0.0
    classes = np.zeros(shape, dtype=np.int64)
    for _ in range(int(rng.integers(1, most))):
        centre, size = rng.uniform(-radius, np.add(shape, radius)), radius * np.exp(rng.normal(0, 0.3))
        reach = int(3 * size + 3 * warp) + 1
        # far from the particle nothing changes
        box = tuple(slice(max(0, int(place) - reach), max(0, int(place) + reach)) for place in centre)
        stretch, angle, power = np.exp(rng.normal(0, 0.25)), rng.uniform(0, np.pi), rng.choice([2, 2, 2, 6])
        down, right = rows[box] - centre[0], columns[box] - centre[1]
        along = np.abs(np.cos(angle) * right + np.sin(angle) * down) / stretch
        across = np.abs(np.cos(angle) * down - np.sin(angle) * right) * stretch
        distance = (along**power + across**power) ** (1 / power) / size
        part = classes[box]
        part[distance < 1] = 1
        if shell:
            part[distance < 1 - shell] = 2
    return _Layout(classes)


def _fibres(rng: Generator, shape: Shape) -> _Layout:
    """Bands along a common direction: what lies near the zero of a stretched random field."""
    field = _field(rng, shape, rng.uniform(2, 4), rng.uniform(6, 20), rng.uniform(1, 3))
    inside = np.abs(field) < rng.uniform(0.1, 0.5)
    return _Layout(np.where(rng.random() < 0.5, inside, ~inside).astype(np.int64))


# Cells are the richest layout and come twice as often.
LAYOUTS: tuple[Callable[[Generator, Shape], _Layout], ...] = (_phases, _cells, _cells, _particles, _fibres)


def _field(rng: Generator, shape: Shape, slope: float, longest: float, anisotropy: float = 0.0) -> np.ndarray:
    """Return a random field (H, W), float32, of mean 0 and standard deviation 1.

    Its amplitude falls with the frequency to the power of `-slope`, below one period of `longest` pixels it is flat.
    With anisotropy it is stretched by (1 + anisotropy)^2 along a random direction.
    """
    angle = rng.uniform(0, np.pi)
    down, right = fftfreq(shape[0])[:, None], rfftfreq(shape[1])[None]
    along = (np.cos(angle) * right + np.sin(angle) * down) * (1 + anisotropy)
    across = (np.cos(angle) * down - np.sin(angle) * right) / (1 + anisotropy)
    return _filtered(rng, shape, (along**2 + across**2 + longest**-2) ** (-slope / 2))


def _filtered(rng: Generator, shape: Shape, amplitude: np.ndarray) -> np.ndarray:
    """Return white noise with an amplitude for each frequency, scaled to mean 0 and standard deviation 1."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    found = irfft2(rfft2(noise) * amplitude.astype(np.float32), s=shape)
    return (found - found.mean()) / (found.std() + np.float32(1e-9))


def _texture(rng: Generator, shape: Shape) -> np.ndarray:
    """Return one of four textures, of about unit contrast: grain, clouds, a pattern of one period, or specks."""
    kind = int(rng.integers(4))
    if kind == 0:
        return rng.standard_normal(shape, dtype=np.float32)
    if kind == 1:
        return _field(rng, shape, rng.uniform(1, 4), rng.uniform(3, 20), rng.uniform(0, 2))
    if kind == 2:
        frequency = rng.uniform(0.03, 0.25)
        distance = np.hypot(fftfreq(shape[0])[:, None], rfftfreq(shape[1])[None]) - frequency
        return _filtered(rng, shape, np.exp(-0.5 * (distance / (frequency * rng.uniform(0.1, 0.5))) ** 2))
    specks = _field(rng, shape, 3, rng.uniform(3, 10)) > rng.uniform(0.8, 1.8)
    return specks * np.float32(rng.choice([-2, 2]))
