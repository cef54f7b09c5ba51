"""Semantic segmentation: one class per pixel."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput, can_return_tuple

from emfm.class_names import is_background
from emfm.config import EMFoundationConfig
from emfm.data.augmentation import Augmentation, sample, sample_nearest
from emfm.data.croppers import LEAST_KNOWN, Key, cut, dihedral, part_around, random_corner
from emfm.data.examples import IGNORED, Examples, LabelledMicrographs
from emfm.errors import EMError
from emfm.hub.card import figure, table
from emfm.no_data import no_data
from emfm.processing import EMImageProcessor, IntensityStatistics
from emfm.reports.report import ClassMapReport
from emfm.tasks.losses import entropy, segmentation_loss
from emfm.tasks.metrics import SEGMENTATION_FIGURES, Metrics, SegmentationMetrics
from emfm.tasks.scales import classified, joined, scale_channels, scale_maps, scale_reach
from emfm.tasks.task import CardWords, EMTaskModel, ExportWords, MissingTruth, ModelChoices

# A class's weight is the inverse of its share of the pixels to this power. With the root a rare
# class is not given up in the first steps, nor invented as with full balance: docs/findings.md.
CLASS_WEIGHTS = {"root": 0.5, "balanced": 1.0}
# Fields of the configuration that decide what the head sees.
SEES = ("all_scales", "filters")
# How often a crop is placed on a class drawn at random instead of anywhere in the micrograph.
CLASS_CENTRED = 0.5
# Places of a class that are kept: a sample of a large one is as good.
MOST_PLACES = 10_000
# A micrograph (H, W), its class map, its statistics, and flat positions of each class.
PreparedMask = tuple[np.ndarray, np.ndarray, IntensityStatistics, list[np.ndarray]]


@dataclass(frozen=True)
class SegmentationCropper:
    """Cuts crops with class maps.

    Half of the crops lie anywhere. The others are centred on a pixel of a class that is drawn among
    those in the micrograph, so a rare one is seen as often. A micrograph may lack foreground.
    """

    processor: EMImageProcessor
    side: int  # of a crop in pixels
    augmentation: Augmentation

    def prepare(self, image: np.ndarray, truth: np.ndarray) -> PreparedMask:
        """Measure a micrograph and find the places of its classes."""
        return image, truth, self.processor.statistics(image), _places(truth)

    def crop(self, prepared: PreparedMask, key: Key) -> dict[str, Tensor]:
        """Cut the crop that the key (seed, epoch, index) decides."""
        image, mask, _, places = prepared
        rng = np.random.default_rng(key)
        height, width = mask.shape
        if places and rng.random() < CLASS_CENTRED:
            positions = places[int(rng.integers(len(places)))]
            row, column = divmod(int(rng.choice(positions)), width)
        else:
            row, column = int(rng.integers(height)), int(rng.integers(width))
        corner = _corner(row, self.side, height), _corner(column, self.side, width)
        missing = no_data(cut(image, *corner, self.side))
        if missing is not None and missing.mean() > 1 - LEAST_KNOWN:
            corner = random_corner(rng, image, self.side)
        symmetry = int(rng.integers(8))
        change = self.augmentation.draw(rng)
        values, classes = self._cut(rng, prepared, corner)
        values = change(self.augmentation.degrade(rng, dihedral(values, symmetry)))
        return {
            "pixel_values": torch.from_numpy(values)[None],
            "labels": torch.from_numpy(dihedral(classes, symmetry).astype(np.int64)),
        }

    def _cut(
        self, rng: np.random.Generator, prepared: PreparedMask, corner: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return network values and classes (side, side), zoomed, turned and bent at random."""
        image, mask, statistics, _ = prepared
        middle = corner[0] + self.side // 2, corner[1] + self.side // 2
        view = self.augmentation.view(rng, middle, self.side)
        if view is None:
            values = self.processor.normalize(cut(image, *corner, self.side), statistics)
            return values, cut(mask, *corner, self.side)
        part, offset = part_around(image, view)
        classes = sample_nearest(part_around(mask, view)[0], view - offset)
        values = sample(part, view - offset)
        missing = no_data(values)
        if missing is not None:
            classes = np.where(missing, IGNORED, classes)
        return self.processor.normalize(values, statistics), classes


