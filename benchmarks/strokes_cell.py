"""What `benchmarks.strokes` measures on one set with one seed of the annotator."""

import json
import tempfile
import time
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.rival_forest import TREES, pixel_features
from benchmarks.strokes_annotator import Annotator
from emfm import load_em_dataset, predict
from emfm.class_names import is_background
from emfm.data.examples import LabelledMicrographs
from emfm.defaults import DEFAULT_FOR_STROKES
from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.finetuning.strokes import StrokeSegmenter
from emfm.io.writing import write_image
from emfm.processing import EMImageProcessor
from emfm.tasks import load_model

SIDE = 512  # of the cut-outs from the middle of a micrograph, at most
UNSEEN = 5  # unseen micrographs, at most
PIXELS = 10_000  # of each of them that are measured, drawn at random
SHARES = (0.001, 0.003, 0.01)  # of the pixels that strokes cover
ROUNDS = 10  # corrections
NAME = "strokes"  # what the training micrograph is called
# A short fine-tuning, in place of the page's 300 steps of 8 crops of 256 px, after some corrections.
TRAINING = {"steps": 60, "batch_size": 4, "crop": 128}
TRAINED_AFTER = (1, 5, 10)
SUGGESTED = 12  # strokes whose places are chosen, after one of each class


class Cell:
    """A training micrograph, unseen ones, and what both methods know of them."""

    def __init__(self, folder: Path, seed: int, split: str):
        training, unseen = load_em_dataset(folder, "train"), load_em_dataset(folder, split)
        assert isinstance(training, LabelledMicrographs) and isinstance(unseen, LabelledMicrographs)
        self.seed, self.names = seed, training.id2label
        drawn = training.take(1, seed)
        self.image, self.truth = middle_of(drawn.images[0]), middle_of(drawn.masks[0])
        self.images = [middle_of(image) for image in unseen.images[:UNSEEN]]
        self.places, self._wanted = [], []
        for index, mask in enumerate(map(middle_of, unseen.masks[:UNSEEN])):
            known = np.random.default_rng(index).permutation(np.flatnonzero(mask >= 0))[:PIXELS]
            self.places.append(np.divmod(known, mask.shape[1]))
            self._wanted.append(mask[self.places[-1]])
        self.segmenter = StrokeSegmenter(classes=list(self.names.values()))

    def dice(self, found: list[np.ndarray]) -> float | None:
        """Return the mean Dice of the classes but the background, from counts over all pixels."""
        classes, wanted = np.concatenate(found), np.concatenate(self._wanted)
        values = []
        for index, label in self.names.items():
            true, said = wanted == index, classes == index
            if not is_background(label) and true.any():
                values.append(2 * float((true & said).sum()) / float(true.sum() + said.sum()))
        return float(np.mean(values)) if values else None

    def head(self, labels: np.ndarray) -> tuple[np.ndarray, float]:
        """Fit the head; returns what it makes of the training micrograph, and processor seconds."""
        started = time.process_time()
        self.segmenter.fit({NAME: self.image}, {NAME: labels})
        found, _ = self.segmenter.segment(NAME)
        return found, time.process_time() - started

    def head_dice(self) -> float | None:
        """Return the Dice of the head on unseen pixels."""
        layer = self.segmenter.model.class_head
        weight, bias = layer.weight.detach()[:, :, 0, 0], layer.bias
        assert bias is not None
        return self.dice([(maps @ weight.T + bias.detach()).argmax(dim=1).numpy() for maps in self._deep])

    def forest(self, labels: np.ndarray) -> Any:
        """Return a forest that learnt from the same labels."""
        from sklearn.ensemble import RandomForestClassifier

        trees = RandomForestClassifier(n_estimators=TREES, random_state=self.seed, n_jobs=1)
        return trees.fit(self._own_filters[labels >= 0], labels[labels >= 0])

    def forest_dice(self, labels: np.ndarray) -> float | None:
        """Return the Dice of a forest on unseen pixels."""
        trees = self.forest(labels)
        return self.dice([trees.predict(features) for features in self._filters])

    def forest_seconds(self, labels: np.ndarray) -> tuple[float, float]:
        """Return processor seconds to a first segmentation of the training micrograph, and a next."""
        started = time.process_time()
        features = filters_of(self.image)
        made = time.process_time()
        self.forest(labels).predict(features.reshape(-1, features.shape[-1]))
        ended = time.process_time()
        return ended - started, ended - made

    @cached_property
    def _deep(self) -> list[Tensor]:
        found = []
        for index, (image, places) in enumerate(zip(self.images, self.places, strict=True)):
            self.segmenter.look(str(index), image)
            features, order, _ = self.segmenter.features_at(str(index), *places)
            assert (order == np.arange(len(order))).all()  # a cut-out is one tile
            found.append(features)
        return found

    @cached_property
    def _filters(self) -> list[np.ndarray]:
        return [filters_of(image)[places] for image, places in zip(self.images, self.places, strict=True)]

    @cached_property
    def _own_filters(self) -> np.ndarray:
        return filters_of(self.image)


