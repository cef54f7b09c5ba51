"""Measurements of numbered objects: size, shape, intensity, neighbours."""

import csv
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree
from skimage.measure import regionprops

from emfm.files import write_atomically
from emfm.io.large_images import release_pages
from emfm.reports.perimeter import perimeter_of
from emfm.reports.prediction import ObjectClasses

# Pixels of a band of rows in which objects are looked up.
BAND_PIXELS = 2**22
# After so many objects what was read of memory maps leaves the memory: each touches many pages.
AT_A_TIME = 64
# Directions in which the smallest Feret diameter is looked for.
ANGLES = np.deg2rad(np.arange(0, 180, 1.0))


@dataclass(frozen=True, slots=True)
class ObjectMeasures:
    """One object. Lengths and areas are in pixels; `rows_of` adds them in nm."""

    id: int
    area: float
    equivalent_diameter: float  # of a disc of the same area
    feret_max: float  # the longest distance between two of its points
    feret_min: float  # the smallest width of a gap that it fits through
    aspect: float  # longer axis to shorter axis of the ellipse with the same moments
    circularity: float  # 4 pi area / perimeter squared: 1 for a disc
    solidity: float  # share of its convex hull that it fills
    orientation: float  # of its longer axis, degrees against the x axis, counterclockwise
    mean_intensity: float  # in the micrograph's units
    centroid_x: float
    centroid_y: float
    neighbour: float  # distance of its centroid to the nearest other one; NaN if it is alone
    touches_border: bool  # the micrograph's edge cuts it: its size is a lower bound


LENGTHS = ("equivalent_diameter", "feret_max", "feret_min", "centroid_x", "centroid_y", "neighbour")


def measure_objects(ids: Any, image: Any, data_bar: int = 0) -> list[ObjectMeasures]:
    """Measure every object of a map of numbers, in the order of the numbers.

    Args:
        ids: (H, W) numbers, 0 is the background; read in bands.
        image: (H, W) the micrograph; NaN is no data.
        data_bar: lowest rows, without objects: what ends there is cut, as at the edge.
    """
    edges = ids.shape[0] - data_bar, ids.shape[1]
    measured = []
    for number, box in sorted(boxes_of(ids).items()):
        measured.append(_measured(number, box, ids, image, edges))
        if len(measured) % AT_A_TIME == 0:
            release_pages(ids)
            release_pages(image)
    if len(measured) < 2:
        return measured
    places = np.array([(one.centroid_y, one.centroid_x) for one in measured])
    distances = KDTree(places).query(places, k=2)[0][:, 1]
    return [replace(one, neighbour=float(distance)) for one, distance in zip(measured, distances, strict=True)]