def _corner(centre: int, side: int, length: int) -> int:
    return int(np.clip(centre - side // 2, 0, max(0, length - side)))


def _places(mask: np.ndarray) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    flat = mask.ravel()
    places = []
    for value in np.unique(flat):
        if value == IGNORED:
            continue
        positions = np.flatnonzero(flat == value)
        if len(positions) > MOST_PLACES:
            positions = rng.choice(positions, MOST_PLACES, replace=False)
        places.append(positions)
    return places


@dataclass
class SegmentationOutput(ModelOutput):
    """Output of EMForSemanticSegmentation."""

    loss: Tensor | None = None  # scalar, where labels were given
    logits: Tensor | None = None  # (B, K, H, W), at the input's size
    hidden_states: tuple[Tensor, ...] | None = None  # `features`, where they were asked for


class EMForSemanticSegmentation(EMTaskModel):
    """A pretrained trunk with a 1x1 convolution to K classes.

    `from_pretrained("unet4-rf200", id2label={0: "background", 1: "particle"})` takes the trunk from
    pretraining and a new head; without `id2label` a new head has two classes.
    """

    head_name = "class_head"
    purpose = "segmentation into {classes}"
    figures = SEGMENTATION_FIGURES
    figure_of_merit = "dice"
    greater_is_better = True
    truth = "masks"
    takes = (LabelledMicrographs,)
    nearest = True
    doubts_in_units = False
    calibrates = True
    own_settings = ("class_weights", "augment", "all_scales")
    card = CardWords(
        pipeline_tag="image-segmentation",
        output="class indices, one per pixel",
        image="labelled micrograph",
        truth="",
        needs="labels",
    )
    exported = ExportWords(
        tag="semantic-segmentation",
        output="logits",
        finished="probabilities",
        channels=(),
        description="class probabilities",
        meaning="a probability for each class",
        metric="Dice and boundary F1 of each class",
        steps=("softmax",),
    )

    def __init__(self, config: EMFoundationConfig):
        if len(config.id2label or {}) < 2:
            raise EMError(f"id2label is {config.id2label}; expected two classes or more, the background is one")
        super().__init__(config)
        self.scale_channels = scale_channels(self.trunk, config.filters)
        channels = sum(self.scale_channels) if config.all_scales else self.trunk.channels[0]
        self.class_head = nn.Conv2d(channels, len(config.id2label or {}), 1)
        self.post_init()

    @property
    def reach(self) -> int:
        """How far an output pixel can see."""
        return scale_reach(self.trunk, self.config.filters) if self.config.all_scales else super().reach

    def last_features(self, image: Tensor) -> Tensor:
        """Return the head's input (B, C, H, W): the finest features, or those of all scales."""
        if not self.config.all_scales:
            return super().last_features(image)
        return joined(self.scale_maps(self.padded(image)), (image.shape[-2], image.shape[-1]))

    def scale_maps(self, padded: Tensor) -> list[Tensor]:
        """Return what a head for all scales sees of a padded image: `scale_channels` maps each."""
        return scale_maps(self.trunk, padded, self.config.filters)

    def logits_of(self, maps: list[Tensor]) -> Tensor:
        """Return logits (B, K, H, W) of `scale_maps`."""
        assert self.class_head.bias is not None
        return classified(maps, self.class_head.weight, self.class_head.bias)

    @property
    def classes(self) -> dict[int, str]:
        """Class index: class name."""
        return {int(index): str(label) for index, label in (self.config.id2label or {}).items()}

    def loss_of(self, outputs: Tensor, image: Tensor, labels: Tensor) -> Tensor:
        """Return cross-entropy + Dice of logits (B, K, H, W) and class indices (B, H, W)."""
        return segmentation_loss(outputs, labels, self.config.class_weights)

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> SegmentationOutput:
        """Classify every pixel.

        Args:
            pixel_values: (B, 1, H, W) network values, any H and W.
            labels: (B, H, W) int64 class indices; -100 takes no part in the loss, cross-entropy
                (with `config.class_weights`, where given) + Dice.
            output_hidden_states: return the `features`, too; False by default.
            **kwargs: accepted for transformers' Trainer and pipelines, not used.
        """
        if self.config.all_scales:
            maps = self.scale_maps(self.padded(pixel_values))
            logits = self.logits_of(maps)[..., : pixel_values.shape[-2], : pixel_values.shape[-1]]
            hidden_states = tuple(self.features(pixel_values)) if self._wants_all(output_hidden_states) else None
        else:
            features, hidden_states = self._seen(pixel_values, output_hidden_states)
            logits = self.class_head(features)
        loss = None if labels is None else self.loss_of(logits, pixel_values, labels)
        return SegmentationOutput(loss, logits, hidden_states)

    def calibrated(self, outputs: Tensor) -> Tensor:
        """Return logits (B, K, H, W) plus the classes' offsets, divided by the temperature."""
        if self.config.class_offsets is not None:
            outputs = outputs + outputs.new_tensor(self.config.class_offsets).view(1, -1, 1, 1)
        return outputs / self.config.temperature

    @staticmethod
    def finished(outputs: Tensor) -> Tensor:
        """Return class probabilities (B, K, H, W) from logits; tiles may blend them."""
        return outputs.softmax(dim=1)

    @staticmethod
    def doubt(maps: Tensor) -> Tensor:
        """Return the entropy of the mean probabilities, 0 where sure, 1 where all are alike."""
        return entropy(maps.mean(dim=0))

    @staticmethod
    def confidence(maps: np.ndarray) -> np.ndarray:
        """Return the probability of the class that is chosen."""
        return maps.max(axis=0)

    def result(self, maps: np.ndarray, statistics: IntensityStatistics, dtype: Any) -> np.ndarray:
        """Return the class map (H, W) of probabilities (K, H, W): uint8, or uint16 if K > 255."""
        return maps.argmax(axis=0).astype(np.uint8 if len(maps) <= 255 else np.uint16)

    def check_data(self, data: Examples, name: str) -> None:
        """Raise an error where the data have no masks, or other classes than the model."""
        super().check_data(data, name)
        assert isinstance(data, LabelledMicrographs)
        if data.id2label != self.classes:
            raise EMError(
                f"the model's classes are {self.classes}, those of {name} are {data.id2label}: use "
                "data with the same labels.json as in training"
            )

    def missing_truth(self, data: Examples) -> MissingTruth:
        """Return masks that are all "ignore", and classes without a pixel."""
        assert isinstance(data, LabelledMicrographs)
        held, unlabelled = np.zeros(len(self.classes), dtype=bool), []
        for mask, name in zip(data.masks, data.names, strict=True):
            found = np.unique(mask[mask >= 0])
            held[found] = True
            if not len(found):
                unlabelled.append(name)
        absent = [label for index, label in self.classes.items() if not held[index]]
        nothing = None
        if not held.any():
            nothing = "every pixel of the masks is 'ignore'"
        elif all(is_background(label) for index, label in self.classes.items() if held[index]):
            nothing = f"no mask holds a pixel of {' or '.join(absent)}"
        return MissingTruth(nothing, unlabelled, "every pixel of the mask is 'ignore'", absent)

    @classmethod
    def fields_for(cls, data: Examples, choices: ModelChoices) -> dict[str, Any]:
        """Return the classes of the data, and a weight for each of them."""
        assert isinstance(data, LabelledMicrographs)
        weights = class_weights(choices.class_weights, data)
        scales = {} if choices.all_scales is None else {"all_scales": choices.all_scales, "filters": choices.all_scales}
        fields = {"id2label": data.id2label, "class_weights": weights, **scales}
        return {**super().fields_for(data, choices), **fields}

    @classmethod
    def why_new_head(cls, source: type[EMTaskModel], config: EMFoundationConfig, fields: dict[str, Any]) -> str | None:
        """Return why a fine-tuned head does not serve: another task, or other classes."""
        if source is cls and config.id2label != fields["id2label"]:
            wanted = ", ".join(fields["id2label"].values())
            return f"was trained for {cls.purpose_of(config)}, and the data have {wanted}"
        if source is cls and any(getattr(config, key) != fields.get(key, getattr(config, key)) for key in SEES):
            return "has a head for other features"
        return super().why_new_head(source, config, fields)

    def cropper(self, data: Examples, side: int, augmentation: Augmentation) -> SegmentationCropper:
        """Return what cuts crops with class maps, half of them around a class drawn at random."""
        return SegmentationCropper(self.processor, side, augmentation)

    def new_metrics(self) -> SegmentationMetrics:
        """Return empty counts of an evaluation, which `add(class map, truth)` fills."""
        return SegmentationMetrics(self.classes)

    def trivial_figures(self, data: Examples, measured: Metrics) -> dict[str, Any]:
        """Return the figures of the best single class for every pixel."""
        assert isinstance(measured, SegmentationMetrics)
        return measured.majority()

    @staticmethod
    def report() -> ClassMapReport:
        """Return what writes an overlay, and the measures of each region."""
        return ClassMapReport()

    @classmethod
    def card_table(cls, best: dict[str, Any]) -> str:
        """Return the figures of each class, and their means, as a Markdown table."""
        shown = [measure for measure in cls.figures if measure.name in best]
        rows = [
            [label, *(figure(values[measure.name]) for measure in shown)] for label, values in best["per_class"].items()
        ]
        mean = "mean without background" if "background" in best["per_class"] else "mean"
        rows.append([f"**{mean}**", *(figure(best[measure.name]) for measure in shown)])
        return table(["class", *(measure.heading for measure in shown)], rows)


def class_weights(given: str, data: LabelledMicrographs) -> list[float] | None:
    """Return a weight for each class; None for equal ones, the default on a stream.

    Raises:
        EMError: given is no key of `CLASS_WEIGHTS`, "none", or numbers with commas between; or it
            asks for counts of a stream, whose data are empty here.
    """
    if given == "none" or (given == "root" and not len(data)):
        return None
    if given in CLASS_WEIGHTS:
        if not len(data):
            raise EMError("a stream's class weights cannot be counted: give one for each class")
        return data.balanced_weights(CLASS_WEIGHTS[given])
    try:
        return [float(weight) for weight in given.split(",")]
    except ValueError as error:
        expected = f"{', '.join(CLASS_WEIGHTS)}, none, or numbers like 0.5,2"
        raise EMError(f"class weights are '{given}'; expected {expected} ({error})") from error
