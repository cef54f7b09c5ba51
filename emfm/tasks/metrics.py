"""Figures of merit: Dice, IoU and boundary F1 from summed counts; L1, PSNR and SSIM of images."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.functional.regression import mean_absolute_error

from emfm.class_names import is_background
from emfm.errors import EMError
from emfm.processing import EMImageProcessor

# Two boundaries this many pixels apart, along rows, columns or diagonals, still count as the same.
BOUNDARY_TOLERANCE = 2
DATA_RANGE = "the distance between the target's 1st and 99th percentile is 1"
SMALLEST_SSIM = 11
# Of equal images, in dB, so that means stay finite.
HIGHEST_PSNR = 200.0


@dataclass(frozen=True)
class Figure:
    """A figure of merit."""

    name: str  # its key in results
    heading: str  # its name for people
    form: str = ".4f"  # how it is written


def exists(value: float | None) -> bool:
    """Return whether a figure exists: it is there, and finite."""
    return value is not None and math.isfinite(value)


def is_constant(target: np.ndarray) -> bool:
    """Return whether an image holds one value alone, so that nothing can be measured on it."""
    return bool(np.isnan(target).all() or np.nanmin(target) == np.nanmax(target))


class Metrics(Protocol):
    """Sums over the micrographs of an evaluation."""

    totals: dict[str, Tensor]  # those of several processes may be added up

    def add(self, output: np.ndarray, truth: np.ndarray) -> None:
        """Measure one image (H, W)."""

    def result(self) -> dict[str, Any]:
        """Return the figures, and the number of images as `n`."""


SEGMENTATION_FIGURES = (Figure("dice", "Dice"), Figure("iou", "IoU"), Figure("boundary_f1", "boundary F1 (2 px)"))
RESTORATION_FIGURES = (Figure("l1", "L1"), Figure("psnr", "PSNR (dB)", ".2f"), Figure("ssim", "SSIM"))


class SegmentationMetrics:
    """Counts over all pixels of a set; every figure follows from them.

    Each pixel weighs alike, so an image in which a rare class is absent does not decide.

    Args:
        id2label: class index: class name. The means leave out a class named "background".

    Attributes:
        totals: `counts` (K, K) of (true class, predicted class); `images`; and `boundaries` (K, 4):
            predicted pixels near a true boundary, all predicted, true near a predicted, all true.
    """

    def __init__(self, id2label: dict[int, str]):
        self.id2label, classes = id2label, len(id2label)
        shapes = {"counts": (classes, classes), "boundaries": (classes, 4), "images": ()}
        self.totals = {name: torch.zeros(shape, dtype=torch.int64) for name, shape in shapes.items()}

    def add(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Count one image from class indices (H, W); pixels of negative truth take no part."""
        found = torch.from_numpy(np.ascontiguousarray(predicted, dtype=np.int64))
        wanted = torch.from_numpy(np.ascontiguousarray(np.where(truth < 0, -1, truth), dtype=np.int64))
        self.totals["images"] += 1
        answered = torch.where(wanted < 0, 0, found)  # where there is no truth, there may be no answer
        self.totals["counts"] += multiclass_confusion_matrix(answered, wanted, len(self.id2label), ignore_index=-1)
        known = wanted >= 0
        for index in self.id2label:
            edges = [_boundary(classes == index) & known for classes in (found, wanted)]
            near = [_widened(edge) for edge in edges]
            counted = (edges[0] & near[1], edges[0], edges[1] & near[0], edges[1])
            self.totals["boundaries"][index] += torch.stack([pixels.sum() for pixels in counted])

    def result(self) -> dict[str, Any]:
        """Return `dice`, `iou`, `boundary_f1`, all without background; `per_class`; `n` images.

        A figure that does not exist is None: that of a class without a pixel (a boundary) in the
        truth, whatever was predicted, and a mean over no figure. It takes no part in a mean.
        """
        per_class = {label: self._of_class(index) for index, label in self.id2label.items()}
        means = {}
        for shown in SEGMENTATION_FIGURES:
            foreground = [per_class[label][shown.name] for label in per_class if not is_background(label)]
            values = [value for value in foreground if value is not None]
            means[shown.name] = float(np.mean(values)) if values else None
        return {**means, "per_class": per_class, "n": int(self.totals["images"])}

    def majority(self) -> dict[str, Any]:
        """Return the same figures for the best answer without a network: one class everywhere."""
        true = self.totals["counts"].sum(dim=1)
        answers = []
        for index in self.id2label:
            constant = SegmentationMetrics(self.id2label)
            constant.totals["counts"][:, index] = true
            constant.totals["images"] += self.totals["images"]
            constant.totals["boundaries"][:, 2:] = self.totals["boundaries"][:, 2:] * torch.tensor([0, 1])
            answers.append(constant.result())
        return max(answers, key=lambda answer: -1.0 if answer["dice"] is None else answer["dice"])

    def _of_class(self, index: int) -> dict[str, float | None]:
        counts = self.totals["counts"]
        hit, true = float(counts[index, index]), float(counts[index].sum())
        total = true + float(counts[:, index].sum())
        close, found, reached, wanted = (float(number) for number in self.totals["boundaries"][index])
        precision, recall = close / max(found, 1.0), reached / max(wanted, 1.0)
        mean = 2 * precision * recall / max(precision + recall, 1e-12)
        return {
            "dice": 2 * hit / total if true else None,
            "iou": hit / (total - hit) if true else None,
            "boundary_f1": mean if wanted else None,
        }


