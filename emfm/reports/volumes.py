"""How a volume is shown: some of its slices beside each other, and its objects in numbers."""

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from emfm.files import write_atomically, write_text
from emfm.io.large_images import release_pages
from emfm.reports.object_sizes import draw_sizes
from emfm.reports.pictures import Legend, captioned
from emfm.reports.prediction import ObjectClasses, Prediction
from emfm.reports.report import ClassMapReport, ImageReport

BAND_PIXELS = 2**21
# Of the picture of slices: how many of them it shows at most, in a row, and each one's side.
SHOWN, IN_A_ROW, SIDE, GAP = 9, 3, 512, 6
COLUMNS = (
    "file",
    "id",
    "class",
    "volume_vx",
    "volume_nm3",
    "equivalent_diameter_nm",
    "slices",
    "first_slice",
    "last_slice",
    "centroid_x_px",
    "centroid_y_px",
    "centroid_slice",
    "mean_intensity",
    "touches_border",
)
# What is summed over the voxels of each object.
SUMS = ("voxels", "x", "y", "slice", "intensity", "known", "border")


@dataclass(frozen=True)
class Voxel:
    """A voxel's sides in nm; None where they are not known."""

    side: float | None
    depth: float | None

    @property
    def volume(self) -> float | None:
        """In cubic nm, None where it is not known."""
        return None if self.side is None or self.depth is None else self.side**2 * self.depth


class VolumeObjects:
    """Measures the objects of a volume, which comes slice by slice.

    Args:
        count: of the objects; their numbers are 1 to `count`.
        depth: how many slices there are.
        voxel: its sides.
        classes: of the objects, where they have some.
    """

    def __init__(self, count: int, depth: int, voxel: Voxel, classes: ObjectClasses | None = None):
        self.voxel, self.classes, self._depth = voxel, classes, depth
        self._sums = {name: np.zeros(count + 1) for name in SUMS}
        self._first, self._last = np.full(count + 1, depth), np.full(count + 1, -1)
        self._slices = np.zeros(count + 1, dtype=np.int64)

    def add(self, number: int, ids: Any, image: Any) -> None:
        """Count slice `number`: its objects (H, W), and its micrograph (H, W); NaN is no data."""
        seen = np.zeros(len(self._slices), dtype=bool)
        step = max(1, BAND_PIXELS // ids.shape[1])
        for top in range(0, ids.shape[0], step):
            band = np.asarray(ids[top : top + step])
            rows, columns = np.nonzero(band)
            found = band[rows, columns]
            values = np.asarray(image[top : top + step])[rows, columns].astype(np.float64)
            known = ~np.isnan(values)
            edge = (columns == 0) | (columns == ids.shape[1] - 1)
            edge |= (rows + top == 0) | (rows + top == ids.shape[0] - 1)
            edge |= number in (0, self._depth - 1)
            added = (1.0, columns, rows + top, number, np.where(known, values, 0.0), known, edge)
            for name, each in zip(SUMS, added, strict=True):
                weights = np.broadcast_to(np.asarray(each, dtype=np.float64), found.shape)
                self._sums[name] += np.bincount(found, weights, len(seen))
            seen[found] = True
            release_pages(image)
        self._slices += seen
        self._first[seen] = np.minimum(self._first[seen], number)
        self._last[seen] = number

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield rows by `columns`; figures in nm are empty where a side is not known."""
        for one in range(1, len(self._slices)):
            sums = {key: float(value[one]) for key, value in self._sums.items()}
            volume = None if self.voxel.volume is None else sums["voxels"] * self.voxel.volume
            yield {
                "file": name,
                "id": one,
                **({} if self.classes is None else {"class": self.classes.name(one)}),
                "volume_vx": int(sums["voxels"]),
                "volume_nm3": "" if volume is None else f"{volume:.6g}",
                "equivalent_diameter_nm": "" if volume is None else f"{ball_diameter(volume):.6g}",
                "slices": int(self._slices[one]),
                "first_slice": int(self._first[one]),
                "last_slice": int(self._last[one]),
                "centroid_x_px": f"{sums['x'] / sums['voxels']:.2f}",
                "centroid_y_px": f"{sums['y'] / sums['voxels']:.2f}",
                "centroid_slice": f"{sums['slice'] / sums['voxels']:.2f}",
                "mean_intensity": f"{sums['intensity'] / sums['known']:.6g}" if sums["known"] else "",
                "touches_border": "yes" if sums["border"] else "no",
            }

    @property
    def columns(self) -> tuple[str, ...]:
        """Headings of the table; objects without classes have no column for them."""
        return COLUMNS if self.classes is not None else tuple(name for name in COLUMNS if name != "class")

    def summary(self) -> dict[str, Any]:
        """Return number and volumes, those of objects that the volume's edge does not cut.

        Of objects with classes `classes` holds the same of each.
        """
        found: dict[str, Any] = {
            "unit": "voxels" if self.voxel.volume is None else "nm3",
            "pixel_size_nm": self.voxel.side,
            "slice_distance_nm": self.voxel.depth,
            **self._figures(np.ones(len(self._slices) - 1, dtype=bool)),
        }
        if self.classes is not None:
            of = self.classes.of[1:]
            found["classes"] = {label: self._figures(of == index) for index, label in self.classes.names.items()}
        return found

    def _figures(self, chosen: np.ndarray) -> dict[str, Any]:
        """Return number and volumes of some of the objects (N,)."""
        size = self.voxel.volume or 1.0
        voxels, cut = self._sums["voxels"][1:][chosen], self._sums["border"][1:][chosen] > 0
        whole = voxels[~cut] * size
        quartiles = [float(f"{one:.6g}") for one in np.percentile(whole, [25, 50, 75])] if len(whole) else [None] * 3
        return {
            "objects": len(voxels),
            "touching_border": int(cut.sum()),
            "total_volume": float(f"{voxels.sum() * size:.6g}"),
            "median_volume": quartiles[1],
            "quartiles": [quartiles[0], quartiles[2]],
        }

    @property
    def whole(self) -> dict[str, np.ndarray]:
        """Voxels of each object that the volume's edge does not cut, by the names of classes."""
        voxels, uncut = self._sums["voxels"][1:], self._sums["border"][1:] == 0
        if self.classes is None:
            return {"": voxels[uncut]}
        of = self.classes.of[1:]
        return {label: voxels[uncut & (of == index)] for index, label in sorted(self.classes.names.items())}

    def write(self, folder: Path, stem: str, name: str) -> dict[str, str]:
        """Write `STEM_objects.csv`, `_summary.json` and `_sizes.png`; return their names."""
        names = {"objects": f"{stem}_objects.csv", "summary": f"{stem}_summary.json", "sizes": f"{stem}_sizes.png"}

        def table(temporary: Path) -> None:
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.columns)
                writer.writeheader()
                writer.writerows(self.rows(name))

        write_atomically(folder / names["objects"], table)
        write_text(folder / names["summary"], json.dumps(self.summary(), indent=1))
        if self.voxel.volume is None:
            draw_sizes(folder / names["sizes"], self.whole, "voxels", "volume")
        else:
            diameters = {label: ball_diameter(voxels * self.voxel.volume) for label, voxels in self.whole.items()}
            draw_sizes(folder / names["sizes"], diameters, "nm", "diameter of the ball of its volume")
        return names


