"""A random forest on multi-scale features of pixels, as ilastik, Labkit and others train it.

What one would use without a network. scikit-learn grows it: a weaker one of our own would make the
networks look better than they are.
"""

import numpy as np
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier

from emfm.data.examples import IGNORED, LabelledMicrographs
from emfm.processing import EMImageProcessor

TREES, SMALLEST_LEAF = 100, 5
# Standard deviations of the Gaussians in pixels, smallest and largest; each doubles the one before.
SIGMAS = (1.0, 16.0)
PIXELS = 60_000  # labelled ones that are learnt from


class Forest:
    """Learns the classes of pixels from labelled micrographs; `seed` decides pixels and trees."""

    def __init__(self, data: LabelledMicrographs, seed: int):
        rng = np.random.default_rng(seed)
        features, classes = [], []
        for image, mask in zip(data.images, data.masks, strict=True):
            drawn = _drawn(rng, mask.ravel(), PIXELS // len(data))
            features.append(_features(image)[drawn])
            classes.append(mask.ravel()[drawn])
        trees = RandomForestClassifier(TREES, min_samples_leaf=SMALLEST_LEAF, random_state=seed, n_jobs=-1)
        self._trees = trees.fit(np.concatenate(features), np.concatenate(classes))

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Return the class map (H, W) of a micrograph."""
        return self._trees.predict(_features(image)).reshape(image.shape)


def _drawn(rng: np.random.Generator, classes: np.ndarray, count: int) -> np.ndarray:
    """Return places of labelled pixels: half of them anywhere, half of a class drawn at random.

    So are the crops placed that the networks learn from.
    """
    known = np.flatnonzero(classes != IGNORED)
    _, index, sizes = np.unique(classes[known], return_inverse=True, return_counts=True)
    shares = 0.5 / len(known) + 0.5 / len(sizes) / sizes[index]
    return rng.choice(known, min(len(known), count), replace=False, p=shares / shares.sum())


def _features(image: np.ndarray) -> np.ndarray:
    """Return intensity, edges and texture around each pixel at each scale, (H * W, features)."""
    processor = EMImageProcessor()
    values = processor.normalize(image, processor.statistics(image))
    found = multiscale_basic_features(values, sigma_min=SIGMAS[0], sigma_max=SIGMAS[1])
    return found.reshape(values.size, -1).astype(np.float32)
