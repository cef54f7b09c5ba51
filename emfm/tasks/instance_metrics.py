"""Figures of merit of objects: average precision, panoptic quality, count and sizes."""

from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import wasserstein_distance

from emfm.tasks.metrics import Figure

# Overlaps (intersection over union) from which on a found object counts as a true one.
THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
INSTANCE_FIGURES = (
    Figure("ap50", "AP at IoU 0.5"),
    Figure("ap", "AP at IoU 0.5 to 0.95"),
    Figure("pq", "panoptic quality"),
    Figure("count_error", "error of the count"),
    Figure("size_distance", "distance of the sizes (px)", ".2f"),
    Figure("size_distance_nm", "distance of the sizes (nm)", ".2f"),
)
SUMS = ("overlap", "found", "true", "count_error", "size_distance", "size_distance_nm", "measured", "in_nm")
# A found object of which less than this share lies where the truth is known does not count.
LEAST_KNOWN = 0.5


class InstanceMetrics:
    """Objects that were found and missed, summed over the images of a set.

    Average precision is the share of right ones among all that were found or missed, as StarDist
    and Cellpose count it. Panoptic quality (Kirillov et al. 2019) weighs them by their overlap.
    The error of the count is that of each image, as a share of its objects, averaged. The distance
    of the sizes is Wasserstein's, between the equivalent diameters of the two, averaged over the
    images with objects; in nm, too, if all of these have a pixel size.

    Args:
        classes: names of the objects' classes by their index. The figures of one are those of its
            objects alone; one that was found in the place of another class is none of them.

    Attributes:
        totals: `images`, and for all objects (first) and those of each class, (1 + K,): `hits`
            (1 + K, 10), right ones at each of `THRESHOLDS`; `overlap`, their IoU at 0.5; `found`,
            `true`; `count_error` and `size_distance`, summed over `measured` images, and
            `size_distance_nm` over those `in_nm`.
    """

    def __init__(self, classes: dict[int, str] | None = None):
        self.classes = classes or {}
        rows = 1 + len(self.classes)
        self.totals = {name: torch.zeros(rows, dtype=torch.float64) for name in SUMS}
        self.totals["hits"] = torch.zeros(rows, len(THRESHOLDS), dtype=torch.float64)
        self.totals["images"] = torch.zeros((), dtype=torch.float64)

    def add(self, output: np.ndarray, truth: np.ndarray, pixel_size: float | None = None) -> None:
        """Count one image.

        Args:
            output: numbers of objects (H, W), or these and their classes (2, H, W).
            truth: the same; pixels of negative numbers, and objects of negative classes among those
                of one, take no part.
            pixel_size: nm per pixel, None where it is not known.
        """
        self.totals["images"] += 1
        found, *found_classes = output if output.ndim == 3 else output[None]
        true, *true_classes = truth if truth.ndim == 3 else truth[None]
        self._count(0, found, true, pixel_size)
        if not true_classes:
            return
        kinds = found_classes[0] if found_classes else np.full(found.shape, -1)
        unknown = (true > 0) & (true_classes[0] < 0)
        for row, index in enumerate(self.classes, start=1):
            mine = np.where(true_classes[0] == index, true, np.where(true < 0, true, 0))
            mine[unknown] = -1
            self._count(row, np.where(kinds == index, found, 0), mine, pixel_size)

    def _count(self, row: int, output: np.ndarray, truth: np.ndarray, pixel_size: float | None) -> None:
        """Count the objects (H, W) of an image in a row of the totals."""
        known = truth >= 0
        found_ids, found = np.unique(_where_known(output, known), return_inverse=True)
        true_ids, true = np.unique(np.where(known, truth, 0), return_inverse=True)
        found, true = found.reshape(output.shape), true.reshape(output.shape)
        overlaps, areas = _overlaps(found, true, len(found_ids), len(true_ids))
        keep_found, keep_true = found_ids > 0, true_ids > 0
        overlaps = overlaps[keep_found][:, keep_true]
        sizes = [2 * np.sqrt(area[keep] / np.pi) for area, keep in zip(areas, (keep_found, keep_true), strict=True)]
        self._add(row, found=len(sizes[0]), true=len(sizes[1]))
        for index, threshold in enumerate(THRESHOLDS):
            matched = _matched(overlaps, threshold)
            self.totals["hits"][row, index] += len(matched)
            if index == 0:
                self._add(row, overlap=float(matched.sum()))
        if len(sizes[1]):
            error = abs(len(sizes[0]) - len(sizes[1])) / len(sizes[1])
            distance = wasserstein_distance(sizes[0] if len(sizes[0]) else np.zeros(1), sizes[1])
            self._add(row, measured=1, count_error=error, size_distance=distance)
            if pixel_size is not None:
                self._add(row, in_nm=1, size_distance_nm=distance * pixel_size)

    def _add(self, row: int, **values: float) -> None:
        for name, value in values.items():
            self.totals[name][row] += value

    def result(self) -> dict[str, Any]:
        """Return the figures by name, `per_class` where there are some, and `n` images.

        A figure that does not exist is None, such as those of a class without an object.
        """
        per_class = {label: self._figures(row) for row, label in enumerate(self.classes.values(), start=1)}
        return {
            **self._figures(0),
            **({"per_class": per_class} if per_class else {}),
            "n": int(self.totals["images"]),
        }

    def _figures(self, row: int) -> dict[str, float | None]:
        sums = {name: float(self.totals[name][row]) for name in SUMS}
        if not sums["true"]:
            return dict.fromkeys(figure.name for figure in INSTANCE_FIGURES)
        either = sums["found"] + sums["true"]
        precision = [float(hits) / (either - float(hits)) for hits in self.totals["hits"][row]]
        measured, in_nm = sums["measured"], sums["in_nm"]
        return {
            "ap50": precision[0],
            "ap": float(np.mean(precision)),
            "pq": 2 * sums["overlap"] / either,
            "count_error": sums["count_error"] / measured,
            "size_distance": sums["size_distance"] / measured,
            "size_distance_nm": sums["size_distance_nm"] / measured if in_nm == measured else None,
        }


def _where_known(output: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the found objects (H, W) where the truth is known, without those mostly elsewhere."""
    if known.all():
        return output
    ids, inverse = np.unique(output, return_inverse=True)
    inverse = inverse.reshape(output.shape)
    shares = np.bincount(inverse.ravel(), known.ravel(), len(ids)) / np.bincount(inverse.ravel(), minlength=len(ids))
    return np.where(known & (shares >= LEAST_KNOWN)[inverse], output, 0)


def _overlaps(
    found: np.ndarray, true: np.ndarray, count_found: int, count_true: int
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Return the intersection over union of every pair (F, T), and the areas of both."""
    pairs = np.bincount((found * count_true + true).ravel(), minlength=count_found * count_true)
    shared = pairs.reshape(count_found, count_true).astype(np.float64)
    area_found, area_true = shared.sum(axis=1), shared.sum(axis=0)
    union = area_found[:, None] + area_true[None] - shared
    return shared / np.maximum(union, 1.0), (area_found, area_true)


def _matched(overlaps: np.ndarray, threshold: float) -> np.ndarray:
    """Return the overlaps of the pairs that match, each object in one pair at most."""
    rows, columns = np.nonzero(overlaps >= threshold)
    if len(np.unique(rows)) == len(rows) and len(np.unique(columns)) == len(columns):
        return overlaps[rows, columns]
    # of exactly one half two objects may match the same one
    chosen = linear_sum_assignment(-np.where(overlaps >= threshold, overlaps, 0.0))
    values = overlaps[chosen]
    return values[values >= threshold]
