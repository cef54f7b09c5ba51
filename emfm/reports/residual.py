"""What a restoration took away from a micrograph: noise, as it should, or more than that."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage

from emfm.data.noise import noise_deviation
from emfm.files import write_atomically
from emfm.io.large_images import release_pages
from emfm.no_data import filled, no_data
from emfm.reports import pictures

# The middle of a micrograph that is looked at has this side in pixels.
SIDE = 1024
# Standard deviations in pixels of the smoothing that leaves structure, and drift.
STRUCTURE, DRIFT = 2.0, 24.0
# White noise correlates with its neighbours, and with the result, by less than this.
WHITE = 0.1
# Of white noise smoothing by s leaves 1 / (4 pi s^2) of the variance; this many times more is slow.
COLOURED = 4.0
# A share of the noise that is less than this was left in.
WEAK = 0.5
# Less noise than this, of the contrast, is none to take away.
LEAST_NOISE = 0.005


@dataclass(frozen=True)
class Residual:
    """Figures of input minus result, in units of the input's contrast.

    Attributes:
        mean: of the residual; 0 if only noise was taken away.
        deviation: its standard deviation.
        noise: standard deviation of the input's noise, from its finest structure.
        along_rows, along_columns: autocorrelation of neighbours; 0 of independent noise.
        with_signal: correlation of its square with the result: counting noise grows with it.
        structure: correlation with the result, both smoothed: structure that was taken away.
        slow: how many times more of its variance is slow than of white noise.
        looks_like: "noise", or what else: "structure lost", "lines", "drift", "too weak".
    """

    mean: float
    deviation: float
    noise: float
    along_rows: float
    along_columns: float
    with_signal: float
    structure: float
    slow: float
    looks_like: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return {name: round(v, 5) if isinstance(v, float) else list(v) for name, v in asdict(self).items()}


def measure_residual(image: Any, output: Any) -> tuple[Residual, np.ndarray]:
    """Measure what was taken from the middle of a micrograph (H, W); return it, too.

    Both have one size; they may be memory-mapped.
    """
    before, after = (_middle(array) for array in (image, output))
    contrast = max(float(np.subtract(*np.percentile(before, [99, 1]))), 1e-12)
    residual = (before - after) / contrast
    clean = (after - after.mean()) / contrast
    across, down = _neighbours(residual), _neighbours(residual.T)
    figures = {
        "mean": float(residual.mean()),
        "deviation": float(residual.std()),
        "noise": noise_deviation(before / contrast),
        "along_rows": across,
        "along_columns": down,
        "with_signal": _correlation(ndimage.gaussian_filter(residual**2, STRUCTURE), clean),
        "structure": _correlation(
            ndimage.gaussian_filter(residual, STRUCTURE) - ndimage.gaussian_filter(residual, DRIFT),
            ndimage.gaussian_filter(clean, STRUCTURE) - ndimage.gaussian_filter(clean, DRIFT),
        ),
        "slow": _slow(residual, STRUCTURE),
    }
    looks = []
    if abs(figures["structure"]) > 3 * WHITE and figures["slow"] > COLOURED:
        looks.append("structure lost")
    if abs(across - down) > WHITE:
        looks.append("lines")
    elif _slow(residual, DRIFT) > 4 * COLOURED:
        looks.append("drift")
    if figures["noise"] > LEAST_NOISE and figures["deviation"] < WEAK * figures["noise"]:
        looks.append("too weak")
    return Residual(**figures, looks_like=tuple(looks) or ("noise",)), residual


def _middle(array: Any) -> np.ndarray:
    top, left = (max(0, (length - SIDE) // 2) for length in array.shape)
    part = np.asarray(array[top : top + SIDE, left : left + SIDE], dtype=np.float64)
    release_pages(array)
    return filled(part, no_data(part))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    spread = first.std() * second.std()
    return float(((first - first.mean()) * (second - second.mean())).mean() / spread) if spread else 0.0


def _neighbours(residual: np.ndarray) -> float:
    """Return the correlation of each pixel with the next in its row."""
    return _correlation(residual[:, 1:], residual[:, :-1]) if residual.shape[1] > 2 else 0.0


def _slow(residual: np.ndarray, deviation: float) -> float:
    """Return how many times more variance smoothing leaves than of white noise."""
    variance = residual.var()
    left = ndimage.gaussian_filter(residual, deviation).var() / variance if variance else 0.0
    return float(left * 4 * np.pi * deviation**2)


def plot_residual(path: str | Path, found: Residual, residual: np.ndarray) -> None:
    """Draw the residual, its autocorrelation and its spectrum into a PNG file."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.imshow(pictures.to_display(residual), cmap="gray")
    left.set(title="input minus result", xticks=[], yticks=[])
    power = np.abs(np.fft.fft2(residual - residual.mean())) ** 2
    correlation = np.fft.fftshift(np.fft.ifft2(power).real) / max(power.mean(), 1e-30)
    rows, columns = (length // 2 for length in residual.shape)
    reach = min(16, rows, columns)
    near = correlation[rows - reach : rows + reach + 1, columns - reach : columns + reach + 1]
    middle.imshow(near, cmap="RdBu_r", vmin=-0.5, vmax=0.5, extent=(-reach, reach, reach, -reach))
    middle.set(title="autocorrelation (px)")
    frequencies = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in residual.shape), indexing="ij"))
    bins = np.linspace(0, 0.5, 33)
    counts = np.maximum(1, np.histogram(frequencies, bins)[0])
    mean = np.histogram(frequencies, bins, weights=power)[0] / counts
    right.plot(bins[1:], mean / max(mean[-8:].mean(), 1e-30))
    right.axhline(1, color="grey", linewidth=0.8, linestyle="--")
    right.set(title="power (1: white)", xlabel="cycles a pixel", yscale="log")
    figure.suptitle(f"looks like {', '.join(found.looks_like)}", fontsize=10)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110))
