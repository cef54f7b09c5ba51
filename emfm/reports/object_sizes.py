"""The figure of the sizes of objects: their distribution, median, quartiles and number."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from emfm.files import write_atomically
from emfm.reports.object_measures import ObjectMeasures, by_class
from emfm.reports.pictures import COLOURS
from emfm.reports.prediction import ObjectClasses

# One column of a journal's page, in inches, and dots per inch.
SIZE, DPI = (3.5, 2.6), 300
# Numbers up to which every object is shown by a stroke below the bars.
MOST_STROKES = 300
MOST_BINS = 40
BLUE, ORANGE = "#0072b2", "#d55e00"


def plot_sizes(
    path: str | Path,
    measured: list[ObjectMeasures],
    pixel_size: float | None,
    classes: ObjectClasses | None = None,
) -> None:
    """Draw the distribution of the equivalent diameters into a PNG file.

    Objects that the micrograph's edge cuts are left out. Each class has bars of its own.
    """
    groups = {"": measured} if classes is None else by_class(measured, classes)
    sizes = {label: whole_sizes(some, pixel_size) for label, some in groups.items()}
    draw_sizes(path, sizes, "px" if pixel_size is None else "nm")


def whole_sizes(measured: Sequence[ObjectMeasures], pixel_size: float | None) -> np.ndarray:
    """Return the equivalent diameters of objects that the edge does not cut, in nm or pixels."""
    sizes = [one.equivalent_diameter for one in measured if not one.touches_border]
    return np.array(sizes) * (1.0 if pixel_size is None else pixel_size)


def draw_sizes(
    path: str | Path, groups: dict[str, np.ndarray], unit: str, quantity: str = "equivalent diameter"
) -> None:
    """Draw distributions of sizes, by the names of their groups, into a PNG file."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    shown = {label: sizes for label, sizes in groups.items() if len(sizes)}
    if shown:
        _draw(axes, shown, unit)
    else:
        axes.text(0.5, 0.5, "no object that the edge does not cut", ha="center", transform=axes.transAxes, fontsize=8)
    axes.set_xlabel(f"{quantity} ({unit})", fontsize=8)
    axes.set_ylabel("number of objects", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=DPI))


def _draw(axes: Any, shown: dict[str, np.ndarray], unit: str) -> None:
    """Draw bars, a line at the median and a band of the quartiles for each group of sizes."""
    everything = np.concatenate(list(shown.values()))
    bins = np.histogram_bin_edges(everything, bins="auto" if len(everything) > 5 else 5)
    if len(bins) > MOST_BINS + 1:
        bins = np.linspace(bins[0], bins[-1], MOST_BINS + 1)
    single = len(shown) == 1
    for number, (label, sizes) in enumerate(shown.items()):
        colour = BLUE if single else tuple(COLOURS[number % len(COLOURS)] / 255)
        line = ORANGE if single else colour
        low, median, high = np.percentile(sizes, [25, 50, 75])
        told = [f"median {median:.3g} {unit}", f"quartiles {low:.3g} to {high:.3g} {unit}", f"n = {len(sizes)}"]
        text = "\n".join(told) if single else f"{label or 'all'}: {', '.join(told)}"
        axes.hist(sizes, bins, color=colour, alpha=0.8 if single else 0.5, edgecolor="white", linewidth=0.5)
        axes.axvspan(low, high, color=line, alpha=0.12, linewidth=0)
        axes.axvline(median, color=line, linewidth=1.2, label=text)
        if len(everything) <= MOST_STROKES:
            axes.plot(sizes, np.zeros(len(sizes)), "|", color="black", markersize=5, markeredgewidth=0.5, clip_on=False)
    # long lines would cover the bars
    place = {} if single else {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
    axes.legend(fontsize=7 if single else 6, frameon=False, **place)
