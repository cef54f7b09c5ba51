"""Line profiles before and after a restoration: what became of the intensities along a line."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.ndimage import map_coordinates

from emfm.errors import EMError
from emfm.files import write_atomically
from emfm.reports.prediction import Prediction

Point = tuple[float, float]
# Rows that are read at once.
BAND_ROWS = 64


@dataclass(frozen=True)
class Profile:
    """Intensities along a line."""

    positions: np.ndarray  #: (N,) distance from the line's start, in `unit`
    before: np.ndarray  #: (N,) the micrograph's values, in its own units
    after: np.ndarray  #: (N,) the restored values
    unit: str  #: "nm", or "px" of the micrograph where the pixel size is not known
    start: Point  #: (x, y) in pixels of the micrograph
    stop: Point


def line_profile(prediction: Prediction, start: Point | None = None, stop: Point | None = None) -> Profile:
    """Read micrograph and result along a line, one bilinear sample per pixel of the result.

    Args:
        prediction: of a restoration.
        start: (x, y) in pixels of the micrograph, from the first one's centre; None: left middle.
        stop: likewise; None: right middle.

    Raises:
        EMError: a point lies outside the micrograph.
    """
    height, width = prediction.image.shape
    scale = prediction.output.shape[0] // height
    start = (0.0, float(height // 2)) if start is None else start
    stop = (float(width - 1), float(height // 2)) if stop is None else stop
    for column, row in (start, stop):
        if not (0 <= column <= width - 1 and 0 <= row <= height - 1):
            point, expected = f"x={column:g}, y={row:g}", f"0..{width - 1}, 0..{height - 1}"
            raise EMError(f"the profile's point {point} lies outside; expected {expected}")
    length = float(np.hypot(stop[0] - start[0], stop[1] - start[1]))
    share = np.linspace(0, 1, round(length * scale) + 1)
    x, y = (start[axis] + share * (stop[axis] - start[axis]) for axis in (0, 1))
    size = None if prediction.pixel_size is None else prediction.pixel_size * scale
    return Profile(
        share * length * (1.0 if size is None else size),
        _bilinear(prediction.image, x, y),
        # the micrograph's pixel i covers the result's pixels scale * i to scale * i + scale - 1
        _bilinear(prediction.output, (x + 0.5) * scale - 0.5, (y + 0.5) * scale - 0.5),
        "px" if size is None else "nm",
        start,
        stop,
    )


def _bilinear(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return values (N,) between pixels; of a large file only what lies beside the line is read."""
    values, bands = np.empty(len(x)), y.astype(np.int64) // BAND_ROWS
    for band in np.unique(bands):
        mine = bands == band
        left, top = int(x[mine].min()), int(y[mine].min())
        part = np.asarray(image[top : int(y[mine].max()) + 2, left : int(x[mine].max()) + 2], dtype=np.float64)
        values[mine] = map_coordinates(part, [y[mine] - top, x[mine] - left], order=1, mode="nearest")
    return values


def write_profile(path: str | Path, profile: Profile) -> None:
    """Write a profile as a CSV file: columns position_nm (or position_px), input and output."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([f"position_{profile.unit}", "input", "output"])
            for position, before, after in zip(profile.positions, profile.before, profile.after, strict=True):
                writer.writerow([f"{position:.6g}", f"{before:.9g}", f"{after:.9g}"])

    write_atomically(path, write)


def plot_profile(path: str | Path, profile: Profile) -> None:
    """Draw a profile into a PNG file: the micrograph thin and grey, the result over it."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(profile.positions, profile.before, color="0.55", linewidth=0.8, label="input")
    axes.plot(profile.positions, profile.after, color="#d55e00", linewidth=1.2, label="output")
    (x0, y0), (x1, y1) = profile.start, profile.stop
    axes.set(xlabel=f"position ({profile.unit})", ylabel="intensity", xlim=(0, max(profile.positions[-1], 1e-12)))
    axes.set_title(f"from x={x0:g}, y={y0:g} to x={x1:g}, y={y1:g} px", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=120))
