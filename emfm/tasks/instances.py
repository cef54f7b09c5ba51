"""Instance segmentation: which pixels belong to which object.

One network says for every pixel whether it is in an object, whether it is at its boundary, and how
far it is from there. A watershed grows the objects from their middles: `emfm.inference.objects`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import ModelOutput, can_return_tuple

from emfm.config import EMFoundationConfig
from emfm.data.augmentation import Augmentation, sample, sample_nearest
from emfm.data.croppers import Key, cut, dihedral, part_around, random_corner
from emfm.data.datasets import load_em_dataset
from emfm.data.examples import Examples
from emfm.data.labelled_folder import truths_of
from emfm.data.objects import BOUNDARY, INSIDE, LabelledObjects, object_map, objects_of_masks
from emfm.data.sources import is_dataset
from emfm.errors import EMError
from emfm.io.reading import FileChoice
from emfm.processing import EMImageProcessor, IntensityStatistics
from emfm.reports.objects import ObjectReport
from emfm.tasks.instance_metrics import INSTANCE_FIGURES, InstanceMetrics
from emfm.tasks.losses import entropy
from emfm.tasks.metrics import Metrics
from emfm.tasks.task import CardWords, EMTaskModel, ExportWords, MissingTruth
from emfm.tasks.watershed import packed

# What the network puts out, in this order.
OUTPUTS = ("foreground", "boundary", "distance")
# Boundaries are few: each of their pixels weighs so much in the cross-entropy.
BOUNDARY_WEIGHT = 3.0
# How often a crop is centred on a pixel of an object.
OBJECT_CENTRED = 0.7
# A micrograph (H, W), its object map, its statistics, and pixels of its objects (flat).
PreparedObjects = tuple[np.ndarray, np.ndarray, IntensityStatistics, np.ndarray]
MOST_PLACES = 10_000


@dataclass(frozen=True)
class ObjectCropper:
    """Cuts crops with object maps, most of them around a pixel of an object."""

    processor: EMImageProcessor
    side: int  # of a crop in pixels
    augmentation: Augmentation

    def prepare(self, image: np.ndarray, truth: np.ndarray) -> PreparedObjects:
        """Measure a micrograph and its objects."""
        target = object_map(truth)
        places = np.flatnonzero(target > 0)
        if len(places) > MOST_PLACES:
            places = np.random.default_rng(0).choice(places, MOST_PLACES, replace=False)
        return image, target, self.processor.statistics(image), places

    def crop(self, prepared: PreparedObjects, key: Key) -> dict[str, Tensor]:
        """Cut the crop that the key (seed, epoch, index) decides."""
        image, target, statistics, places = prepared
        rng = np.random.default_rng(key)
        if len(places) and rng.random() < OBJECT_CENTRED:
            middle = np.array(divmod(int(rng.choice(places)), image.shape[1])) - self.side // 2
            room = np.maximum(0, np.array(image.shape) - self.side)
            top, left = (int(place) for place in np.clip(middle, 0, room))
        else:
            top, left = random_corner(rng, image, self.side)
        symmetry = int(rng.integers(8))
        change = self.augmentation.draw(rng)
        view = self.augmentation.view(rng, (top + self.side // 2, left + self.side // 2), self.side)
        if view is None:
            values, labels = (cut(array, top, left, self.side) for array in (image, target))
        else:
            (part, corner), (truth, _) = part_around(image, view), part_around(target, view)
            values, labels = sample(part, view - corner), sample_nearest(truth, view - corner)
            labels = np.where(np.isnan(values), np.float32(np.nan), labels)
        values = dihedral(self.processor.normalize(values, statistics), symmetry)
        return {
            "pixel_values": torch.from_numpy(change(self.augmentation.degrade(rng, values)))[None],
            "labels": torch.from_numpy(dihedral(labels, symmetry).astype(np.float32))[None],
        }


@dataclass
class InstanceOutput(ModelOutput):
    """Output of EMForInstanceSegmentation."""

    loss: Tensor | None = None  # scalar, where labels were given
    logits: Tensor | None = None  # (B, 3, H, W): foreground, boundary (logits), distance
    hidden_states: tuple[Tensor, ...] | None = None  # `features`, where they were asked for


class EMForInstanceSegmentation(EMTaskModel):
    """A pretrained trunk with a 1x1 convolution to foreground, boundary and distance."""

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
    )
    exported = ExportWords(
        tag="instance-segmentation",
        output="logits",
        finished="logits",
        channel="foreground, boundary, distance",
        description="logits of foreground and boundary, and the distance to the boundary",
        meaning="a logit above 0 for more likely than not; the distance as a share of the object's largest",
        metric="average precision of the objects, after a seeded watershed",
    )

    def __init__(self, config: EMFoundationConfig):
        super().__init__(config)
        self.object_head = nn.Conv2d(self.trunk.channels[0], len(OUTPUTS), 1)
        self.post_init()

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
        """Load a split: numbers of objects (`instances/`), else the connected parts of masks."""
        if degrade is not None:
            raise EMError(f"--degrade '{degrade}' makes pairs for restoration; instances need {cls.truth}/ or masks/")
        folder = Path(source)
        from_masks = not is_dataset(str(source)) and folder.is_dir() and "instances" not in truths_of(folder)
        if from_masks and "masks" in truths_of(folder):
            return objects_of_masks(load_em_dataset(source, split, truth="masks", choice=choice))
        return load_em_dataset(source, split, None, None, cls.truth, streaming, choice)

    def loss_of(self, outputs: Tensor, image: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of outputs (B, 3, H, W) for object maps (B, 1, H, W), NaN unknown."""
        target = labels[:, 0]
        known = ~torch.isnan(target)
        if not known.any():
            return outputs.sum() * 0.0
        foreground, boundary, distance = (part[known] for part in outputs.float().unbind(1))
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
            + 2 * F.l1_loss(distance, share * inside)
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
            labels: (B, 1, H, W) what `emfm.data.objects.object_map` makes of numbered objects.
            output_hidden_states: return the `features`, too; False by default.
            **kwargs: accepted for transformers' Trainer and pipelines, not used.
        """
        features, hidden_states = self._seen(pixel_values, output_hidden_states)
        logits = self.object_head(features)
        loss = None if labels is None else self.loss_of(logits, pixel_values, labels)
        return InstanceOutput(loss, logits, hidden_states)

    @staticmethod
    def finished(outputs: Tensor) -> Tensor:
        """Return probabilities of foreground and boundary, and distances, each 0 to 1."""
        return torch.cat([outputs[:, :2].sigmoid(), outputs[:, 2:].clamp(0, 1)], dim=1)

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
        """Return the three maps (3, H, W) in one of uint32: the watershed makes objects of it."""
        return packed(maps)

    def missing_truth(self, data: Examples) -> MissingTruth:
        """Return whether there is no object, and micrographs of which nothing is known."""
        assert isinstance(data, LabelledObjects)
        unknown = [name for ids, name in zip(data.ids, data.names, strict=True) if (ids < 0).all()]
        empty = not any((ids > 0).any() for ids in data.ids)
        return MissingTruth("no object is marked" if empty else None, unknown, "every pixel is unknown", [])

    def cropper(self, data: Examples, side: int, augmentation: Augmentation) -> ObjectCropper:
        """Return what cuts crops with object maps."""
        return ObjectCropper(self.processor, side, augmentation)

    def new_metrics(self) -> InstanceMetrics:
        """Return empty counts of an evaluation, which `add(numbers, truth)` fills."""
        return InstanceMetrics()

    def trivial_figures(self, data: Examples, measured: Metrics) -> dict[str, Any]:
        """Return the figures of the answer that there is no object."""
        metrics = self.new_metrics()
        for index in range(len(data)):
            metrics.add(np.zeros(data.truth(index).shape, dtype=np.int64), data.truth(index))
        return metrics.result()

    @staticmethod
    def report() -> ObjectReport:
        """Return what writes an overlay, the measures of each object, and their sizes."""
        return ObjectReport()
