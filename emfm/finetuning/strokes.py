"""Segmentation from a few painted strokes, in seconds: a head on features that are kept."""

from dataclasses import dataclass
from threading import RLock
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from emfm.data.examples import IGNORED
from emfm.defaults import DEFAULT_FOR_STROKES
from emfm.errors import EMError
from emfm.finetuning.head import fit_scales
from emfm.finetuning.kept_features import KEPT_BYTES, Box, KeptFeatures
from emfm.finetuning.start import pretrained_start, with_new_head
from emfm.processing import IntensityStatistics
from emfm.tasks.losses import entropy
from emfm.tasks.segmentation import CLASS_WEIGHTS, EMForSemanticSegmentation

MOST_PIXELS = 5_000  # of each class teach the head: more say the same
AROUND = 4_096  # pixels in all directions that tell what the rest of a labelled micrograph is like
ROOM = 32  # pixels around a place, over which doubt is averaged before one is suggested


@dataclass(frozen=True)
class Learnt:
    """What the labels of a micrograph teach."""

    labels: np.ndarray  #: class indices (H, W)
    known: Tensor  #: features (N, C) of labelled pixels
    truth: Tensor  #: their classes (N)
    around: Tensor  #: features (M, C) of pixels all over the tiles that hold labels
    tiles: list[Box]

    @property
    def pixels(self) -> int:
        """How many are labelled."""
        return int((self.labels >= 0).sum())


class StrokeSegmenter:
    """Learns classes from partly labelled micrographs, and segments them whole.

    The trunk stays as it is. Its features of all scales, and those of hand-made filters, are kept,
    so only the first look at a micrograph takes seconds; fitting the head to further strokes takes
    a fraction of one.

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
        fields = {"id2label": dict(enumerate(names)), "all_scales": True, "filters": True, "residual": False}
        self.model = _start(model, fields)
        self.model.eval()
        self._ignore, self._lock = ignore, RLock()
        self._features = KeptFeatures(self.model, keep_bytes)
        self._learnt: dict[str, Learnt] = {}

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
            learnt = [found for found in self._learnt.values() if len(found.truth)]
            held = sorted({int(index) for found in learnt for index in found.truth.unique()})
            if len(held) < 2:
                painted = " and ".join(self.classes[index] for index in held) or "no pixels"
                raise EMError(f"labelled are {painted}: paint two classes or more")
            truth = torch.cat([found.truth for found in learnt])
            known, around = (torch.cat([getattr(f, kind) for f in learnt]) for kind in ("known", "around"))
            self.model.config.class_weights = _weights(torch.bincount(truth, minlength=len(self.classes)))
            fit_scales(self.model, known, truth, around, sum(found.pixels for found in learnt))
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
                labelled = self._learnt[name].labels[top:bottom, left:right] >= 0
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

    def _features_of(self, name: str, labels: np.ndarray) -> Learnt:
        """Return what labels (H, W) of a micrograph teach."""
        if name not in self._features:
            raise EMError(f"there are labels of '{name}', and no micrograph of that name")
        labels = self._checked(name, labels)
        before = self._learnt.get(name)
        if before is not None and np.array_equal(before.labels, labels):
            return before
        rows, columns = _sample(labels, len(self.classes))
        known, order, tiles = self.features_at(name, rows, columns)
        truth = torch.from_numpy(labels[rows[order], columns[order]].astype(np.int64))
        if before is not None and before.tiles == tiles:
            return Learnt(labels, known, truth, before.around, tiles)
        around = self.features_at(name, *_spread(tiles))[0] if tiles else known
        return Learnt(labels, known, truth, around, tiles)

    def features_at(self, name: str, rows: np.ndarray, columns: np.ndarray) -> tuple[Tensor, np.ndarray, list[Box]]:
        """Return the features (N, C) of pixels, in which order these come, and their tiles."""
        features, order, tiles = [torch.empty(0, sum(self.model.scale_channels))], [np.empty(0, np.int64)], []
        for tile in self._features.source(name).tiles():
            top, left, bottom, right = tile
            inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
            if inside.any():
                features.append(self._features.tile(name, tile).at(rows[inside], columns[inside]))
                order.append(np.flatnonzero(inside))
                tiles.append(tile)
        return torch.cat(features), np.concatenate(order), tiles

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


def _spread(tiles: list[Box]) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of `AROUND` pixels, at equal distances all over some tiles."""
    area = sum((bottom - top) * (right - left) for top, left, bottom, right in tiles)
    step = max(1, int((area / AROUND) ** 0.5))
    found = [np.mgrid[t + step // 2 : b : step, left + step // 2 : r : step].reshape(2, -1) for t, left, b, r in tiles]
    rows, columns = np.concatenate(found, axis=1)
    return rows, columns


def _weights(counts: Tensor) -> list[float]:
    """Return a weight for each class, as in training; 1 for one without pixels."""
    raw = counts.clamp_min(1).double() ** -CLASS_WEIGHTS["root"]
    mean = (raw * counts).sum() / counts.sum()
    return [float(weight / mean) if count else 1.0 for weight, count in zip(raw, counts, strict=True)]