def ball_diameter(volume: Any) -> Any:
    """Return the diameter of the ball of a volume."""
    return (6 * volume / math.pi) ** (1 / 3)


def slices_shown(count: int) -> list[int]:
    """Return which slices of a volume its picture shows: at most nine, spread evenly."""
    return [int(place) for place in np.linspace(0, count - 1, min(count, SHOWN)).round()]


def montage(report: ImageReport, predictions: Iterator[tuple[int, Prediction]]) -> np.ndarray:
    """Return slices of a volume beside each other (H, W, 3) uint8, with legend and scale bar.

    Args:
        report: of the task; its overlay, or the result of a restoration, is shown.
        predictions: number of a slice, and what was predicted of it.
    """
    panels, shown = [], None
    for number, prediction in predictions:
        picture = Image.fromarray(report.before_and_after(prediction)[1])
        factor = _factor(max(picture.size))
        size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
        panel = picture.resize(size, Image.Resampling.BOX)
        font = ImageFont.load_default(max(10, panel.height // 16))
        ImageDraw.Draw(panel).text((4, 2), str(number), "white", font, stroke_width=2, stroke_fill="black")
        panels.append(panel)
        shown = replace(prediction, pixel_size=prediction.pixel_size and prediction.pixel_size / factor)
    assert shown is not None
    width, height = panels[0].size
    columns = min(IN_A_ROW, len(panels))
    rows = -(-len(panels) // columns)
    size = (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP)
    canvas = Image.new("RGB", size, "white")
    for place, panel in enumerate(panels):
        row, column = divmod(place, columns)
        canvas.paste(panel, (column * (width + GAP), row * (height + GAP)))
    restored: Legend = [("restored slices, with their numbers", None)]
    legend = report.legend(shown) if isinstance(report, ClassMapReport) else restored
    return captioned(np.asarray(canvas), legend, shown)


def _factor(side: int) -> float:
    """Return how much a slice is enlarged: large ones shrink, small ones grow by a whole number."""
    return SIDE / side if side > SIDE else float(max(1, SIDE // 2 // side))
