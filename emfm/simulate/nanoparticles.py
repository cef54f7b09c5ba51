"""Simulated bright-field micrographs of gold nanoparticles on amorphous carbon, with exact masks.

These images are SIMULATED and approximate: closed formulas after Reimer and Kohl, Transmission Electron Microscopy, not
a multislice calculation. They suit demonstrations and tests, not science. Simplifications, along the electrons' path:

- Particles absorb as ellipsoids, exp(-thickness / attenuation length). Diffraction only scales a particle's depth.
- Lattice fringes of Au 111 are one cosine per particle, because a crystal rarely lies along a zone axis.
- The carbon is white noise through the transfer function of a defocused lens: weak phase, no spherical aberration.
- The camera has a Gaussian point spread, Poisson counting, gain, offset and Gaussian read noise.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from emfm.simulate.drawing import MARGIN, Range, Shape, check_numbers, check_shape_and_seed, record_counts, slow_field

GOLD_111_SPACING = 0.235  # nm, lattice constant 0.4078 nm / sqrt(3)
MIN_PIXELS_PER_FRINGE = 2.5  # finer fringes lie too close to Nyquist (2 px) to survive the blur
MIN_SIDE = 16  # px, below this not even the smallest particle fits
BATCH = 2**16  # pixels of particles rendered at once: what a processor's cache holds
OUTLINE_ORDERS = np.arange(6, 1, -1)  # 2 makes ellipses, 3 to 6 rounded triangles to hexagons
MUST_BE_POSITIVE = ("nominal_diameters", "pixels_across", "coverage", "attenuation_length", "dose", "gain")


@dataclass(frozen=True)
class NanoparticleParameters:
    """What the simulator draws from; a pair is a (low, high) range, drawn once per image.

    Raises:
        EMError: A range is reversed, a number is negative or not finite, or a fraction is above 1.
    """

    nominal_diameters: tuple[float, ...] = (2.2, 5.0, 10.0, 20.0)  # nm, one per image: the paper's gold samples
    diameter_spread: float = 0.12  # standard deviation of ln(diameter) over particles
    pixels_across: Range = (15.0, 120.0)  # px per nominal diameter, log-uniform: this sets the pixel size
    coverage: Range = (0.1, 0.35)  # area fraction of candidates; one that overlaps an earlier particle is dropped
    touching_fraction: float = 0.15  # chance that a particle is set against an earlier one
    outline_amplitude: float = 0.06  # scale of the relative radius modulation; order k has this / k
    attenuation_length: Range = (10.0, 25.0)  # nm of gold; about its elastic mean free path at 100-300 kV
    diffraction_spread: float = 0.6  # standard deviation of ln(depth) over particles: near Bragg they are darker
    visibility: float = 8.0  # least signal-to-noise of a whole particle; Rose's limit of detection is 5
    fringe_fraction: float = 0.5  # chance that a particle shows fringes, where pixels resolve them
    fringe_amplitude: Range = (0.08, 0.2)  # relative to the intensity around, at a particle's centre
    granularity: Range = (0.02, 0.06)  # rms phase contrast of the carbon, relative to the incident intensity
    granularity_period: Range = (0.4, 1.0)  # nm, where the defocused lens transfers most; at least 3 px
    fresnel: Range = (0.2, 0.8)  # phase contrast of particles relative to their absorption
    illumination: float = 0.1  # scale of the depth's slow drift over the field: beam and carbon thickness
    debris: Range = (0.0, 0.6)  # soft contamination blobs per particle; never part of the mask
    blur: Range = (0.5, 1.0)  # px, standard deviation of the point spread
    dose: Range = (30.0, 1500.0)  # electrons per pixel, log-uniform
    gain: float = 8.0  # camera counts per electron
    offset: float = 100.0  # counts at zero dose
    read_noise: float = 4.0  # counts, standard deviation

    def __post_init__(self) -> None:
        check_numbers(self, lists=("nominal_diameters",), positive=MUST_BE_POSITIVE)


@dataclass(frozen=True, eq=False)
class Particles:
    """Geometry of N drawn particles, some of them cut by the image border or wholly outside it."""

    centers: np.ndarray  # (N, 2) float64, row and column in px of the image; pixel centres are whole numbers
    diameters: np.ndarray  # (N,) float64, nm: diameter of the circle with the outline's area
    depths: np.ndarray  # (N,) float64, optical depth through the centre
    fringe_angles: np.ndarray  # (N,) float64, rad from the column axis to the fringes' normal; NaN without fringes
    outlines: np.ndarray  # (N, 7) complex64, relative radius is the real part of this polynomial of exp(i azimuth)


@dataclass(frozen=True, eq=False)
class SimulatedMicrograph:
    """A simulated camera image with everything that is known about it."""

    image: np.ndarray  # (H, W) uint16, camera counts
    mask: np.ndarray  # (H, W) uint8, 1 inside a particle's outline, 0 elsewhere
    clean: np.ndarray  # (H, W) float32, expected camera counts without any noise
    pixel_size: float  # nm
    dose: float  # electrons per pixel of the undimmed beam
    particles: Particles


def simulate_nanoparticles(
    shape: Shape, seed: int, parameters: NanoparticleParameters = NanoparticleParameters()
) -> SimulatedMicrograph:
    """Simulate one bright-field micrograph of gold nanoparticles on amorphous carbon.

    The same shape, seed and parameters give the same bytes under one NumPy version. On a small image the nominal
    diameter is limited to 40 % of its shorter side, and one particle always has its centre inside the image.

    Raises:
        EMError: The height or width is below 16 px, or the seed is not zero or a positive integer.
    """
    check_shape_and_seed(shape, seed, MIN_SIDE)
    p, rng = parameters, np.random.default_rng(seed)
    conditions = _draw_conditions(rng, shape, p)
    particles = _draw_particles(rng, conditions, p)
    depth, fringes = _render_particles(rng, conditions, particles, p)
    mask = (depth[MARGIN:-MARGIN, MARGIN:-MARGIN] > 0).astype(np.uint8)  # inside an outline any depth is above zero
    depth += _background_depth(rng, conditions, len(particles.depths), p)
    fringes += 1
    fringes *= np.exp(-depth)
    electrons = _image_intensity(rng, fringes, conditions, p)
    electrons *= np.float32(conditions.dose)
    image = record_counts(rng, electrons, p.gain, p.offset, p.read_noise)
    clean = np.float32(p.gain) * electrons + np.float32(p.offset)
    return SimulatedMicrograph(image, mask, clean, conditions.pixel_size, conditions.dose, particles)


@dataclass(frozen=True)
class _Conditions:
    """What all particles of one image share."""

    padded: Shape  # px, shape of the image with the margin on every side
    diameter: float  # nominal diameter, px
    pixel_size: float  # nm
    central_depth: float  # optical depth through the centre of a particle of nominal diameter
    least_depth: float  # the same for the faintest particle that is still fair to label
    period: float  # px, spatial period that the defocused lens transfers most
    granularity: float  # rms phase contrast of the carbon
    dose: float  # electrons per pixel


def _draw_conditions(rng: Generator, shape: Shape, p: NanoparticleParameters) -> _Conditions:
    """Draw one image's conditions and derive the depth that stays visible under them."""
    nominal = float(rng.choice(p.nominal_diameters))
    diameter = min(float(np.exp(rng.uniform(*np.log(p.pixels_across)))), 0.4 * min(shape))
    period = max(rng.uniform(*p.granularity_period) * diameter / nominal, 3.0)
    granularity = rng.uniform(*p.granularity)
    dose = float(np.exp(rng.uniform(*np.log(p.dose))))
    # Noise of the mean over a particle's area; grains of the carbon count as one sample per period squared.
    noise = np.sqrt((granularity * period) ** 2 + 1 / dose) / (diameter * np.sqrt(np.pi) / 2)
    least_depth = float(1.5 * p.visibility * noise)  # an ellipsoid's centre is 1.5 times as thick as its mean
    central_depth = nominal / rng.uniform(*p.attenuation_length)
    padded = (int(shape[0]) + 2 * MARGIN, int(shape[1]) + 2 * MARGIN)
    return _Conditions(padded, diameter, nominal / diameter, central_depth, least_depth, period, granularity, dose)


