"""How a restored micrograph is shown to people: beside its input, with the intensities along a line."""

from pathlib import Path

import numpy as np

from emfm.io.writing import write_image
from emfm.reports.pictures import Legend, as_rgb, beside, captioned, reduction, shown_input, shrink, to_grey
from emfm.reports.prediction import Prediction


class ImageReport:
    """Writes what shows a prediction; the result itself is written elsewhere.

    Image and output may be memory-mapped: they are read in bands, and pictures of more than 2048 pixels a side are
    reduced. This one shows an image: `STEM_compare.png`, and the intensities along the middle row, `STEM_profile.csv`
    and `STEM_profile.png`.
    """

    # The picture to look at first.
    first = "compare"

    def write(self, prediction: Prediction, folder: str | Path, stem: str) -> dict[str, Path]:
        """Write pictures and tables.

        Args:
            prediction: what `predict` returned.
            folder: where the files go; made if needed.
            stem: what their names begin with.

        Returns:
            The paths: `picture`, the one to look at first, those of `pictures` and those of `write_tables`.
        """
        folder = Path(folder)
        paths = {}
        for kind, picture in self.pictures(prediction).items():
            paths[kind] = folder / f"{stem}_{kind}.png"
            write_image(paths[kind], picture)
        return {"picture": paths[self.first], **paths, **self.write_tables(prediction, folder, stem)}

    def pictures(self, prediction: Prediction) -> dict[str, np.ndarray]:
        """Return the pictures (H, W, 3), each with a legend and, where it is known, a scale bar.

        `compare` shows input and result beside each other.
        """
        picture = beside(*self.before_and_after(prediction))
        return {"compare": captioned(picture, self.legend(prediction), prediction)}

    def before_and_after(self, prediction: Prediction) -> tuple[np.ndarray, np.ndarray]:
        """Return input and result (H, W, 3) uint8 at one size, on one grey scale, to lay over each other."""
        image = shown_input(prediction).astype(np.float32)
        output = shrink(prediction.output, reduction(prediction)).astype(np.float32)
        limits = np.percentile(np.concatenate([image.ravel(), output.ravel()]), [0.5, 99.5])
        return as_rgb(to_grey(image, *limits)), as_rgb(to_grey(output, *limits))

    def legend(self, prediction: Prediction) -> Legend:
        """Return what stands below the pictures."""
        return [("left: input, right: output", None)]

    def write_tables(self, prediction: Prediction, folder: Path, stem: str) -> dict[str, Path]:
        """Write tables and plots; returns `profile` and `profile_picture`."""
        from emfm.reports.profiles import line_profile, plot_profile, write_profile  # matplotlib loads slowly

        profile = line_profile(prediction)
        table, picture = folder / f"{stem}_profile.csv", folder / f"{stem}_profile.png"
        write_profile(table, profile)
        plot_profile(picture, profile)
        return {"profile": table, "profile_picture": picture}
