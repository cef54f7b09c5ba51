"""Instance segmentation: which pixels belong to which object.

One network says for every pixel whether it is in an object, whether it is at its boundary, how far
it is from there and, where objects have classes, which. A watershed grows the objects from their
middles: `emfm.tasks.watershed`.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import ModelOutput, can_return_tuple

from emfm.class_names import is_background
from emfm.config import EMFoundationConfig
from emfm.data.augmentation import Augmentation
from emfm.data.classes import IGNORE
from emfm.data.datasets import folder_labels, load_em_dataset
from emfm.data.examples import IGNORED, Examples
from emfm.data.labelled_folder import truths_of
from emfm.data.object_crops import ObjectCropper
from emfm.data.object_sizes import shrink_for
from emfm.data.objects import BOUNDARY, INSIDE, LabelledObjects, objects_of_masks, shown_classes, with_classes
from emfm.data.sources import is_dataset
from emfm.errors import EMError
from emfm.hub.card import figure, table
from emfm.io.reading import FileChoice
from emfm.processing import IntensityStatistics
from emfm.reports.objects import ObjectReport
from emfm.reports.prediction import Prediction
from emfm.tasks.instance_metrics import INSTANCE_FIGURES, InstanceMetrics
from emfm.tasks.losses import entropy, segmentation_loss
from emfm.tasks.metrics import Metrics
from emfm.tasks.separation import Separation, first_separation
from emfm.tasks.task import CardWords, EMTaskModel, ExportWords, MissingTruth, ModelChoices
from emfm.tasks.watershed import MOST_CLASSES, packed

# What the network puts out, in this order.
OUTPUTS = ("foreground", "boundary", "distance")
# Boundaries are few: each of their pixels weighs so much in the cross-entropy.
BOUNDARY_WEIGHT = 3.0
# The mean squared error makes the distance a mean of what may be. The mean error would make it a
# median, which is 0 inside large objects as long as the network doubts whether there is one.
DISTANCE_WEIGHT = 20.0
WATERSHED = (
    "Objects are made of the maps by a watershed: boundaries divide the micrograph into regions, those with much "
    "foreground are searched for large distances, and from these middles objects grow over the foreground, by "
    "boundary minus distance; the thresholds, chosen on validation, are `separation` in config.json."
)
# Of the classes' loss: to tell objects apart is harder to learn than to name them.
CLASSES_WEIGHT = 0.5
# What transformers puts in the place of names of classes that nobody gave.
UNNAMED = {"LABEL_0", "LABEL_1"}


@dataclass
class InstanceOutput(ModelOutput):
    """Output of EMForInstanceSegmentation."""

    loss: Tensor | None = None  # scalar, where labels were given
    # (B, 3 + K, H, W): foreground, boundary (logits), distance, K classes (logits)
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None  # `features`, where they were asked for


class EMForInstanceSegmentation(EMTaskModel):
    """A pretrained trunk with a 1x1 convolution to foreground, boundary, distance and classes.

    Two classes or more make objects of different kinds: `id2label={0: "rod", 1: "sphere"}`. The
    background is none of them. Without `id2label` all objects are alike.
    """

    head_name = "object_head"
    purpose = "instance segmentation"
    figures = INSTANCE_FIGURES
    figure_of_merit = "ap50"
    greater_is_better = True
    own_settings = ("augment",)
    truth = "instances"
    takes = (LabelledObjects,)
    nearest = True
    doubts_in_units = False
    separates = True
    card = CardWords(
        pipeline_tag="image-segmentation",
        output="numbers of objects, one per pixel, 0 for the background",
        image="micrograph",
        truth=" with objects",
        needs="labels",
        limits=(WATERSHED, "Objects of more than about 800 pixels may lose parts of their rims."),
    )
    exported = ExportWords(
        tag="instance-segmentation",
        output="logits",
        finished="maps",
        channels=OUTPUTS,
        description="probabilities of foreground and boundary, the distance to the boundary, and of each class",
        meaning=(
            "foreground and boundary are probabilities, the distance a share of the object's largest; classes of "
            f"objects, where there are some, follow. {WATERSHED}"
        ),
        metric="average precision of the objects, after a seeded watershed",
    )

    def __init__(self, config: EMFoundationConfig):
        super().__init__(config)
        kinds = self.object_classes
        if any(map(is_background, kinds.values())) or len(kinds) == 1 or len(kinds) > MOST_CLASSES:
            raise EMError(
                f"id2label is {kinds}; expected 2 to {MOST_CLASSES} kinds of objects, without the background, or none"
            )
        Separation.of(config.separation)  # which checks it
        self.object_head = nn.Conv2d(self.trunk.channels[0], len(OUTPUTS) + len(kinds), 1)
        self.post_init()

    @property
    def object_classes(self) -> dict[int, str]:
        """Names of the classes of objects; empty where all are alike."""
        return classes_of(self.config)

    @classmethod
    def load(
        cls,
        source: str | Path,
        split: str,
        degrade: str | None,
        scale: int | None,
        streaming: bool = False,
        choice: FileChoice | None = None,
    ) -> Any:
        """Load a split: numbers of objects (`instances/`), else the connected parts of masks.

        Where `labels.json` names several classes beside the background, masks give objects theirs;
        what it calls "ignore" in them is unknown.
        """
        if degrade is not None:
            raise EMError(f"--degrade '{degrade}' makes pairs for restoration; instances need {cls.truth}/ or masks/")
        folder = Path(source)
        truths = [] if is_dataset(str(source)) or not folder.is_dir() else truths_of(folder)
        if "masks" not in truths:
            return load_em_dataset(source, split, None, None, cls.truth, streaming, choice)
        if cls.truth not in truths:
            return objects_of_masks(load_em_dataset(source, split, truth="masks", choice=choice))
        objects = load_em_dataset(source, split, truth=cls.truth, choice=choice)
        labels = folder_labels(folder)
        unknown = labels is not None and any(name.casefold() == IGNORE for name in labels.names.values())
        if labels is None or (len(shown_classes(labels.id2label)) < 2 and not unknown):
            return objects
        return with_classes(objects, load_em_dataset(source, split, truth="masks", choice=choice))

    def check_data(self, data: Examples, name: str) -> None:
        """Raise an error where the data hold no objects, or those of other classes."""
        super().check_data(data, name)
        assert isinstance(data, LabelledObjects)
        if data.id2label != self.object_classes:
            mine, theirs = (", ".join(names.values()) or "none" for names in (self.object_classes, data.id2label))
            raise EMError(
                f"the model's classes of objects are {mine}, those of {name} {theirs}: use data with the same "
                "labels.json as in training"
            )

    @classmethod
    def fields_for(cls, data: Examples, choices: ModelChoices) -> dict[str, Any]:
        """Return the classes of the objects, where they have some."""
        assert isinstance(data, LabelledObjects)
        shrink = shrink_for(data.ids)
        fields = {"shrink": shrink, "separation": asdict(first_separation(shrink, data.ids))}
        return {**super().fields_for(data, choices), **fields, **({"id2label": data.id2label} if data.id2label else {})}

    @classmethod
    def why_new_head(cls, source: type[EMTaskModel], config: EMFoundationConfig, fields: dict[str, Any]) -> str | None:
        """Return why a fine-tuned head does not serve: another task, or other classes."""
        wanted = fields.get("id2label", {})
        if source is cls and classes_of(config) != wanted:
            known = ", ".join(classes_of(config).values()) or "none"
            return f"has classes of objects ({known}) that are not those of the data ({', '.join(wanted.values())})"
        return super().why_new_head(source, config, fields)

    @property
    def stride(self) -> int:
        """Pixels of the micrograph that one of the coarsest map stands for, along each axis."""
        return super().stride * self.config.shrink

    @property
    def receptive_field(self) -> int:
        """Side of the receptive field in pixels of the micrograph."""
        return super().receptive_field * self.config.shrink

    @property
    def reach(self) -> int:
        """How far in pixels an output pixel can see; what is enlarged sees its neighbour, too."""
        return super().reach if self.config.shrink == 1 else (super().reach + 1) * self.config.shrink

    def features(self, pixel_values: Tensor) -> list[Tensor]:
        """Return the trunk's maps of network values (B, 1, H, W), finest first, at its own strides.

        They are of the micrograph padded to a multiple of `stride` and scaled down by `shrink`.
        """
        padded = self.padded(pixel_values)
        return self.trunk.features(padded if self.config.shrink == 1 else F.avg_pool2d(padded, self.config.shrink))

    def _enlarged(self, maps: Tensor, size: Any) -> Tensor:
        """Return maps (B, C, h, w) of what the trunk sees at the micrograph's size (B, C, H, W)."""
        if self.config.shrink > 1:
            maps = F.interpolate(maps, scale_factor=self.config.shrink, mode="bilinear", align_corners=False)
        return maps[..., : size[0], : size[1]]

    def last_features(self, image: Tensor) -> Tensor:
        """Return the head's input (B, C, H, W) at the micrograph's size."""
        return self._enlarged(self.features(image)[0], image.shape[-2:])

    def loss_of(self, outputs: Tensor, image: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of outputs (B, 3 + K, H, W), a scalar.

        Labels are object maps (B, 1, H, W), NaN unknown; with classes (B, 2, H, W), these second.
        """
        target = labels[:, 0]
        known = ~torch.isnan(target)
        if not known.any():
            return outputs.sum() * 0.0
        foreground, boundary, distance = (part[known] for part in outputs[:, : len(OUTPUTS)].float().unbind(1))
        kinds = torch.zeros((), device=outputs.device)
        if labels.shape[1] > 1:
            named = torch.where(known & (labels[:, 1] >= 0), labels[:, 1], IGNORED).long()
            kinds = CLASSES_WEIGHT * segmentation_loss(outputs[:, len(OUTPUTS) :], named)
        target = target[known]
        inside, edge = (target > 0).float(), (target >= BOUNDARY).float()
        share = torch.where(target >= BOUNDARY, target - BOUNDARY, target - INSIDE).clamp_min(0)
        probability = foreground.sigmoid()
        dice = (2 * (probability * inside).sum() + 1) / (probability.sum() + inside.sum() + 1)
        weight = torch.full((), BOUNDARY_WEIGHT, device=outputs.device)
        return (
            F.binary_cross_entropy_with_logits(foreground, inside)
            + (1 - dice)
            + F.binary_cross_entropy_with_logits(boundary, edge, pos_weight=weight)
            + DISTANCE_WEIGHT * F.mse_loss(distance, share * inside)
            + kinds
        )

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> InstanceOutput:
        """Find foreground, boundaries and distances.

        Args:
            pixel_values: (B, 1, H, W) network values, any H and W.
            labels: (B, 1, H, W) what `emfm.data.objects.object_map` makes of numbered objects; with
                classes (B, 2, H, W): beside it their indices, negative where there is none.
            output_hidden_states: return the `features`, too; False by default.
            **kwargs: accepted for transformers' Trainer and pipelines, not used.
        """
        size = pixel_values.shape[-2:]
        features, *coarser = self.features(pixel_values)
        logits = self._enlarged(self.object_head(features), size)
        hidden_states = (features, *coarser) if self._wants_all(output_hidden_states) else None
        loss = None if labels is None else self.loss_of(logits, pixel_values, labels)
        return InstanceOutput(loss, logits, hidden_states)

    @staticmethod
    def finished(outputs: Tensor) -> Tensor:
        """Return probabilities of foreground and boundary, distances, and probabilities of classes.

        All are 0 to 1.
        """
        return torch.cat([outputs[:, :2].sigmoid(), outputs[:, 2:3].clamp(0, 1), outputs[:, 3:].softmax(dim=1)], dim=1)

    @staticmethod
    def doubt(maps: Tensor) -> Tensor:
        """Return the entropy of foreground and background, 0 where sure, 1 where both are alike."""
        foreground = maps[:, :, 0].mean(dim=0)
        return entropy(torch.stack([foreground, 1 - foreground], dim=1))

    @staticmethod
    def confidence(maps: np.ndarray) -> np.ndarray:
        """Return the probability of foreground or background, whichever is more likely."""
        return np.maximum(maps[0], 1 - maps[0])

    def result(self, maps: np.ndarray, statistics: IntensityStatistics, dtype: Any) -> np.ndarray:
        """Return the maps (3 + K, H, W) in one of uint32: the watershed makes objects of it."""
        return packed(maps)

    def missing_truth(self, data: Examples) -> MissingTruth:
        """Return whether there is no object, micrographs of which nothing is known, and classes."""
        assert isinstance(data, LabelledObjects)
        unknown = [name for ids, name in zip(data.ids, data.names, strict=True) if (ids < 0).all()]
        empty = not any((ids > 0).any() for ids in data.ids)
        held = [np.unique(classes) for classes in data.classes or []]
        absent = [label for index, label in data.id2label.items() if not any(index in found for found in held)]
        return MissingTruth("no object is marked" if empty else None, unknown, "every pixel is unknown", absent)

    def cropper(self, data: Examples, side: int, augmentation: Augmentation) -> ObjectCropper:
        """Return what cuts crops with object maps, of which the network sees `side` pixels."""
        return ObjectCropper(self.processor, side * self.config.shrink, augmentation, self.config.shrink)

    def new_metrics(self) -> InstanceMetrics:
        """Return empty counts of an evaluation, which `add(numbers, truth)` fills."""
        return InstanceMetrics(self.object_classes)

    def measure(self, metrics: Metrics, prediction: Prediction, data: Examples, index: int) -> None:
        """Count the objects of micrograph `index`, their classes and their sizes in nm, too."""
        assert isinstance(metrics, InstanceMetrics)
        found = prediction.output.astype(np.int64)
        if prediction.object_classes is not None:
            found = np.stack([found, np.asarray(prediction.object_classes.of, dtype=np.int64)[found]])
        metrics.add(found, data.truth(index), data.pixel_sizes[index])

    def trivial_figures(self, data: Examples, measured: Metrics) -> dict[str, Any]:
        """Return the figures of the answer that there is no object."""
        metrics = self.new_metrics()
        for index in range(len(data)):
            truth = data.truth(index)
            metrics.add(np.zeros(truth.shape, dtype=np.int64), truth, data.pixel_sizes[index])
        return metrics.result()

    @classmethod
    def card_table(cls, best: dict[str, Any]) -> str:
        """Return the figures as a Markdown table; those of each class, where there are some."""
        if "per_class" not in best:
            return super().card_table(best)
        per_class = {**best["per_class"], "**all objects**": best}
        shown = [measure for measure in cls.figures if best.get(measure.name) is not None]
        rows = [
            [label, *(figure(found[measure.name], measure.form) for measure in shown)]
            for label, found in per_class.items()
        ]
        return table(["class", *(measure.heading for measure in shown)], rows)

    @staticmethod
    def report() -> ObjectReport:
        """Return what writes an overlay, the measures of each object, and their sizes."""
        return ObjectReport()


def classes_of(config: Any) -> dict[int, str]:
    """Return the names of the classes of objects in a configuration; empty where all are alike."""
    named = {int(index): str(label) for index, label in (config.id2label or {}).items()}
    return {} if set(named.values()) == UNNAMED else named