def _draw_particles(rng: Generator, c: _Conditions, p: NanoparticleParameters) -> Particles:
    """Draw sizes, contrasts, outlines and positions; candidates that overlap an earlier particle are dropped."""
    shape = np.array(c.padded) - 2 * MARGIN
    extent = shape + c.diameter  # centres may lie up to a radius outside, so that the border cuts some particles
    count = max(1, round(rng.uniform(*p.coverage) * extent.prod() / (np.pi / 4 * c.diameter**2)))
    relative, strengths = np.exp(rng.standard_normal((2, count)) * [[p.diameter_spread], [p.diffraction_spread]])
    diameters = relative * c.diameter * c.pixel_size
    depths = np.maximum(c.central_depth * relative * strengths, c.least_depth)
    with_fringes = (rng.random(count) < p.fringe_fraction) & (c.pixel_size * MIN_PIXELS_PER_FRINGE < GOLD_111_SPACING)
    angles = np.where(with_fringes, rng.uniform(0, np.pi, count), np.nan)
    outlines = np.tile(np.array([0, 0, 0, 0, 0, 0, 1], np.complex64), (count, 1))
    outlines[:, :5] = p.outline_amplitude / OUTLINE_ORDERS * (rng.standard_normal((count, 5, 2)) @ [1, 1j])
    centers = rng.random((count, 2)) * extent - c.diameter / 2
    centers[0] = rng.random(2) * (shape - 1)  # one particle is always in the image
    kept = _place(rng, centers, relative * c.diameter / 2, p.touching_fraction)
    return Particles(centers[kept], diameters[kept], depths[kept], angles[kept], outlines[kept])


