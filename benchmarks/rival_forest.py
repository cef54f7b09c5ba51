"""A random forest on multi-scale features of pixels, as ilastik, Labkit and Trainable Segmentation have it."""

import math
import time
from typing import Any

import numpy as np

from emfm.data.examples import IGNORED, LabelledMicrographs
from emfm.errors import EMError
from emfm.processing import EMImageProcessor

TREES = 100
# Standard deviations of the Gaussians, in pixels, smallest and largest; each is twice the one before.
SIGMAS = (1.0, 16.0)
# Labelled pixels that are learnt from with an equal effort, and at most.
USUAL_PIXELS, MOST_PIXELS = 100_000, 500_000
# So many are learnt from first, to see how many fit into some seconds.
TIMED_PIXELS = 5_000
AT_ONCE = 200_000  # pixels that are classified at a time


def pixel_features(values: np.ndarray) -> np.ndarray:
    """Return intensity, edges and texture of an image (H, W) at each scale: (H, W, 20), float32."""
    from skimage.feature import multiscale_basic_features

    found = multiscale_basic_features(values, sigma_min=SIGMAS[0], sigma_max=SIGMAS[1])
    return found.astype(np.float32)


class Forest:
    """Learns classes of pixels.

    Args:
        leaf: fewest pixels in a leaf of a tree.
        seed: decides pixels and trees.
    """

    def __init__(self, leaf: int, seed: int):
        self._leaf, self._seed = leaf, seed
        self._processor = EMImageProcessor()
        self._trees: Any = None
        self.pixels = 0

    def fit(self, data: LabelledMicrographs, pixels: int | None, seconds: float | None = None) -> None:
        """Learn from so many pixels of some micrographs, or from as many as fit into some seconds of one core.

        Raises:
            EMError: scikit-learn is missing.
        """
        began = time.process_time()
        owners, places, classes = _draw(data.masks, MOST_PIXELS if pixels is None else pixels, self._seed)
        parts = []
        for index, image in enumerate(data.images):  # one at a time: features take 80 bytes a pixel
            features = pixel_features(self._values(image))
            parts.append(features.reshape(-1, features.shape[-1])[places[owners == index]])
        chosen = np.empty((len(classes), parts[0].shape[-1]), np.float32)
        for index, part in enumerate(parts):
            chosen[owners == index] = part
        if seconds is not None:
            started = time.process_time()
            self._grow(chosen[:TIMED_PIXELS], classes[:TIMED_PIXELS])
            effort = time.process_time() - started
            count = _fitting(seconds - (time.process_time() - began), effort, len(chosen))
            chosen, classes = chosen[:count], classes[:count]
        self._grow(chosen, classes)
        self.pixels = len(chosen)

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Return the class of each pixel of a micrograph (H, W)."""
        features = pixel_features(self._values(image))
        pixels = features.reshape(-1, features.shape[-1])
        parts = [pixels[start : start + AT_ONCE] for start in range(0, len(pixels), AT_ONCE)]
        return np.concatenate([self._trees.predict(part) for part in parts]).reshape(image.shape)

    def _values(self, image: np.ndarray) -> np.ndarray:
        return self._processor.normalize(image, self._processor.statistics(image))

    def _grow(self, features: np.ndarray, classes: np.ndarray) -> None:
        try:
            from sklearn.ensemble import RandomForestClassifier
        except ImportError as error:
            raise EMError(f"scikit-learn is missing ({error}): pip install 'emfm[benchmarks]'") from error
        settings = {"n_estimators": TREES, "min_samples_leaf": self._leaf, "random_state": self._seed, "n_jobs": 1}
        self._trees = RandomForestClassifier(**settings).fit(features, classes)


def _draw(masks: list[np.ndarray], count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw pixels as crops are drawn: half anywhere, half of a class at random; each once, in a random order.

    Returns:
        Index of the micrograph, position in it, and class, of each of up to `count` pixels.
    """
    rng = np.random.default_rng(seed)
    known = [np.flatnonzero(mask.ravel() != IGNORED) for mask in masks]
    classes = np.concatenate([mask.ravel()[places] for mask, places in zip(masks, known, strict=True)])
    counts = np.bincount(classes)
    shares = 0.5 / len(classes) + 0.5 / np.count_nonzero(counts) / counts[classes]
    # the smallest of these are a draw without replacement, by the shares
    keys = rng.standard_exponential(len(classes), dtype=np.float32) / shares
    count = min(count, len(classes))
    order = rng.permutation(np.argpartition(keys, count - 1)[:count])
    owners = np.repeat(np.arange(len(masks)), [len(places) for places in known])
    return owners[order], np.concatenate(known)[order], classes[order]


def _fitting(seconds: float, effort: float, most: int) -> int:
    """Return how many pixels can be learnt from in some seconds, if `TIMED_PIXELS` take `effort`: as n log n."""
    if most <= TIMED_PIXELS:
        return most
    count, unit = TIMED_PIXELS, effort / (TIMED_PIXELS * math.log(TIMED_PIXELS))
    while count < most and unit * 1.05 * count * math.log(1.05 * count) <= seconds:
        count = int(1.05 * count)
    return min(count, most)
