"""How results are shown: a restored micrograph beside its input, a class map over its own."""

import json
import logging
from pathlib import Path

import numpy as np

from emfm.files import write_text
from emfm.io.writing import write_image
from emfm.reports import pictures
from emfm.reports.measurements import measure, write_measurements
from emfm.reports.pictures import Legend, as_rgb, beside, captioned, shrink
from emfm.reports.prediction import Prediction

logger = logging.getLogger(__name__)


class ImageReport:
    """Writes what shows a prediction; the result itself is written elsewhere.

    Image and output may be memory-mapped: they are read in bands. Pictures of more than 2048 pixels
    a side are reduced. This report shows an image, `STEM_compare.png`, and the intensities along
    its middle row, `STEM_profile.csv` and `STEM_profile.png`. `STEM_residual.png` and
    `STEM_residual.json` show what was taken away.
    """

    first = "compare"  # the picture to look at first
    # of what is written
    endings: tuple[str, ...] = ("compare.png", "profile.csv", "profile.png", "residual.png", "residual.json")

    def names(self, stem: str) -> tuple[str, ...]:
        """Return the names of the files that `write` makes."""
        return tuple(f"{stem}_{ending}" for ending in self.endings)

    def write(self, prediction: Prediction, folder: str | Path, stem: str) -> dict[str, Path]:
        """Write pictures and tables, `STEM_*`, into a folder, which is made if needed.

        Returns the paths: `picture`, to look at first, those of `pictures` and of `write_tables`.
        """
        folder = Path(folder)
        paths = {}
        for kind, picture in self.pictures(prediction).items():
            paths[kind] = folder / f"{stem}_{kind}.png"
            write_image(paths[kind], picture)
        return {"picture": paths[self.first], **paths, **self.write_tables(prediction, folder, stem)}

    def pictures(self, prediction: Prediction) -> dict[str, np.ndarray]:
        """Return the pictures (H, W, 3), each with a legend and, where it is known, a scale bar.

        `compare` shows input and result beside each other; `unsure`, where it was asked for, where
        the result is not sure.
        """
        picture = beside(*self.before_and_after(prediction))
        return {"compare": captioned(picture, self.legend(prediction), prediction), **self.unsure(prediction)}

    def unsure(self, prediction: Prediction) -> dict[str, np.ndarray]:
        """Return the picture `unsure` of where the result is not sure, if that is known."""
        if prediction.uncertainty is None:
            return {}
        picture, legend = pictures.unsure(prediction)
        return {"unsure": captioned(picture, legend, prediction)}

    def before_and_after(self, prediction: Prediction) -> tuple[np.ndarray, np.ndarray]:
        """Return input and result (H, W, 3) uint8, of one size and on one grey scale."""
        image = pictures.shown_input(prediction).astype(np.float32)
        output = shrink(prediction.output, pictures.reduction(prediction)).astype(np.float32)
        limits = pictures.limits_of(np.concatenate([image.ravel(), output.ravel()]))
        return as_rgb(pictures.to_grey(image, *limits)), as_rgb(pictures.to_grey(output, *limits))

    def legend(self, prediction: Prediction) -> Legend:
        """Return what stands below the pictures."""
        return [("left: input, right: output", None)]

    def write_tables(self, prediction: Prediction, folder: Path, stem: str) -> dict[str, Path]:
        """Write tables and plots; returns `profile`, `residual`, and a picture of each."""
        # matplotlib loads slowly
        from emfm.reports.profiles import line_profile, plot_profile, write_profile

        profile = line_profile(prediction)
        table, picture = folder / f"{stem}_profile.csv", folder / f"{stem}_profile.png"
        write_profile(table, profile)
        plot_profile(picture, profile)
        return {"profile": table, "profile_picture": picture, **self._write_residual(prediction, folder, stem)}

    def _write_residual(self, prediction: Prediction, folder: Path, stem: str) -> dict[str, Path]:
        """Write what was taken away, where sizes are the same; say if it is not noise."""
        from emfm.reports.residual import measure_residual, plot_residual

        if prediction.image.shape != prediction.output.shape:
            return {}
        found, residual = measure_residual(prediction.image, prediction.output)
        figures, picture = folder / f"{stem}_residual.json", folder / f"{stem}_residual.png"
        write_text(figures, json.dumps(found.to_dict(), indent=1))
        plot_residual(picture, found, residual)
        if found.looks_like != ("noise",):
            logger.warning("%s: what was taken away looks like %s", prediction.name, " and ".join(found.looks_like))
        return {"residual": figures, "residual_picture": picture}


class ClassMapReport(ImageReport):
    """Writes what shows a segmentation.

    `STEM_overlay.png`, `STEM_compare.png` (input beside overlay), `STEM_measurements.csv` (a row
    per region) and `STEM_summary.json` (counts, shares and mean diameters by class).
    """

    first = "overlay"
    endings: tuple[str, ...] = ("compare.png", "overlay.png", "measurements.csv", "summary.json")

    def pictures(self, prediction: Prediction) -> dict[str, np.ndarray]:
        """Return `compare`, micrograph and overlay beside each other, and `overlay` alone."""
        before, after = self.before_and_after(prediction)
        legend = self.legend(prediction)
        compared = captioned(beside(before, after), legend, prediction)
        overlaid = captioned(after, legend, prediction)
        return {"compare": compared, "overlay": overlaid, **self.unsure(prediction)}

    def before_and_after(self, prediction: Prediction) -> tuple[np.ndarray, np.ndarray]:
        """Return the micrograph without and with its classes (H, W, 3) uint8, of one size."""
        image = pictures.shown_input(prediction)
        classes = shrink(prediction.output, pictures.reduction(prediction), means=False)
        return as_rgb(pictures.to_display(image)), pictures.overlay(image, classes, prediction.labels)

    def legend(self, prediction: Prediction) -> Legend:
        """Return the names and colours of the classes."""
        colours = pictures.class_colours(prediction.labels)
        return [(prediction.labels[index], colour) for index, colour in colours.items()]

    def write_tables(self, prediction: Prediction, folder: Path, stem: str) -> dict[str, Path]:
        """Write `measurements` and `summary`."""
        found = measure(prediction.output, prediction.labels, prediction.pixel_size)
        table, summary = folder / f"{stem}_measurements.csv", folder / f"{stem}_summary.json"
        write_measurements(table, found)
        write_text(summary, json.dumps(found.summary(), indent=1))
        return {"measurements": table, "summary": summary}