def _place(rng: Generator, centers: np.ndarray, radii: np.ndarray, touching_fraction: float) -> np.ndarray:
    """Set some centres (N, 2) against an earlier particle, in place, and return which particles may stay (N, bool)."""
    stays = np.zeros(len(radii), bool)
    places = centers.view(complex)[:, 0]  # the same memory: a distance is one absolute value
    steps = 0.97 * np.exp(2j * np.pi * rng.random(len(radii)))  # a little less than touching
    touching, neighbours = rng.random(len(radii)) < touching_fraction, rng.random(len(radii))
    for i, radius in enumerate(radii):
        if touching[i] and i:
            placed = np.flatnonzero(stays)
            j = placed[int(neighbours[i] * len(placed))]
            places[i] = places[j] + (radius + radii[j]) * steps[i]
        overlaps = np.abs(places[:i] - places[i]) < 0.95 * (radii[:i] + radius)
        stays[i] = not (overlaps & stays[:i]).any()
    return stays


def _render_particles(
    rng: Generator, c: _Conditions, particles: Particles, p: NanoparticleParameters
) -> tuple[np.ndarray, np.ndarray]:
    """Return the optical depth of all particles and their relative fringes, float32 with the margin."""
    depth, fringes = np.zeros((2, *c.padded), np.float32)
    amplitude, wavenumber = rng.uniform(*p.fringe_amplitude), 2 * np.pi * c.pixel_size / GOLD_111_SPACING  # rad per px
    phases = rng.uniform(0, 2 * np.pi, len(particles.depths))
    # A radius R (1 + m(azimuth)) encloses pi R^2 (1 + mean m^2): divide so that the nominal area stays.
    modulation = np.abs(particles.outlines[:, :5])
    radii = particles.diameters / c.pixel_size / 2 / np.sqrt(1 + (modulation**2).sum(axis=1) / 2)
    reaches = radii * (1 + modulation.sum(axis=1))
    # Particles of like size share one array, so that each step is one call for many small ones.
    num_batches = np.ceil(min(len(radii), len(radii) * (2 * reaches.max() + 1) ** 2 / BATCH))
    for batch in np.array_split(np.argsort(reaches), int(num_batches)):
        boxes, rows, columns = _boxes(particles.centers[batch] + MARGIN, float(reaches[batch].max()), c.padded)
        thickness = _thickness(rows, columns, radii[batch], particles.outlines[batch])
        depths = particles.depths[batch].astype(np.float32)
        for box, height, relative in zip(boxes, depths, thickness, strict=True):
            depth[box] += height * relative
        angles = particles.fringe_angles[batch]
        for i in np.flatnonzero(np.isfinite(angles)):
            x, y = (wavenumber * np.array([np.cos(angles[i]), np.sin(angles[i])])).astype(np.float32)
            wave = np.cos(x * columns[i] + (y * rows[i] + np.float32(phases[batch[i]])))
            fringes[boxes[i]] += np.float32(amplitude) * thickness[i] * wave
    return depth, fringes


def _boxes(
    centers: np.ndarray, reach: float, padded: Shape
) -> tuple[list[tuple[slice, slice]], np.ndarray, np.ndarray]:
    """Return equal boxes inside the image that hold all its pixels up to `reach` px (or more) from each centre (N, 2).

    Beside the N slices come the offsets of their rows (N, height, 1) and columns (N, 1, width), float32 in px.
    """
    sides = np.minimum(int(2 * reach) + 1, padded)
    first = np.clip(np.ceil(centers - reach), 0, padded - sides).astype(int)
    offsets = (first - centers).astype(np.float32)
    rows, columns = (np.arange(side, dtype=np.float32) + offsets[:, i, None] for i, side in enumerate(sides))
    boxes = [(slice(y, y + sides[0]), slice(x, x + sides[1])) for y, x in first.tolist()]
    return boxes, rows[:, :, None], columns[:, None]


