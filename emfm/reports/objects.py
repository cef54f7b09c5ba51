"""How numbered objects are shown: in colours over the micrograph, measured, and by their sizes."""

import json
from pathlib import Path

import numpy as np

from emfm.files import write_text
from emfm.reports import pictures
from emfm.reports.object_measures import measure_objects, rows_of, summary_of, write_object_table
from emfm.reports.object_sizes import plot_sizes
from emfm.reports.pictures import Legend, as_rgb, shrink
from emfm.reports.prediction import ObjectClasses, Prediction
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
        return as_rgb(pictures.to_display(image)), overlay_of(image, ids, prediction.object_classes)

    def legend(self, prediction: Prediction) -> Legend:
        """Return the colours of the classes, or that each object has one."""
        if prediction.object_classes is None:
            return [("each object has a colour of its own", None)]
        return [(label, colour_of(index)) for index, label in sorted(prediction.object_classes.names.items())]

    def write_tables(self, prediction: Prediction, folder: Path, stem: str) -> dict[str, Path]:
        """Write `objects`, `summary` and `sizes`."""
        size, classes = prediction.pixel_size, prediction.object_classes
        measured = measure_objects(prediction.output, prediction.image, prediction.data_bar)
        paths = {
            "objects": folder / f"{stem}_objects.csv",
            "summary": folder / f"{stem}_summary.json",
            "sizes": folder / f"{stem}_sizes.png",
        }
        write_object_table(paths["objects"], rows_of(measured, size, prediction.name, classes), classes is not None)
        write_text(paths["summary"], json.dumps(summary_of(measured, size, classes), indent=1))
        plot_sizes(paths["sizes"], measured, size, classes)
        return paths


def colour_of(numbers: int | np.ndarray) -> np.ndarray:
    """Return the RGB colour (0 to 255) of a class, or those of many numbers."""
    return pictures.COLOURS[numbers % len(pictures.COLOURS)]


def overlay_of(image: np.ndarray, ids: np.ndarray, classes: ObjectClasses | None = None) -> np.ndarray:
    """Return the micrograph (H, W) with its objects tinted and outlined, as (H, W, 3) uint8.

    The colour is that of the class, or without classes the object's own.
    """
    picture = as_rgb(pictures.to_display(image)).astype(np.float32)
    numbers = np.asarray(ids, dtype=np.int64)
    # numbers of neighbours are near each other: their colours are not
    colours = colour_of(numbers * 5 if classes is None else classes.of[numbers])
    inside = ids > 0
    edge = np.zeros(ids.shape, dtype=bool)
    edge[:-1] |= ids[:-1] != ids[1:]
    edge[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    picture[inside] += OPACITY * (colours[inside] - picture[inside])
    picture[inside & edge] = colours[inside & edge]
    return picture.astype(np.uint8)
