"""Figures of merit: Dice and IoU from summed counts, L1 and PSNR with a stated data range."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

BACKGROUND = "background"


@dataclass
class SegmentationCounts:
    """Counts of (true class, predicted class) over all pixels of a set; every figure follows from them.

    Summing before dividing weighs each pixel alike, so an image in which a rare class is absent does not decide.

    Args:
        id2label: class index: class name. The means leave out a class named "background".
    """

    id2label: dict[int, str]
    counts: Tensor = field(init=False)
    images: int = field(init=False, default=0)

    def __post_init__(self):
        self.counts = torch.zeros(len(self.id2label), len(self.id2label), dtype=torch.int64)

    def add(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Count one image.

        Args:
            predicted: (H, W) class indices.
            truth: (H, W) class indices; negative values take no part.
        """
        self.images += 1
        self.counts += multiclass_confusion_matrix(
            torch.from_numpy(np.ascontiguousarray(predicted, dtype=np.int64)),
            torch.from_numpy(np.ascontiguousarray(np.where(truth < 0, -1, truth), dtype=np.int64)),
            num_classes=len(self.id2label),
            ignore_index=-1,
        )

    def result(self) -> dict[str, Any]:
        """Return `dice` and `iou` (means over the classes but background), `per_class`, and `n`, the images.

        A class with no pixel in truth or prediction has no figure (None) and takes no part in the mean.
        """
        hits = self.counts.diagonal().double()
        true, predicted = self.counts.sum(dim=1).double(), self.counts.sum(dim=0).double()
        per_class: dict[str, dict[str, float | None]] = {}
        for index, label in self.id2label.items():
            total = float(true[index] + predicted[index])
            hit = float(hits[index])
            known = total > 0
            per_class[label] = {
                "dice": 2 * hit / total if known else None,
                "iou": hit / (total - hit) if known else None,
            }
        return {
            "dice": _mean_over_foreground(per_class, "dice"),
            "iou": _mean_over_foreground(per_class, "iou"),
            "per_class": per_class,
            "n": self.images,
        }


def _mean_over_foreground(per_class: dict[str, dict[str, float | None]], figure: str) -> float:
    foreground = [value[figure] for label, value in per_class.items() if label.lower() != BACKGROUND]
    values = [value for value in foreground if value is not None]
    return float(np.mean(values)) if values else 0.0


def l1(output: Tensor, target: Tensor) -> float:
    """Return the mean absolute difference, in the tensors' units."""
    return float((output.double() - target.double()).abs().mean())


def psnr(output: Tensor, target: Tensor, data_range: float = 2.0) -> float:
    """Return the peak signal-to-noise ratio in dB.

    Args:
        output: any shape.
        target: of the same shape.
        data_range: the distance that counts as the peak; 2 for network values, whose percentiles lie at -1 and +1.
    """
    error = float((output.double() - target.double()).square().mean())
    return float(10 * np.log10(data_range**2 / max(error, 1e-20)))
