"""How numbered objects are shown: in colours over the micrograph, measured, and by their sizes."""

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from emfm.files import write_atomically, write_text
from emfm.reports import pictures
from emfm.reports.object_measures import ObjectMeasures, measure_objects, rows_of, summary_of, write_object_table
from emfm.reports.pictures import Legend, as_rgb, shrink
from emfm.reports.prediction import Prediction
from emfm.reports.report import ClassMapReport

OPACITY = 0.4


class ObjectReport(ClassMapReport):
    """Writes what shows numbered objects.

    `STEM_overlay.png`, `STEM_compare.png` (input beside overlay), `STEM_objects.csv` (a row per
    object), `STEM_summary.json` (count and sizes) and `STEM_sizes.png` (their distribution).
    """

    endings = ("compare.png", "overlay.png", "objects.csv", "summary.json", "sizes.png")

    def before_and_after(self, prediction: Prediction) -> tuple[np.ndarray, np.ndarray]:
        """Return the micrograph without and with its objects (H, W, 3) uint8, of one size."""
        image = pictures.shown_input(prediction)
        ids = shrink(prediction.output, pictures.reduction(prediction), means=False)
        return as_rgb(pictures.to_display(image)), overlay_of(image, ids)

    def legend(self, prediction: Prediction) -> Legend:
        """Return that each object has a colour."""
        return [("each object has a colour of its own", None)]

    def write_tables(self, prediction: Prediction, folder: Path, stem: str) -> dict[str, Path]:
        """Write `objects`, `summary` and `sizes`."""
        measured = measure_objects(prediction.output, prediction.image)
        paths = {
            "objects": folder / f"{stem}_objects.csv",
            "summary": folder / f"{stem}_summary.json",
            "sizes": folder / f"{stem}_sizes.png",
        }
        write_object_table(paths["objects"], rows_of(measured, prediction.pixel_size, prediction.name))
        write_text(paths["summary"], json.dumps(summary_of(measured, prediction.pixel_size), indent=1))
        plot_sizes(paths["sizes"], measured, prediction.pixel_size)
        return paths


def overlay_of(image: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return the micrograph (H, W) with its objects tinted and outlined, as (H, W, 3) uint8."""
    picture = as_rgb(pictures.to_display(image)).astype(np.float32)
    # numbers of neighbours are near each other: their colours are not
    colours = pictures.COLOURS[(np.asarray(ids, dtype=np.int64) * 5) % len(pictures.COLOURS)]
    inside = ids > 0
    edge = np.zeros(ids.shape, dtype=bool)
    edge[:-1] |= ids[:-1] != ids[1:]
    edge[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    picture[inside] += OPACITY * (colours[inside] - picture[inside])
    picture[inside & edge] = colours[inside & edge]
    return picture.astype(np.uint8)


def plot_sizes(path: str | Path, measured: list[ObjectMeasures], pixel_size: float | None) -> None:
    """Draw the distribution of the equivalent diameters into a PNG file.

    Objects that the micrograph's edge cuts are left out; median, quartiles and number are written.
    """
    factor = 1.0 if pixel_size is None else pixel_size
    sizes = [factor * one.equivalent_diameter for one in measured if not one.touches_border]
    draw_sizes(path, np.array(sizes), "equivalent diameter", "px" if pixel_size is None else "nm")


def draw_sizes(path: str | Path, sizes: np.ndarray, label: str, unit: str) -> None:
    """Draw how sizes (N,) are distributed into a PNG file, with median, quartiles and number."""
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    if len(sizes):
        low, median, high = np.percentile(sizes, [25, 50, 75])
        axes.hist(sizes, bins="auto" if len(sizes) > 5 else 5, color="#0072b2", edgecolor="white")
        axes.axvline(median, color="#d55e00", linewidth=1.5)
        title = f"median {median:.3g} {unit} (quartiles {low:.3g} to {high:.3g}), n = {len(sizes)}"
    else:
        title = "no object that the edge does not cut"
    axes.set(xlabel=f"{label} ({unit})", ylabel="objects", title=title)
    axes.title.set_fontsize(9)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=150))