def boxes_of(ids: Any) -> dict[int, tuple[int, int, int, int]]:
    """Return the box of each object: first row and column, and those after the last."""
    height, width = ids.shape
    step = max(1, BAND_PIXELS // width)
    boxes: dict[int, tuple[int, int, int, int]] = {}
    for top in range(0, height, step):
        band = np.asarray(ids[top : top + step])
        numbers, inverse = np.unique(band, return_inverse=True)
        found = ndimage.find_objects(inverse.reshape(band.shape) + 1)
        for number, box in zip(numbers.tolist(), found, strict=True):
            if number <= 0 or box is None:
                continue
            rows, columns = box
            new = top + rows.start, columns.start, top + rows.stop, columns.stop
            old = boxes.get(number, new)
            boxes[number] = (min(old[0], new[0]), min(old[1], new[1]), max(old[2], new[2]), max(old[3], new[3]))
        release_pages(ids)
    return boxes


def _measured(
    number: int, box: tuple[int, int, int, int], ids: Any, image: Any, edges: tuple[int, int]
) -> ObjectMeasures:
    """Measure an object in its box; the edges are one past the last row and column that count."""
    top, left, bottom, right = box
    mask = np.asarray(ids[top:bottom, left:right]) == number
    values = np.asarray(image[top:bottom, left:right], dtype=np.float64)
    # scikit-image takes what touches the edge of its image for cut off
    region = regionprops(np.pad(mask, 1).astype(np.uint8))[0]
    widths = _widths(mask)
    perimeter = perimeter_of(mask, float(widths.min()))
    known = values[mask & ~np.isnan(values)]
    height, width = edges
    return ObjectMeasures(
        id=number,
        area=float(region.area),
        equivalent_diameter=float(region.equivalent_diameter_area),
        feret_max=float(widths.max()),
        feret_min=float(widths.min()),
        aspect=float(region.axis_major_length / max(region.axis_minor_length, 1e-9)) if region.area > 1 else 1.0,
        circularity=float(min(1.0, 4 * math.pi * region.area / perimeter**2)) if perimeter else 1.0,
        solidity=float(region.solidity) if region.area > 2 else 1.0,
        orientation=math.degrees(region.orientation) % 180 - 90,
        mean_intensity=float(known.mean()) if len(known) else math.nan,
        centroid_x=float(region.centroid[1] - 1 + left),
        centroid_y=float(region.centroid[0] - 1 + top),
        neighbour=math.nan,
        touches_border=top == 0 or left == 0 or bottom == height or right == width,
    )


def _widths(mask: np.ndarray) -> np.ndarray:
    """Return how wide a mask (h, w) is in each of `ANGLES`.

    A pixel is a square, not a point: its corners count. Those at the ends of rows are the farthest.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    left = mask[rows].argmax(axis=1) - 0.5
    right = mask.shape[1] - mask[rows, ::-1].argmax(axis=1) - 0.5
    y = np.concatenate([rows - 0.5, rows - 0.5, rows + 0.5, rows + 0.5])
    x = np.concatenate([left, right, left, right])
    return np.ptp(y[:, None] * np.sin(ANGLES) + x[:, None] * np.cos(ANGLES), axis=0)


def rows_of(
    measured: Iterable[ObjectMeasures], pixel_size: float | None, name: str, classes: ObjectClasses | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, lengths in pixels and, where the pixel size is known, in nm."""
    for one in measured:
        row: dict[str, Any] = {"file": name, "id": one.id}
        if classes is not None:
            row["class"] = classes.name(one.id)
        for field in fields(one)[1:]:
            value = getattr(one, field.name)
            unit = "_px2" if field.name == "area" else "_px" if field.name in LENGTHS else ""
            row[field.name + unit] = _shown(value)
            if unit:
                factor = None if pixel_size is None else pixel_size ** (2 if unit == "_px2" else 1)
                row[field.name + unit.replace("px", "nm")] = "" if factor is None else _shown(value * factor)
        yield row


def _shown(value: float | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if isinstance(value, float) and math.isnan(value) else f"{value:.6g}"


def columns(classed: bool = False) -> list[str]:
    """Return the headings of the table; with `classed` one is that of the class."""
    blank = ObjectMeasures(**{field.name: 0 for field in fields(ObjectMeasures)})  # type: ignore[arg-type]
    classes = ObjectClasses(np.zeros(1, dtype=np.uint8), {0: ""}) if classed else None
    return list(next(rows_of([blank], None, "", classes)))


def write_object_table(path: str | Path, rows: Iterable[dict[str, Any]], classed: bool = False) -> None:
    """Write a table as a CSV file, whole or not at all."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns(classed))
            writer.writeheader()
            writer.writerows(rows)

    write_atomically(path, write)


def by_class(measured: list[ObjectMeasures], classes: ObjectClasses) -> dict[str, list[ObjectMeasures]]:
    """Return the objects of each class, in the order of the classes."""
    found: dict[str, list[ObjectMeasures]] = {label: [] for _, label in sorted(classes.names.items())}
    for one in measured:
        found[classes.name(one.id)].append(one)
    return found


def summary_of(
    measured: list[ObjectMeasures], pixel_size: float | None, classes: ObjectClasses | None = None
) -> dict[str, Any]:
    """Return number and sizes (of objects that the edge does not cut), of each class, too."""
    sizes = {"unit": "px" if pixel_size is None else "nm", "pixel_size_nm": pixel_size, **_sizes(measured, pixel_size)}
    if classes is None:
        return sizes
    return {
        **sizes,
        "classes": {label: _sizes(some, pixel_size) for label, some in by_class(measured, classes).items()},
    }


def _sizes(measured: list[ObjectMeasures], pixel_size: float | None) -> dict[str, Any]:
    whole = np.array([one.equivalent_diameter for one in measured if not one.touches_border])
    whole = whole * (1.0 if pixel_size is None else pixel_size)
    quartiles = [round(float(value), 4) for value in np.percentile(whole, [25, 50, 75])] if len(whole) else [None] * 3
    return {
        "objects": len(measured),
        "touching_border": len(measured) - len(whole),
        "median_diameter": quartiles[1],
        "quartiles": [quartiles[0], quartiles[2]],
        "mean_diameter": round(float(whole.mean()), 4) if len(whole) else None,
        "standard_deviation": round(float(whole.std(ddof=1)), 4) if len(whole) > 1 else None,
    }
