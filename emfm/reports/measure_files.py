"""Objects of masks that are there already, measured as those that a model finds."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from emfm.errors import EMError
from emfm.files import writable_folder, write_text
from emfm.io.bar_look import with_seen_bar
from emfm.io.masks import Mask, read_masks
from emfm.io.reading import read_micrograph
from emfm.io.scale_bar import ScaleBar, find_scale_bars, offer_scale_bar, pixel_size_by_bar
from emfm.io.writing import write_image
from emfm.no_data import say_data_bar
from emfm.reports.measure_arguments import MeasureArguments
from emfm.reports.measurements import EIGHT_NEIGHBOURS
from emfm.reports.object_measures import measure_objects, rows_of, summary_of, write_object_table
from emfm.reports.object_sizes import plot_sizes
from emfm.reports.objects import ObjectReport
from emfm.reports.outlines import write_outlines
from emfm.reports.prediction import Prediction

logger = logging.getLogger(__name__)
TABLE, SIZES = "objects.csv", "sizes.png"  # of all files together
OUTLINES = "outlines.zip"
ENDINGS = ("objects.csv", "summary.json", "sizes.png", "overlay.png")  # of each


def measure_files(
    masks: Sequence[Path], output: Path, arguments: MeasureArguments | None = None
) -> list[dict[str, Any]]:
    """Measure the objects of masks; write a table and a figure for each and for all together.

    Args:
        masks: files of numbers of objects, or of which connected parts are objects.
        output: folder for `NAME_objects.csv`, `NAME_sizes.png`, `NAME_overlay.png`,
            `NAME_summary.json`, and `objects.csv` and `sizes.png` of all.
        arguments: how; the defaults if None.

    Returns:
        For each mask the entries of its summary, and `file`.

    Raises:
        EMError: nothing was given, a file cannot be read, sizes differ, or files would be replaced.
    """
    if not masks:
        raise EMError("no mask was given")
    how = arguments or MeasureArguments()
    writable_folder(output)
    _check_places(masks, output, how.overwrite)
    rows, entries, everything = [], [], []
    for path in masks:
        prediction = _pair(path, how)
        measured = measure_objects(prediction.output, prediction.image)
        mine = list(rows_of(measured, prediction.pixel_size, path.name))
        _write(output, path.stem, prediction, mine, measured)
        if how.outlines:
            write_outlines(output / f"{path.stem}_{OUTLINES}", prediction.output)
        rows += mine
        everything += measured
        entries.append({"file": str(path), **summary_of(measured, prediction.pixel_size)})
    write_object_table(output / TABLE, rows)
    sizes = {entry["pixel_size_nm"] for entry in entries}
    if len(sizes) == 1:  # else pixels of several sizes would stand beside each other
        plot_sizes(output / SIZES, everything, sizes.pop())
    return entries


def _pair(path: Path, how: MeasureArguments) -> Prediction:
    """Return a mask's objects over its micrograph, without data bar and scale bars."""
    mask = _single(path)
    ids = _numbers(mask.array, how.objects, path)
    size = how.pixel_size or mask.pixel_size
    found = _image_of(path, None if how.images is None else Path(how.images))
    if found is None:
        return Prediction(ids, ids, None, size, path.name)
    if found.image.shape != ids.shape:
        raise EMError(
            f"{path} is {ids.shape} pixels, its micrograph {found.image.shape}: give those that belong together"
        )
    if how.scale_bar is not None:
        size = pixel_size_by_bar(found.image, how.scale_bar, f"the micrograph of {path}")
    elif (size := how.pixel_size or found.pixel_size or mask.pixel_size) is None:
        offer_scale_bar(found)
    found = with_seen_bar(found)
    if found.data_bar:
        say_data_bar(found.name, found.data_bar)
    image = found.without_data_bar().array
    ids = ids[: image.shape[0]]
    return Prediction(image, without_drawn(ids, find_scale_bars(image), found.name), None, size, path.name)


def without_drawn(ids: np.ndarray, bars: Sequence[ScaleBar], name: str) -> np.ndarray:
    """Return numbers of objects (H, W) without those that are mostly a scale bar or its letters."""
    for bar in bars:
        top, left, bottom, right = bar.around
        inside, counts = np.unique(ids[top:bottom, left:right], return_counts=True)
        drawn = [n for n, count in zip(inside, counts, strict=True) if n > 0 and 2 * count > (ids == n).sum()]
        if drawn:
            logger.warning("%s: the scale bar of %d px and its letters are left out", name, bar.pixels)
            ids = np.where(np.isin(ids, drawn), 0, ids)
    return ids


def _check_places(masks: Sequence[Path], output: Path, overwrite: bool) -> None:
    """Raise an EMError where two masks have one name, or a file that is there would be replaced."""
    by_stem: dict[str, Path] = {}
    for path in masks:
        other = by_stem.setdefault(path.stem.casefold(), path)
        if other is not path:
            raise EMError(f"the tables of {other} and {path} would have one name: use folders of their own")
    names = [TABLE, SIZES, *(f"{path.stem}_{ending}" for path in masks for ending in (*ENDINGS, OUTLINES))]
    there = [name for name in names if (output / name).exists()]
    if there and not overwrite:
        raise EMError(f"{output} holds {there[0]}: choose another --output, or replace it with --overwrite")


def _write(output: Path, stem: str, prediction: Prediction, rows: list[dict[str, Any]], measured: list[Any]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    write_object_table(output / f"{stem}_objects.csv", rows)
    write_text(output / f"{stem}_summary.json", json.dumps(summary_of(measured, prediction.pixel_size), indent=1))
    plot_sizes(output / f"{stem}_sizes.png", measured, prediction.pixel_size)
    write_image(output / f"{stem}_overlay.png", ObjectReport().pictures(prediction)["overlay"])


def _single(path: Path) -> Mask:
    found = read_masks(path)
    if len(found) > 1:
        raise EMError(f"{path} holds {len(found)} masks; save each slice as its own file")
    return found[0]


def _numbers(values: np.ndarray, objects: str, path: Path) -> np.ndarray:
    """Return numbers of objects (H, W), 0 for the background."""
    values = np.nan_to_num(values, nan=0.0) if values.dtype.kind == "f" else values
    if objects == "numbers" or (objects == "auto" and len(np.unique(values[values > 0])) > 1):
        if objects == "auto":
            logger.warning("%s: each value is the number of an object; --objects parts takes connected parts", path)
        return np.where(values > 0, values, 0).astype(np.int64)
    return ndimage.label(values > 0, structure=EIGHT_NEIGHBOURS)[0]


def _image_of(mask: Path, images: Path | None) -> Any:
    if images is None:
        return None
    if images.is_file():
        return read_micrograph(images)
    found = [path for path in sorted(images.iterdir()) if path.stem == mask.stem] if images.is_dir() else []
    if not found:
        raise EMError(f"{images} holds no micrograph of the name {mask.stem}, for {mask}")
    return read_micrograph(found[0])
