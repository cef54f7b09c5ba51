"""What the simulators share: ranges to draw from, their checks, a slow field, and the camera."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from emfm.errors import EMError

Range = tuple[float, float]
Shape = tuple[int, int]  # height and width in px
MARGIN = 16  # px simulated around an image and cut off, so that the FFT's periodic wrap stays outside
EXACT_BELOW = np.float32(6)  # expected electrons


def check_shape_and_seed(shape: Shape, seed: int, least: int) -> None:
    """Raise an EMError unless both sides are whole numbers of `least` px or more and the seed one of 0 or more."""
    if np.shape(shape) != (2,) or not all(isinstance(n, int | np.integer) and n >= least for n in shape):
        raise EMError(f"shape is {shape}, expected (height, width) of at least {least} px each; enlarge the image")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise EMError(f"seed is {seed!r}, expected an integer of 0 or more; pass for example seed=0")


def check_numbers(
    parameters: object, positive: Sequence[str], lists: Sequence[str] = (), but: Sequence[str] = ()
) -> None:
    """Check the dataclass that a simulator draws from: numbers, and, where the default is a pair, ranges (low, high).

    Args:
        parameters: the dataclass.
        positive: its fields that must be above zero.
        lists: its fields that hold several values to choose from.
        but: its fields that are no numbers.

    Raises:
        EMError: a range is reversed, a number is negative or not finite, or a fraction is above 1.
    """
    for name, value in vars(parameters).items():
        if name in but:
            continue
        default = getattr(type(parameters), name)
        numbers = np.atleast_1d(np.asarray(value, dtype=float))
        least = 1e-9 if name in positive else 0
        if not numbers.size or not (np.isfinite(numbers) & (numbers >= least)).all():
            raise EMError(f"{name} is {value}, expected finite and at least {least}; the default is {default}")
        is_range = isinstance(default, tuple) and name not in lists
        if is_range and (numbers.size != 2 or numbers[0] > numbers[1]):
            raise EMError(f"{name} is {value}, expected (low, high) with low <= high; the default is {default}")
        if name.endswith("_fraction") and value > 1:
            raise EMError(f"{name} is {value}, expected a fraction from 0 to 1; divide a percentage by 100")


def slow_field(shape: tuple[int, ...], coefficients: np.ndarray) -> np.ndarray:
    """Return a polynomial of second degree (H, W), float32, over the field from -1 to 1.

    Its coefficients (5,) float32 are those of y, y^2, x, x^2 and x y.
    """
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in shape)
    a = coefficients
    field = a[4] * y[:, None] * x
    field += (a[0] * y + a[1] * y**2)[:, None]
    field += a[2] * x + a[3] * x**2
    return field


def record_counts(rng: Generator, electrons: np.ndarray, gain: float, offset: float, read_noise: float) -> np.ndarray:
    """Count electrons, read them out and round to the camera's 16 bits.

    Counts come from the expansion of the Poisson distribution's inverse about the normal one (Giles 2016, ACM
    Transactions on Mathematical Software 42, equation 6), which takes a third of the time of NumPy's exact ones. Its
    mean and variance are right to 0.03 % from 6 expected electrons on; fewer are drawn exactly.

    Args:
        rng: drawn from.
        electrons: (H, W) float32, expected in each pixel, zero or more.
        gain: camera counts per electron.
        offset: counts at zero dose.
        read_noise: standard deviation in counts.

    Returns:
        (H, W) uint16, clipped where the camera saturates.
    """
    normal = rng.standard_normal(electrons.shape, dtype=np.float32)
    squared = normal * normal
    root = np.sqrt(np.maximum(electrons, EXACT_BELOW))
    counts = electrons + root * normal
    counts += squared * np.float32(1 / 6) + np.float32(1 / 3)
    counts -= normal * (squared + 2) / (72 * root)
    np.floor(counts, out=counts)
    few = electrons < EXACT_BELOW
    counts[few] = rng.poisson(electrons[few])
    counts *= np.float32(gain)
    counts += np.float32(offset)
    counts += np.float32(read_noise) * rng.standard_normal(electrons.shape, dtype=np.float32)
    return np.clip(np.rint(counts, out=counts), 0, 65535, out=counts).astype(np.uint16)
