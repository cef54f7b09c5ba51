"""Measurements on a class map: each class's connected regions, counted and sized band by band."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emfm.class_names import is_background
from emfm.data.objects import EIGHT_NEIGHBOURS
from emfm.files import write_atomically
from emfm.io.large_images import release_pages

# Pixels of a band: labels of so many are held at a time.
BAND_PIXELS = 2**20
# What is known of a piece of a region: all but the class are sums over its pixels.
PIECE = ("class", "pixels", "rows", "columns", "pixels on the micrograph's edge")
COLUMNS = (
    "region",
    "class",
    "area_px",
    "area_nm2",
    "equivalent_diameter_px",
    "equivalent_diameter_nm",
    "centroid_x_px",
    "centroid_y_px",
    "touches_border",
)


@dataclass(frozen=True)
class Measurements:
    """The connected regions of a class map, in the order of class, then of their first pixel."""

    classes: np.ndarray  #: (N,) class index
    areas: np.ndarray  #: (N,) in pixels
    centroids: np.ndarray  #: (N, 2) row and column in pixels; the first pixel's centre is (0, 0)
    touches_border: np.ndarray  #: (N,) whether the edge cuts a region: its size is a lower bound
    pixel_size: float | None  #: nm per pixel, or None where it is not known
    id2label: dict[int, str]  #: names of the classes
    shape: tuple[int, int]  #: (height, width) of the class map
    known: int  #: pixels that have a class: those without data have none

    @property
    def diameters(self) -> np.ndarray:
        """Diameter in pixels of a disc of each region's area."""
        return 2 * np.sqrt(self.areas / np.pi)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the table's rows by `COLUMNS`; without a pixel size, figures in nm are empty."""
        size, diameters = self.pixel_size, self.diameters
        for index in range(len(self.areas)):
            area, diameter = int(self.areas[index]), float(diameters[index])
            yield {
                "region": index + 1,
                "class": self.id2label[int(self.classes[index])],
                "area_px": area,
                "area_nm2": "" if size is None else f"{area * size**2:.6g}",
                "equivalent_diameter_px": f"{diameter:.3f}",
                "equivalent_diameter_nm": "" if size is None else f"{diameter * size:.6g}",
                "centroid_x_px": f"{self.centroids[index, 1]:.2f}",
                "centroid_y_px": f"{self.centroids[index, 0]:.2f}",
                "touches_border": "yes" if self.touches_border[index] else "no",
            }

    def summary(self) -> dict[str, Any]:
        """Return counts, covered share and diameters (of uncut regions alone) by class."""
        unit = 1.0 if self.pixel_size is None else self.pixel_size
        found = {}
        for index, label in sorted(self.id2label.items()):
            if is_background(label):
                continue
            mine = self.classes == index
            share = float(self.areas[mine].sum()) / max(self.known, 1)
            whole = self.diameters[mine & ~self.touches_border] * unit
            found[label] = {
                "regions": int(mine.sum()),
                "touching_border": int((mine & self.touches_border).sum()),
                "area_share": round(share, 6),
                "mean_diameter": round(float(whole.mean()), 4) if len(whole) else None,
                "median_diameter": round(float(np.median(whole)), 4) if len(whole) else None,
            }
        return {"unit": "px" if self.pixel_size is None else "nm", "pixel_size_nm": self.pixel_size, "classes": found}


