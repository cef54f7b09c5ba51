"""Simulated atomic-resolution ADF-STEM images with their clean, background-free and finer counterparts.

These images are SIMULATED and approximate: an incoherent image of columns, after Pennycook and Nellist, Scanning
Transmission Electron Microscopy, not a multislice calculation. They suit training and tests of restoration.

- A column scatters as its atoms' Z^1.7 summed; the probe is a Gaussian, a small mistilt smears columns along a line.
- Zone axes are projected cells, turned, strained and disordered at random. Thickness varies slowly; some atoms are
  missing.
- The background (support, contamination) varies slowly. Scan lines are displaced, electrons counted, read noise added.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from emfm.errors import EMError
from emfm.simulate.drawing import MARGIN, Range, Shape, check_numbers, check_shape_and_seed, record_counts, slow_field

MIN_SIDE = 32  # px
ROWS_AT_ONCE = 64  # of a Fourier transform of which few columns stay: less memory to fetch from the system
CUT_OFF = 0.9  # over the probe's standard deviation: the frequency of which the probe passes less than a millionth
Z_EXPONENT = 1.7  # of the atomic number in the high-angle signal
# Positions (N, 2) in px of the padded image, and signals (N,) of which the strongest is about 1.
Columns = tuple[np.ndarray, np.ndarray]
# Two vectors of a projected cell in nm, (x, y) each.
Cell = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Projection:
    """The atomic columns of a crystal along a zone axis."""

    vectors: Cell
    # fractional position along the vectors, and the atomic numbers that repeat along the column
    columns: tuple[tuple[float, float, tuple[int, ...]], ...]


def _rectangle(width: float, height: float) -> Cell:
    return ((width, 0.0), (0.0, height))


def _hexagon(side: float) -> Cell:
    return ((side, 0.0), (side / 2, side * 3**0.5 / 2))


def _zincblende(constant: float, first: int, second: int) -> Projection:
    """Return [110] of zincblende or diamond: dumbbells a quarter of the lattice constant long."""
    columns = ((0.0, 0.0, (first,)), (0.5, 0.5, (first,)), (0.25, 0.5, (second,)), (0.75, 0.0, (second,)))
    return Projection(_rectangle(constant, constant / 2**0.5), columns)


# Lattice constants in nm at room temperature.
PROJECTIONS = {
    "Au [100]": Projection(_rectangle(0.2039, 0.2039), ((0.0, 0.0, (79,)),)),
    "Au [110]": Projection(_rectangle(0.4078, 0.2884), ((0.0, 0.0, (79,)), (0.5, 0.5, (79,)))),
    "Fe [100]": Projection(_rectangle(0.2866, 0.2866), ((0.0, 0.0, (26,)), (0.5, 0.5, (26,)))),
    "Si [110]": _zincblende(0.5431, 14, 14),
    "GaAs [110]": _zincblende(0.5653, 31, 33),
    "SrTiO3 [100]": Projection(
        _rectangle(0.3905, 0.3905), ((0.0, 0.0, (38,)), (0.5, 0.5, (22, 8)), (0.5, 0.0, (8,)), (0.0, 0.5, (8,)))
    ),
    "MoS2": Projection(_hexagon(0.316), ((0.0, 0.0, (42,)), (1 / 3, 1 / 3, (16, 16)))),
    "graphene": Projection(_hexagon(0.246), ((0.0, 0.0, (6,)), (1 / 3, 1 / 3, (6,)))),
}


@dataclass(frozen=True)
class StemParameters:
    """What the simulator draws from; a pair is a (low, high) range, drawn once per image.

    Raises:
        EMError: a range is reversed, or a number is negative or not finite.
    """

    projections: tuple[str, ...] = tuple(PROJECTIONS)
    pixel_size: Range = (0.008, 0.025)  # nm, log-uniform
    probe: Range = (0.06, 0.11)  # nm, full width at half maximum
    mistilt: Range = (0.0, 0.06)  # nm by which top and bottom of a column lie apart in projection
    strain: float = 0.02  # scale of the distortion of the cell
    disorder: float = 0.003  # nm, standard deviation of a column's displacement
    vacancies: Range = (0.0, 0.03)  # share of the columns that have lost a third of their atoms
    wedge: float = 0.3  # scale of the slow change of thickness over the field
    background: Range = (0.0, 0.8)  # relative to the brightest column
    jitter: Range = (0.0, 0.6)  # px, standard deviation of a scan line's displacement
    dose: Range = (8.0, 300.0)  # detected electrons per pixel at the brightest column, log-uniform
    gain: float = 40.0  # counts per electron
    offset: float = 200.0  # counts at zero dose
    read_noise: float = 10.0  # counts, standard deviation

    def __post_init__(self) -> None:
        unknown = [name for name in self.projections if name not in PROJECTIONS]
        if unknown or not self.projections:
            raise EMError(f"projections {unknown or 'none'} are not known; expected some of {', '.join(PROJECTIONS)}")
        check_numbers(self, but=("projections",), positive=("pixel_size", "probe", "dose", "gain"))


@dataclass(frozen=True, eq=False)
class SimulatedStem:
    """A simulated ADF-STEM image with everything that is known about it, in counts of the detector."""

    image: np.ndarray  # (H, W) uint16, as recorded
    clean: np.ndarray  # (H, W) float32, expected counts: no noise, no displaced lines
    background_free: np.ndarray  # (H, W) float32, expected counts of the columns alone
    finer: np.ndarray  # (2H, 2W) float32, `clean` at half the pixel size
    pixel_size: float  # nm, of `image`
    projection: str
    positions: np.ndarray  # (N, 2) float64, row and column in px of the image; pixel centres are whole numbers


def simulate_stem(shape: Shape, seed: int, parameters: StemParameters | None = None) -> SimulatedStem:
    """Simulate one ADF-STEM image; the same arguments give the same bytes on one installation.

    Raises:
        EMError: the height or width is below 32 px, or the seed is not zero or a positive integer.
    """
    check_shape_and_seed(shape, seed, MIN_SIDE)
    p, rng = parameters or StemParameters(), np.random.default_rng(seed)
    name = str(rng.choice(p.projections))
    pixel_size = float(np.exp(rng.uniform(*np.log(p.pixel_size))))
    padded = (int(shape[0]) + 2 * MARGIN, int(shape[1]) + 2 * MARGIN)
    columns = _draw_columns(rng, PROJECTIONS[name], padded, pixel_size, p)
    signal = _render(rng, columns, padded, pixel_size, p)  # brightest column about 1
    background = np.float32(rng.uniform(*p.background))
    whole = slow_field(signal.shape, rng.standard_normal(5).astype(np.float32))
    whole -= whole.min()
    whole *= 1 / max(whole.max(), np.float32(1e-6))  # from 0 to 1
    whole *= background
    whole += signal
    electrons = np.float32(np.exp(rng.uniform(*np.log(p.dose))))
    counts = np.float32(p.gain) * electrons  # of the brightest column
    scanned = _displace_lines(rng, electrons * whole[::2, ::2], rng.uniform(*p.jitter))
    whole *= counts
    whole += np.float32(p.offset)
    image = record_counts(rng, scanned, p.gain, p.offset, p.read_noise)
    free = counts * signal[::2, ::2] + np.float32(p.offset)
    return SimulatedStem(image, whole[::2, ::2].copy(), free, whole, pixel_size, name, columns[0] - MARGIN)


def _draw_columns(
    rng: Generator, projection: Projection, padded: Shape, pixel_size: float, p: StemParameters
) -> Columns:
    """Return the columns inside the padded image."""
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    cell = np.array(projection.vectors) @ turn @ (np.eye(2) + p.strain * rng.uniform(-1, 1, (2, 2)))  # (2, 2), nm
    half = np.array(padded) / 2
    reach = int(np.ceil(np.hypot(*half) * pixel_size / np.linalg.svd(cell, compute_uv=False)[-1])) + 1
    steps = np.arange(-reach, reach + 1)
    corners = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 1, 2) + rng.random(2)
    places = np.array([column[:2] for column in projection.columns])
    weights = np.array([sum(z**Z_EXPONENT for z in column[2]) for column in projection.columns])
    positions = ((corners + places) @ cell / pixel_size + half).reshape(-1, 2)
    strengths = np.tile(weights / weights.max(), len(corners))
    inside = ((positions > 1) & (positions < np.array(padded) - 2)).all(axis=1)
    positions, strengths = positions[inside], strengths[inside]
    positions = positions + rng.normal(0, p.disorder / pixel_size, positions.shape)
    missing = rng.random(len(strengths)) < rng.uniform(*p.vacancies)
    slope = p.wedge * rng.uniform(-1, 1, 2)
    thickness = np.clip(1 + (positions / half - 1) @ slope, 0.2, None)
    return positions, strengths * thickness * np.where(missing, 2 / 3, 1.0)


def _render(
    rng: Generator, columns: tuple[np.ndarray, np.ndarray], padded: Shape, pixel_size: float, p: StemParameters
) -> np.ndarray:
    """Return the columns seen by the probe, float32 on a grid of half the pixel size, without the margin."""
    (positions, strengths), (height, width) = columns, (2 * padded[0], 2 * padded[1])
    tilt, smear = rng.uniform(0, np.pi), 2 * rng.uniform(*p.mistilt) / pixel_size  # grid points from top to bottom
    sigma = 2 * rng.uniform(*p.probe) / pixel_size / np.sqrt(8 * np.log(2))  # grid points
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    x = x[: np.searchsorted(x, CUT_OFF / sigma)]
    # Top, middle and bottom of each column, displaced against each other: the mean of three shifts, in Fourier space.
    y_phase, x_phase = (np.pi * smear * np.sin(tilt) * y), (np.pi * smear * np.cos(tilt) * x)
    transfer = (1 + 2 * np.cos(y_phase.astype(np.float32) + x_phase.astype(np.float32))) / 3
    along, across = (np.exp(-2 * (np.pi * sigma * f) ** 2).astype(np.float32) for f in (y, x))
    transfer *= np.float32(2 * np.pi * sigma**2) * along  # a column of strength 1 peaks at about 1
    transfer *= across
    points = _points(2 * positions, strengths, (height, width))
    parts = [np.fft.rfft(points[i : i + ROWS_AT_ONCE])[:, : len(x)] for i in range(0, height, ROWS_AT_ONCE)]
    spectrum = np.fft.fft(np.concatenate(parts), axis=0)
    spectrum *= transfer
    inner = slice(2 * MARGIN, -2 * MARGIN)
    lines = np.fft.ifft(spectrum, axis=0)[inner]
    signal = np.empty((len(lines), width - 4 * MARGIN), np.float32)
    for i in range(0, len(lines), ROWS_AT_ONCE):
        some = lines[i : i + ROWS_AT_ONCE]
        all_waves = np.pad(some, ((0, 0), (0, width // 2 + 1 - len(x))))
        np.maximum(np.fft.irfft(all_waves, n=width)[:, inner], 0, out=signal[i : i + ROWS_AT_ONCE], casting="same_kind")
    return signal


def _points(places: np.ndarray, weights: np.ndarray, shape: Shape) -> np.ndarray:
    """Return a grid, float32, with weights (N,) at places (N, 2), each shared by the four grid points around it."""
    places = np.clip(places, 0, np.array(shape) - 2)
    corner = places.astype(np.intp)
    far = places - corner
    near = 1 - far
    first = corner @ (shape[1], 1)
    grid = np.zeros(shape, np.float32)
    for down, share in ((0, weights * near[:, 0]), (1, weights * far[:, 0])):
        for right, part in ((0, near[:, 1]), (1, far[:, 1])):
            np.add.at(grid.ravel(), first + down * shape[1] + right, (share * part).astype(np.float32))
    return grid


def _displace_lines(rng: Generator, image: np.ndarray, deviation: float) -> np.ndarray:
    """Move every line (of H) sideways by its own distance in px, linear between pixels; edges are repeated.

    As `degradations.displace_lines` does, in NumPy: threads that each draw an image would wait for torch's threads.
    """
    height, width = image.shape
    shifts = (deviation * rng.standard_normal((height, 1))).astype(np.float32)
    places = np.clip(np.arange(width, dtype=np.float32) + shifts, 0, width - 1)
    left = np.minimum(places.astype(np.intp), width - 2)
    share = places - left.astype(np.float32)
    left += width * np.arange(height)[:, None]
    here, beside = image.take(left), image.take(left + 1)
    return here + share * (beside - here)