def middle_of(image: np.ndarray) -> np.ndarray:
    """Return the cut-out of an image or a mask (H, W)."""
    top, left = (max(0, (length - SIDE) // 2) for length in image.shape)
    return np.ascontiguousarray(image[top : top + SIDE, left : left + SIDE])


def filters_of(image: np.ndarray) -> np.ndarray:
    """Return the forest's features (H, W, C) of a micrograph."""
    processor = EMImageProcessor()
    return pixel_features(processor.normalize(image, processor.statistics(image)))


def strokes(cell: Cell) -> dict[str, Any]:
    """Return the course of both methods, by the share that is painted and by corrections."""
    annotator, course, seconds = Annotator(cell.truth, cell.seed), [], []

    def measure(annotator: Annotator, **place: float) -> np.ndarray:
        found, spent = cell.head(annotator.labels)
        seconds.append(spent)
        dice = {"head": cell.head_dice(), "forest": cell.forest_dice(annotator.labels)}
        course.append({**place, "pixels": int((annotator.labels >= 0).sum()), **dice})
        return found

    annotator.paint(SHARES[0])
    found = measure(annotator, share=SHARES[0])
    first, following = cell.forest_seconds(annotator.labels)
    for number in range(1, ROUNDS + 1):
        annotator.correct(found)
        found = measure(annotator, round=number)
    annotator = Annotator(cell.truth, cell.seed)
    for share in SHARES:
        annotator.paint(share)
        if share > SHARES[0]:
            measure(annotator, share=share)
    spent = {"head": [seconds[0], float(np.median(seconds[1:]))], "forest": [first, following]}
    return {"course": course, "seconds": spent, "megapixels": cell.image.size / 1e6}


def trained(cell: Cell) -> dict[str, Any]:
    """Return the Dice of networks that a short fine-tuning made, after some of the corrections."""
    annotator, dice, seconds = Annotator(cell.truth, cell.seed), {}, []
    annotator.paint(SHARES[0])
    for number in range(1, ROUNDS + 1):
        found, _ = cell.head(annotator.labels)
        annotator.correct(found)
        if number in TRAINED_AFTER:
            with tempfile.TemporaryDirectory() as scratch:
                _write(Path(scratch) / "data", cell, annotator.labels)
                started = time.process_time()
                settings = {"model": DEFAULT_FOR_STROKES, "all_scales": True, "seed": cell.seed, **TRAINING}
                folders = {"data": str(Path(scratch) / "data"), "output": str(Path(scratch) / "out")}
                finetune(FinetuneArguments("segmentation", **folders, **settings), show_progress=False)
                seconds.append(time.process_time() - started)
                model = load_model(Path(scratch) / "out")
            maps = [predict(model, image, compare=False).output for image in cell.images]
            dice[number] = cell.dice([each[places] for each, places in zip(maps, cell.places, strict=True)])
    return {"dice": dice, "seconds": seconds, **TRAINING}


def _write(folder: Path, cell: Cell, labels: np.ndarray) -> None:
    """Write the training micrograph and its strokes as a labelled folder."""
    for kind, array in {"images": cell.image, "masks": np.where(labels < 0, 255, labels).astype(np.uint8)}.items():
        (folder / kind).mkdir(parents=True)
        write_image(folder / kind / f"{NAME}.tif", array)
    values = {**{str(index): label for index, label in cell.names.items()}, "255": "ignore"}
    (folder / "labels.json").write_text(json.dumps(values), encoding="utf-8")


def suggest(cell: Cell) -> dict[str, Any]:
    """Return the Dice after each stroke where the head chose its place, and where chance did."""
    rng = np.random.default_rng(cell.seed)

    def by_chance() -> tuple[int, int]:
        row, column = np.unravel_index(int(rng.integers(cell.truth.size)), cell.truth.shape)
        return int(row), int(column)

    by_head = partial(cell.segmenter.suggest, NAME)
    return {"suggested": _course(cell, by_head), "random": _course(cell, by_chance)}


def _course(cell: Cell, where: Callable[[], tuple[int, int]]) -> list[float | None]:
    annotator, dice = Annotator(cell.truth, cell.seed), []
    annotator.begin()
    for number in range(SUGGESTED + 1):
        if number:
            annotator.paint_at(*where())
        cell.segmenter.fit({NAME: cell.image}, {NAME: annotator.labels})
        dice.append(cell.head_dice())
    return dice


PARTS: dict[str, Callable[[Cell], dict[str, Any]]] = {"strokes": strokes, "trained": trained, "suggest": suggest}
