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
)


class InstanceMetrics:
    """Objects that were found and missed, summed over the images of a set.

    Average precision is the share of right ones among all that were found or missed, as StarDist
    and Cellpose count it. Panoptic quality (Kirillov et al. 2019) weighs them by their overlap.
    The error of the count is that of each image, as a share of its objects, averaged. The distance
    of the sizes is Wasserstein's, between the equivalent diameters of the two, in pixels, averaged
    over the images with objects.

    Attributes:
        totals: `hits` (10): right ones at each of `THRESHOLDS`; `overlap`, their IoU at 0.5;
            `found`, `true`; `images`; `count_error` and `size_distance`, summed over `measured`.
    """

    def __init__(self):
        names = ("overlap", "found", "true", "images", "count_error", "size_distance", "measured")
        self.totals = {name: torch.zeros((), dtype=torch.float64) for name in names}
        self.totals["hits"] = torch.zeros(len(THRESHOLDS), dtype=torch.float64)

    def add(self, output: np.ndarray, truth: np.ndarray) -> None:
        """Count one image from numbers of objects (H, W); pixels of negative truth take no part."""
        known = truth >= 0
        found_ids, found = np.unique(np.where(known, output, 0), return_inverse=True)
        true_ids, true = np.unique(np.where(known, truth, 0), return_inverse=True)
        found, true = found.reshape(output.shape), true.reshape(output.shape)
        overlaps, areas = _overlaps(found, true, len(found_ids), len(true_ids))
        keep_found, keep_true = found_ids > 0, true_ids > 0
        overlaps = overlaps[keep_found][:, keep_true]
        sizes = [2 * np.sqrt(area[keep] / np.pi) for area, keep in zip(areas, (keep_found, keep_true), strict=True)]
        self.totals["images"] += 1
        self.totals["found"] += len(sizes[0])
        self.totals["true"] += len(sizes[1])
        for index, threshold in enumerate(THRESHOLDS):
            matched = _matched(overlaps, threshold)
            self.totals["hits"][index] += len(matched)
            if index == 0:
                self.totals["overlap"] += float(matched.sum())
        if len(sizes[1]):
            self.totals["measured"] += 1
            self.totals["count_error"] += abs(int(keep_found.sum()) - len(sizes[1])) / len(sizes[1])
            sizes = [sizes[0] if len(sizes[0]) else np.zeros(1), sizes[1]]
            self.totals["size_distance"] += wasserstein_distance(*sizes)

    def result(self) -> dict[str, Any]:
        """Return the figures by name, and `n` images; None where no image holds an object."""
        found, true = float(self.totals["found"]), float(self.totals["true"])
        measured = float(self.totals["measured"])
        if not true:
            return {**dict.fromkeys(figure.name for figure in INSTANCE_FIGURES), "n": int(self.totals["images"])}
        precision = [float(hits) / (found + true - float(hits)) for hits in self.totals["hits"]]
        return {
            "ap50": precision[0],
            "ap": float(np.mean(precision)),
            "pq": 2 * float(self.totals["overlap"]) / (found + true),
            "count_error": float(self.totals["count_error"]) / measured,
            "size_distance": float(self.totals["size_distance"]) / measured,
            "n": int(self.totals["images"]),
        }


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
