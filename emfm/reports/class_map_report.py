"""How a class map is shown to people: laid over its micrograph, with a table of its regions."""

import json
from pathlib import Path

import numpy as np

from emfm.files import write_text
from emfm.reports.image_report import ImageReport
from emfm.reports.measurements import measure, write_measurements
from emfm.reports.pictures import (
    Legend,
    as_rgb,
    beside,
    captioned,
    class_colours,
    overlay,
    reduction,
    shown_input,
    shrink,
    to_display,
)
from emfm.reports.prediction import Prediction


class ClassMapReport(ImageReport):
    """Writes what shows a segmentation.

    `STEM_overlay.png`, `STEM_compare.png` (input beside overlay), `STEM_measurements.csv` (a row per region) and
    `STEM_summary.json` (counts, shares and mean diameters by class).
    """

    first = "overlay"

    def pictures(self, prediction: Prediction) -> dict[str, np.ndarray]:
        """Return `compare`, micrograph and overlay beside each other, and `overlay` alone."""
        before, after = self.before_and_after(prediction)
        legend = self.legend(prediction)
        compared = captioned(beside(before, after), legend, prediction)
        return {"compare": compared, "overlay": captioned(after, legend, prediction)}

    def before_and_after(self, prediction: Prediction) -> tuple[np.ndarray, np.ndarray]:
        """Return the micrograph and the micrograph with its classes over it (H, W, 3) uint8, at one size."""
        image = shown_input(prediction)
        classes = shrink(prediction.output, reduction(prediction), means=False)
        return as_rgb(to_display(image)), overlay(image, classes, labels_of(prediction))

    def legend(self, prediction: Prediction) -> Legend:
        """Return the names and colours of the classes."""
        labels = labels_of(prediction)
        return [(labels[index], colour) for index, colour in class_colours(labels).items()]

    def write_tables(self, prediction: Prediction, folder: Path, stem: str) -> dict[str, Path]:
        """Write `measurements` and `summary`."""
        found = measure(prediction.output, labels_of(prediction), prediction.pixel_size)
        table, summary = folder / f"{stem}_measurements.csv", folder / f"{stem}_summary.json"
        write_measurements(table, found)
        write_text(summary, json.dumps(found.summary(), indent=1))
        return {"measurements": table, "summary": summary}


def labels_of(prediction: Prediction) -> dict[int, str]:
    """Return the names of a segmentation's classes."""
    assert prediction.id2label is not None
    return prediction.id2label