def measure(classes: np.ndarray, id2label: dict[int, str], pixel_size: float | None = None) -> Measurements:
    """Find and measure the connected regions of each class but the background.

    Pixels that share a side or a corner belong together, as in ImageJ's particle analysis. The map
    is read in bands of rows, so memory does not grow with it; regions across bands are joined.

    Args:
        classes: (H, W) class indices; may be memory-mapped.
        id2label: names of the classes; one that is called "background" is left out.
        pixel_size: nm per pixel, where it is known.
    """
    height, width = classes.shape
    shown = [index for index, label in sorted(id2label.items()) if not is_background(label)]
    tables, joins = [np.empty((0, len(PIECE)))], [np.empty((0, 2), dtype=np.int64)]
    above, count, known = None, 0, 0
    step = max(1, BAND_PIXELS // width)
    for top in range(0, height, step):
        band = np.asarray(classes[top : top + step])
        known += int(np.isin(band, list(id2label)).sum())
        around = np.asarray(classes[max(0, top - 1) : top + step + 1])
        cut_off = _beside_no_data(around, list(id2label))[min(top, 1) :][: len(band)]
        numbers, pieces = _label_band(band, shown, (top, height), count, cut_off)
        if above is not None:
            joins.append(_joins(above, (band[0], numbers[0])))
        above = band[-1].copy(), numbers[-1].copy()
        tables.append(pieces)
        count += len(pieces)
        release_pages(classes)
    regions = _joined(np.concatenate(tables), np.concatenate(joins))
    index, areas = regions[:, 0].astype(np.int64), regions[:, 1].astype(np.int64)
    centroids, cut = regions[:, 2:4] / regions[:, 1:2], regions[:, 4] > 0
    return Measurements(index, areas, centroids, cut, pixel_size, dict(id2label), (height, width), known)


def _beside_no_data(classes: np.ndarray, known: list[int]) -> np.ndarray:
    """Return which pixels (H, W) have a neighbour without a class: what lies there is cut off."""
    missing = ~np.isin(classes, known)
    return ndimage.binary_dilation(missing, EIGHT_NEIGHBOURS) if missing.any() else missing


def _label_band(
    band: np.ndarray, shown: list[int], place: tuple[int, int], count: int, cut_off: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Number a band's pieces from `count` on (rows, W), -1 elsewhere; measure them as `PIECE`.

    The place is the band's first row, and the height of the whole; `cut_off` (rows, W) are pixels
    that count as the micrograph's edge.
    """
    top, height = place
    numbers = np.full(band.shape, -1, dtype=np.int64)
    tables = [np.empty((0, len(PIECE)))]
    for index in shown:
        labels, found = ndimage.label(band == index, structure=EIGHT_NEIGHBOURS)
        if not found:
            continue
        rows, columns = np.nonzero(labels)
        piece = labels[rows, columns] - 1
        numbers[rows, columns] = piece + count
        edge = (
            cut_off[rows, columns]
            | (columns == 0)
            | (columns == band.shape[1] - 1)
            | (rows + top == 0)
            | (rows + top == height - 1)
        )
        sums = [np.bincount(piece, values, minlength=found) for values in (rows + top, columns, edge)]
        tables.append(np.stack([np.full(found, index), np.bincount(piece, minlength=found), *sums], axis=1))
        count += found
    return numbers, np.concatenate(tables)


def _joined(pieces: np.ndarray, joins: np.ndarray) -> np.ndarray:
    """Add up the pieces (N, 5) that belong together, given as pairs (J, 2) of their numbers."""
    count = len(pieces)
    if not count:
        return pieces
    graph = coo_array((np.ones(len(joins), dtype=bool), (joins[:, 0], joins[:, 1])), shape=(count, count))
    regions, region_of = connected_components(graph, directed=False)
    _, first = np.unique(region_of, return_index=True)
    table = np.stack([np.bincount(region_of, column, minlength=regions) for column in pieces.T], axis=1)
    table[:, 0] = pieces[first, 0]  # a class is no sum
    return table[np.lexsort((first, table[:, 0]))]  # by class, then by the first pixel


def _joins(above: tuple[np.ndarray, np.ndarray], below: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return the pairs (J, 2) of numbers that touch across two rows of (classes, numbers)."""
    width = len(above[0])
    pairs = []
    for shift in (-1, 0, 1):
        upper, lower = slice(max(0, -shift), width - max(0, shift)), slice(max(0, shift), width - max(0, -shift))
        same = (above[0][upper] == below[0][lower]) & (above[1][upper] >= 0)
        pairs.append(np.stack([above[1][upper][same], below[1][lower][same]], axis=1))
    return np.unique(np.concatenate(pairs), axis=0)


def write_measurements(path: str | Path, measurements: Measurements) -> None:
    """Write the table as a CSV file, whole or not at all."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(measurements.rows())

    write_atomically(path, write)
