"""What people look at after a prediction: pictures, tables and profiles, written beside the result."""

import json
from pathlib import Path

from emfm.files import write_text
from emfm.io.writing import write_image
from emfm.reports.measurements import measure, write_measurements
from emfm.reports.pictures import pictures_of
from emfm.reports.prediction import Prediction
from emfm.reports.profiles import line_profile, plot_profile, write_profile


def write_results(prediction: Prediction, folder: str | Path, stem: str) -> dict[str, Path]:
    """Write what shows a prediction to people; the result itself is written elsewhere.

    A segmentation leaves `STEM_overlay.png`, `STEM_compare.png` (input beside overlay), `STEM_measurements.csv` (a row
    per region) and `STEM_summary.json` (counts, shares and mean diameters by class). A restoration leaves
    `STEM_compare.png` and the intensities along the middle row, `STEM_profile.csv` and `STEM_profile.png`. Image and
    output may be memory-mapped: they are read in bands, and pictures of more than 2048 pixels a side are reduced.

    Args:
        prediction: what `predict` returned.
        folder: where the files go; made if needed.
        stem: what their names begin with.

    Returns:
        The paths: `picture`, the one to look at first, `compare`, and `overlay`, `measurements` and `summary` or
        `profile` and `profile_picture`.
    """
    folder = Path(folder)
    pictures = pictures_of(prediction)
    paths = {kind: folder / f"{stem}_{kind}.png" for kind in pictures}
    for kind, picture in pictures.items():
        write_image(paths[kind], picture)
    if prediction.id2label is None:
        profile = line_profile(prediction)
        paths |= {"profile": folder / f"{stem}_profile.csv", "profile_picture": folder / f"{stem}_profile.png"}
        write_profile(paths["profile"], profile)
        plot_profile(paths["profile_picture"], profile)
        return {"picture": paths["compare"], **paths}
    found = measure(prediction.output, prediction.id2label, prediction.pixel_size)
    paths |= {"measurements": folder / f"{stem}_measurements.csv", "summary": folder / f"{stem}_summary.json"}
    write_measurements(paths["measurements"], found)
    write_text(paths["summary"], json.dumps(found.summary(), indent=1))
    return {"picture": paths["overlay"], **paths}
