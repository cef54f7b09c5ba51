"""What is learnt of a micrograph while it is predicted: how sure it is, how familiar."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from emfm.inference.arguments import CONFIDENCE
from emfm.inference.feature_sums import FeatureSums
from emfm.inference.looks import Looks, looks_of
from emfm.inference.processes import Processes
from emfm.modeling import EMPreTrainedModel
from emfm.processing import IntensityStatistics


class Seen:
    """Takes in the blocks of a prediction, and what the trunks saw.

    Args:
        models: of the prediction.
        stated: confidence below which pixels are counted.
        watch: of which models the features are summed up; of none by default.

    Attributes:
        looks: of the micrograph as the network saw it; None before the prediction.
        counts: (2, K): pixels of each class, and how many of them are less sure than stated; of
            objects one class stands for all. Empty where the task has no confidence.
        confidence: sum over these pixels.
    """

    def __init__(self, models: Sequence[EMPreTrainedModel], stated: float = CONFIDENCE, watch: Sequence[bool] = ()):
        self.models, self.stated = tuple(models), stated
        self.sums = [FeatureSums() if asked else None for asked in watch]
        self.looks: Looks | None = None
        self.counts, self.confidence = np.zeros((2, len(models[0].classes or [0])), np.int64), 0.0

    def look(self, image: Any, statistics: IntensityStatistics) -> None:
        """Describe the micrograph (H, W), if features are summed up, too."""
        if any(sums is not None for sums in self.sums):
            self.looks = looks_of(image, self.models[0].processor, statistics)

    def add(self, confidence: np.ndarray, classes: np.ndarray) -> None:
        """Take in confidence and class indices (h, w) of a block; above K-1 there is no class."""
        known = classes < self.counts.shape[1]
        found = classes[known].astype(np.int64)
        values = confidence[known]
        size = self.counts.shape[1]
        self.counts[0] += np.bincount(found, minlength=size)
        self.counts[1] += np.bincount(found[values < self.stated], minlength=size)
        self.confidence += float(values.sum(dtype=np.float64))

    def join(self, processes: Processes) -> None:
        """Become what all processes saw together."""
        if processes.count == 1:
            return
        found = processes.gather((self.sums, self.counts, self.confidence))
        for index, sums in enumerate(self.sums):
            if sums is not None:
                sums.join([one for part in found if (one := part[0][index]) is not None])
        self.counts = np.sum([part[1] for part in found], axis=0)
        self.confidence = float(sum(part[2] for part in found))

    def sureness(self) -> dict[str, Any] | None:
        """Return the share of pixels that are less sure than stated, of all and by class.

        None where the task has no confidence.
        """
        pixels, below = self.counts
        if not pixels.sum():
            return None
        found: dict[str, Any] = {
            "stated": self.stated,
            "share_below": round(float(below.sum() / pixels.sum()), 6),
            "mean": round(self.confidence / int(pixels.sum()), 6),
        }
        names = self.models[0].classes or {}
        if names:
            shares = [None if not n else round(float(b / n), 6) for n, b in zip(pixels, below, strict=True)]
            found["classes"] = {names[index]: share for index, share in enumerate(shares)}
        return found
