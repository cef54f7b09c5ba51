"""Segmentation from a few painted strokes, in seconds: a head on features that are kept."""

from threading import RLock
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from emfm.data.examples import IGNORED
from emfm.defaults import DEFAULT_FOR_STROKES
from emfm.errors import EMError
from emfm.finetuning.head import fit_last_layer
from emfm.finetuning.kept_features import KEPT_BYTES, Box, KeptFeatures
from emfm.finetuning.start import pretrained_start, with_new_head
from emfm.processing import IntensityStatistics
from emfm.tasks.losses import entropy
from emfm.tasks.segmentation import CLASS_WEIGHTS, EMForSemanticSegmentation

# Features of coarser strides than 8 tell the few painted places apart, not the classes. With 0.3 %
# of an image labelled, Dice on unseen images of six sets was .66 without them, .50 with all.
FINE_SCALES = 4
DECAY = 1.0
MOST_PIXELS = 20_000  # of each class teach the head: more say the same
ROOM = 32  # pixels around a place, over which doubt is averaged before one is suggested


class StrokeSegmenter:
    """Learns classes from partly labelled micrographs, and segments them whole.

    The trunk stays as it is. Its features of all scales are kept, so only the first look at a
    micrograph takes seconds; fitting the head to further strokes takes a fraction of one.

    Args:
        model: zoo name, folder or Hub id, or a loaded model. A head for other classes is replaced.
        classes: their names, two or more; the index of each is its label.
        ignore: label of pixels that nobody labelled, beside the negative ones.
        keep_bytes: of features that are kept; those of the longest unused tiles make room.

    Attributes:
        model: with the fitted head; an `EMForSemanticSegmentation` like any other.

    Raises:
        EMError: the model does not load, or there are not two classes with names of their own.
    """

    def __init__(
        self,
        model: str | EMForSemanticSegmentation = DEFAULT_FOR_STROKES,
        classes: list[str] | None = None,
        ignore: int = 255,
        keep_bytes: int = KEPT_BYTES,
    ):
        names = ["background", "foreground"] if classes is None else list(classes)
        if len(names) < 2 or len(set(names)) < len(names) or not all(names):
            raise EMError(f"classes are {names}; expected two or more names, each once")
        if not len(names) <= ignore < 256:
            raise EMError(f"ignore is {ignore}; expected a number from {len(names)}, the classes, to 255")
        fields = {"id2label": dict(enumerate(names)), "all_scales": True, "residual": False}
        self.model = _start(model, fields)
        self.model.eval()
        self._ignore, self._lock = ignore, RLock()
        self._features = KeptFeatures(self.model, keep_bytes)
        self._learnt: dict[str, tuple[np.ndarray, Tensor, Tensor]] = {}

    @property
    def classes(self) -> list[str]:
        """Names of the classes; the index of each is its label."""
        return list(self.model.classes.values())

    @property
    def fitted(self) -> bool:
        """Whether the head knows the classes."""
        return not self.model.new_head

    def look(self, name: str, image: Any, statistics: IntensityStatistics | None = None) -> None:
        """Name a micrograph (H, W); its features are computed when they are first needed.

        Args:
            name: by which it is called from now on.
            image: an array, or anything with `shape`, `dtype` and `image[rows, columns]`.
            statistics: of the whole, where the image is a part of a larger micrograph.
        """
        with self._lock:
            if self._features.add(name, image, statistics):
                self._learnt.pop(name, None)

    def fit(self, micrographs: dict[str, Any], labels: dict[str, np.ndarray]) -> None:
        """Fit the head to all labelled pixels.

        Args:
            micrographs: arrays (H, W) by name; those that `look` was told of may be left out.
            labels: class indices (H, W) by name, negative or `ignore` where unlabelled. Names of
                earlier fits that are left out are forgotten.

        Raises:
            EMError: sizes differ, a label is no class, or fewer than two classes have pixels.
        """
        with self._lock:
            for name, image in micrographs.items():
                self.look(name, image)
            self._learnt = {name: self._features_of(name, labels[name]) for name in labels}
            features = [found[1] for found in self._learnt.values()]
            truths = [found[2] for found in self._learnt.values()]
            truth = torch.cat(truths) if truths else torch.empty(0, dtype=torch.int64)
            counts = torch.bincount(truth, minlength=len(self.classes))
            if (counts > 0).sum() < 2:
                painted = [label for label, count in zip(self.classes, counts, strict=True) if count]
                raise EMError(f"labelled are {' and '.join(painted) or 'no pixels'}: paint two classes or more")
            self.model.config.class_weights = _weights(counts)
            known = torch.cat(features)
            known[:, sum(self.model.trunk.channels[:FINE_SCALES]) :] = 0
            fit_last_layer(self.model, known, torch.zeros(len(truth)), truth, DECAY)
            self.model.new_head = False

    def segment(self, micrograph: str | np.ndarray, box: Box | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Classify every pixel of a micrograph, or of a box (top, left, bottom, right) in it.

        Args:
            micrograph: a name, or an array (H, W) of which nothing is kept.
            box: rows and columns that are wanted; by default all.

        Returns:
            Class indices (h, w) uint8, and the probability of each class (K, h, w) float32.

        Raises:
            EMError: the head is not fitted, or nothing goes by this name.
        """
        with self._lock:
            if not self.fitted:
                raise EMError("nothing is learnt yet: paint two classes and call fit")
            kept, name = self._kept(micrograph)
            height, width = kept.source(name).image.shape
            top, left, bottom, right = _within(box, (height, width))
            probability = np.empty((len(self.classes), bottom - top, right - left), dtype=np.float32)
            for tile in kept.source(name).tiles((top, left, bottom, right)):
                found = self._probability(kept, name, tile)
                row, column = max(top, tile[0]), max(left, tile[1])
                last_row, last_column = min(bottom, tile[2]), min(right, tile[3])
                part = found[:, row - tile[0] : last_row - tile[0], column - tile[1] : last_column - tile[1]]
                probability[:, row - top : last_row - top, column - left : last_column - left] = part
            return probability.argmax(axis=0).astype(np.uint8), probability

    def unsure(self, micrograph: str | np.ndarray, box: Box | None = None) -> np.ndarray:
        """Return how unsure the head is (h, w) float32: 0 where sure, 1 where classes are alike."""
        return self.doubt_of(self.segment(micrograph, box)[1])

    @staticmethod
    def doubt_of(probability: np.ndarray) -> np.ndarray:
        """Return `unsure` (h, w) of what `segment` returned (K, h, w)."""
        return entropy(torch.from_numpy(probability)[None])[0].numpy()

    def suggest(self, name: str, box: Box | None = None) -> tuple[int, int]:
        """Return row and column of the place that is worth labelling next.

        It is where the head is unsure over the widest surroundings that hold no label yet.
        """
        with self._lock:
            doubt = self.unsure(name, box)
            top, left, bottom, right = _within(box, self._features.source(name).image.shape)
            if name in self._learnt:
                labelled = self._learnt[name][0][top:bottom, left:right] >= 0
                if labelled.any():
                    distance = ndimage.distance_transform_edt(~labelled)
                    doubt = doubt * np.minimum(distance / ROOM, 1)
            wide = ndimage.gaussian_filter(doubt, ROOM / 2, mode="constant")
            row, column = np.unravel_index(int(wide.argmax()), wide.shape)
            return int(row) + top, int(column) + left

    def _kept(self, micrograph: str | np.ndarray) -> tuple[KeptFeatures, str]:
        if isinstance(micrograph, str):
            if micrograph not in self._features:
                raise EMError(f"no micrograph is called '{micrograph}': give it to look or fit first")
            return self._features, micrograph
        once = KeptFeatures(self.model, most=0)
        once.add("", micrograph)
        return once, ""

    def _features_of(self, name: str, labels: np.ndarray) -> tuple[np.ndarray, Tensor, Tensor]:
        """Return the labels (H, W), features (N, C) and classes (N) of labelled pixels."""
        if name not in self._features:
            raise EMError(f"there are labels of '{name}', and no micrograph of that name")
        labels = self._checked(name, labels)
        if name in self._learnt and np.array_equal(self._learnt[name][0], labels):
            return self._learnt[name]
        rows, columns = _sample(labels, len(self.classes))
        features, truth = [], []
        for tile in self._features.source(name).tiles():
            top, left, bottom, right = tile
            inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
            if inside.any():
                features.append(self._features.tile(name, tile).at(rows[inside], columns[inside]))
                truth.append(torch.from_numpy(labels[rows[inside], columns[inside]].astype(np.int64)))
        if not features:
            return labels, torch.empty(0, sum(self.model.trunk.channels)), torch.empty(0, dtype=torch.int64)
        return labels, torch.cat(features), torch.cat(truth)

    def _checked(self, name: str, labels: np.ndarray) -> np.ndarray:
        """Return labels as int16, `IGNORED` where there are none."""
        shape = tuple(self._features.source(name).image.shape)
        if labels.shape != shape or labels.dtype.kind not in "biu":
            raise EMError(f"labels of '{name}' are {labels.dtype} {labels.shape}; expected integers {shape}")
        labels = np.where((labels < 0) | (labels == self._ignore), IGNORED, labels).astype(np.int16)
        if labels.max(initial=-1) >= len(self.classes):
            raise EMError(f"a label of '{name}' is {labels.max()}; expected 0 to {len(self.classes) - 1}, or none")
        return labels

    @torch.no_grad()
    def _probability(self, kept: KeptFeatures, name: str, tile: Box) -> np.ndarray:
        found = kept.tile(name, tile)
        logits = self.model.logits_of([scale.float() for scale in found.maps])
        return found.inner(self.model.finished(logits)[0]).numpy()


def _start(model: str | EMForSemanticSegmentation, fields: dict[str, Any]) -> EMForSemanticSegmentation:
    if not isinstance(model, EMForSemanticSegmentation):
        return pretrained_start(EMForSemanticSegmentation, str(model), fields)  # type: ignore[return-value]
    config: Any = model.config
    if EMForSemanticSegmentation.why_new_head(type(model), config, fields) is None:
        return model
    return with_new_head(EMForSemanticSegmentation, model, fields)  # type: ignore[return-value]


def _within(box: Box | None, shape: tuple[int, int]) -> Box:
    height, width = shape
    if box is None:
        return 0, 0, height, width
    top, left, bottom, right = max(0, box[0]), max(0, box[1]), min(height, box[2]), min(width, box[3])
    if top >= bottom or left >= right:
        raise EMError(f"the box {box} lies outside of the micrograph of {height} x {width} pixels")
    return top, left, bottom, right


def _sample(labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of labelled pixels, at most so many of each class."""
    rng, flat = np.random.default_rng(0), labels.ravel()
    drawn = []
    for index in range(count):
        places = np.flatnonzero(flat == index)
        drawn.append(rng.choice(places, MOST_PIXELS, replace=False) if len(places) > MOST_PIXELS else places)
    rows, columns = np.divmod(np.sort(np.concatenate(drawn)), labels.shape[1])
    return rows, columns


def _weights(counts: Tensor) -> list[float]:
    """Return a weight for each class, as in training; 1 for one without pixels."""
    raw = counts.clamp_min(1).double() ** -CLASS_WEIGHTS["root"]
    mean = (raw * counts).sum() / counts.sum()
    return [float(weight / mean) if count else 1.0 for weight, count in zip(raw, counts, strict=True)]
