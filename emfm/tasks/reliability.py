"""Whether probabilities are what they say: 90 % sure should be right in 90 % of pixels."""

import numpy as np

BINS = 15  # of equal width, as in Guo et al. 2017 (arXiv:1706.04599)


class Reliability:
    """Sums over pixels by their confidence, the probability of the class that was chosen.

    Attributes:
        sums: (BINS, 3): pixels, sum of their confidences, pixels whose class is right.
    """

    def __init__(self):
        self.sums = np.zeros((BINS, 3))

    def add(self, probabilities: np.ndarray, truth: np.ndarray) -> None:
        """Count the pixels of a block from probabilities (K, H, W) and class indices (H, W).

        Pixels of negative truth take no part.
        """
        known = truth >= 0
        confidence = probabilities.max(axis=0)[known].astype(np.float64)
        right = (probabilities.argmax(axis=0) == truth)[known]
        bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        for column, weights in enumerate((None, confidence, right)):
            self.sums[:, column] += np.bincount(bins, weights, BINS)

    @property
    def error(self) -> float | None:
        """The expected calibration error: how far confidence and accuracy are apart, on average.

        0 is perfect. None where no pixel has a truth.
        """
        pixels, confidence, right = self.sums.T
        total = pixels.sum()
        return float(np.abs(confidence - right).sum() / total) if total else None