def _thickness(rows: np.ndarray, columns: np.ndarray, radii: np.ndarray, outlines: np.ndarray) -> np.ndarray:
    """Return the thickness (N, height, width) of ellipsoids relative to their centres, float32."""
    distance = np.maximum(np.sqrt(rows**2 + columns**2), np.float32(1e-6))
    direction = (columns + np.complex64(1j) * rows) / distance  # exp(i azimuth)
    outline = outlines[:, :1, None] * direction + outlines[:, 1:2, None]
    for order in range(2, outlines.shape[1]):  # Horner's scheme
        outline *= direction
        outline += outlines[:, order, None, None]
    distance /= outline.real
    distance /= radii.astype(np.float32)[:, None, None]
    distance *= distance
    return np.sqrt(np.maximum(1 - distance, 0))


def _background_depth(rng: Generator, c: _Conditions, num_particles: int, p: NanoparticleParameters) -> np.ndarray:
    """Return the optical depth (float32, with the margin) of slow drift and of soft-edged debris."""
    depth = slow_field(c.padded, (p.illumination * rng.standard_normal(5)).astype(np.float32))
    count = rng.poisson(rng.uniform(*p.debris) * num_particles)
    centers = rng.random((count, 2)) * c.padded
    spreads, strengths = c.diameter * rng.uniform(0.1, 0.5, count), c.central_depth * rng.uniform(0.15, 0.7, count)
    elongations, tilts = rng.uniform(0.6, 1.0, count), rng.uniform(0, np.pi, count)
    turns = np.stack([np.cos(tilts), np.sin(tilts), -np.sin(tilts), np.cos(tilts)], axis=1).reshape(-1, 2, 2)
    turns /= np.sqrt(2) * spreads[:, None, None] * np.stack([np.ones(count), elongations], axis=1)[:, :, None]
    forms = (turns.transpose(0, 2, 1) @ turns).astype(np.float32)  # (N, 2, 2), of columns and rows
    for i in range(count):
        (box,), rows, columns = _boxes(centers[i : i + 1], 3.5 * spreads[i], c.padded)
        exponent = (2 * forms[i, 0, 1] * rows[0]) * columns[0]
        exponent += forms[i, 1, 1] * rows[0] ** 2
        exponent += forms[i, 0, 0] * columns[0] ** 2
        depth[box] += np.float32(strengths[i]) * np.exp(-exponent)
    return depth


def _fall_off(exponents: np.ndarray) -> np.ndarray:
    """Return exp(-exponents), float32; from 20 on it stays at 2e-9, as subnormal numbers would be slow."""
    return np.exp(-np.minimum(exponents, 20)).astype(np.float32)


def _image_intensity(rng: Generator, transmitted: np.ndarray, c: _Conditions, p: NanoparticleParameters) -> np.ndarray:
    """Image the transmitted intensity and the carbon through the lens: float32 without the margin, zero or more."""
    # Along either axis (cycles per px)^2; all that is radial is a product or a sum of the two.
    y, x = np.fft.fftfreq(transmitted.shape[0])[:, None] ** 2, np.fft.rfftfreq(transmitted.shape[1]) ** 2
    # sin(pi lambda defocus k^2) reaches 1 at the period; the Gaussian stands for partial coherence.
    y_phase, x_phase = ((np.pi / 2 * c.period**2 * squared).astype(np.float32) for squared in (y, x))
    transfer = np.sin(y_phase + x_phase)
    transfer *= _fall_off(c.period**2 / 4 * y) * _fall_off(c.period**2 / 4 * x)
    width = 2 * (np.pi * rng.uniform(*p.blur)) ** 2
    spread = _fall_off(width * y) * _fall_off(width * x)
    carbon = transfer * spread
    carbon *= np.float32(c.granularity / np.sqrt(np.mean(carbon**2)))  # Parseval: unit white noise gets this rms
    # White noise drawn in Fourier space: its spectrum has the variance of a sum over all pixels.
    grains = rng.standard_normal((*carbon.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    carbon *= np.float32(np.sqrt(transmitted.size / 2))
    grains *= carbon
    transfer *= np.float32(rng.uniform(*p.fresnel))
    transfer += 1
    transfer *= spread
    spectrum = np.fft.rfft2(transmitted)
    spectrum *= transfer
    spectrum += grains
    intensity = np.fft.irfft2(spectrum, s=transmitted.shape)[MARGIN:-MARGIN, MARGIN:-MARGIN]
    return np.maximum(intensity, 0).astype(np.float32)