def _boundary(region: Tensor) -> Tensor:
    """Return a region's pixels (H, W) with a neighbour outside; the image's border is none."""
    outside = (~region).float()[None, None]
    return region & (F.max_pool2d(outside, 3, stride=1, padding=1)[0, 0] > 0)


def _widened(edge: Tensor) -> Tensor:
    side = 2 * BOUNDARY_TOLERANCE + 1
    return F.max_pool2d(edge.float()[None, None], side, stride=1, padding=BOUNDARY_TOLERANCE)[0, 0] > 0


class RestorationMetrics:
    """L1, PSNR and SSIM, each the mean over the images of a set.

    Each image is measured in units of its target's contrast, so any bit depths can be averaged: the
    target's 1st and 99th percentile are 1 apart. That is also the data range of PSNR and SSIM.

    A constant target has no contrast, so no unit: it is counted, and takes no part in the means.

    Attributes:
        totals: `l1`, `psnr`, `ssim`, summed over the `measured` images; the number of all `images`.
    """

    def __init__(self):
        names = ("l1", "psnr", "ssim", "measured", "images")
        self.totals = {name: torch.zeros((), dtype=torch.float64) for name in names}

    def add(self, output: np.ndarray, target: np.ndarray) -> None:
        """Measure one image (H, W) in the target's units.

        Raises:
            EMError: the sizes differ, or are too small for SSIM.
        """
        if output.shape != target.shape or min(target.shape) < SMALLEST_SSIM:
            raise EMError(
                f"an output of {output.shape} and a target of {target.shape} pixels: expected the "
                f"same size, at least {SMALLEST_SSIM} a side"
            )
        self.totals["images"] += 1
        known = np.isfinite(target)  # NaN is no data
        if is_constant(target):
            return
        statistics = EMImageProcessor().statistics(target)
        found, wanted = (
            torch.from_numpy((np.asarray(image, dtype=np.float64) - statistics.offset) / (2 * statistics.scale))
            for image in (output, target)
        )
        valid = torch.from_numpy(known)
        found, wanted = (torch.where(valid, image, 0.0) for image in (found, wanted))
        pair = found.float()[None, None], wanted.float()[None, None]
        self.totals["measured"] += 1
        self.totals["l1"] += l1(found[valid], wanted[valid])
        self.totals["psnr"] += psnr(found[valid], wanted[valid], 1.0)
        self.totals["ssim"] += _similarity(*pair, valid)

    def result(self) -> dict[str, Any]:
        """Return `l1`, `psnr` (dB), `ssim`, the `data_range` in words, and `n`, the images.

        A mean that does not exist is None: over no image, or over one whose output is not finite.
        """
        measured = float(self.totals["measured"])
        means = {name: float(self.totals[name]) / max(measured, 1.0) for name in ("l1", "psnr", "ssim")}
        known = {name: mean if measured and exists(mean) else None for name, mean in means.items()}
        return {**known, "data_range": DATA_RANGE, "n": int(self.totals["images"])}


def _similarity(found: Tensor, wanted: Tensor, valid: Tensor) -> Tensor:
    """Return the mean SSIM, with a data range of 1, over the valid pixels (H, W)."""
    if valid.all():
        similarity = structural_similarity_index_measure(found, wanted, data_range=1.0)
        assert isinstance(similarity, Tensor)
        return similarity
    _, each = structural_similarity_index_measure(found, wanted, data_range=1.0, return_full_image=True)
    return each[0, 0][valid].mean()


def l1(output: Tensor, target: Tensor) -> float:
    """Return the mean absolute difference, in the tensors' units."""
    return float(mean_absolute_error(output.double().contiguous(), target.double().contiguous()))


def psnr(output: Tensor, target: Tensor, data_range: float = 2.0) -> float:
    """Return the peak signal-to-noise ratio in dB of two tensors of one shape.

    The peak is `data_range`: 2 for network values, whose percentiles lie at -1 and +1.
    """
    ratio = float(peak_signal_noise_ratio(output.double(), target.double(), data_range=data_range))
    return min(ratio, HIGHEST_PSNR)
