"""Semantic segmentation: one class per pixel."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from emfm.config import EMFoundationConfig
from emfm.processing import IntensityStatistics
from emfm.tasks.losses import segmentation_loss
from emfm.tasks.metrics import SegmentationMetrics
from emfm.tasks.task import EMTaskModel


@dataclass
class SegmentationOutput(ModelOutput):
    """Output of EMForSemanticSegmentation.

    Attributes:
        loss: scalar, where labels were given.
        logits: (B, K, H, W), at the input's size.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None


class EMForSemanticSegmentation(EMTaskModel):
    """A pretrained trunk with a 1x1 convolution to K classes.

    `EMForSemanticSegmentation.from_pretrained("unet4-rf200", id2label={0: "background", 1: "particle"})` takes the
    trunk from pretraining and a new head; without `id2label` a new head has two classes.
    """

    head_name = "class_head"
    figure_of_merit = "dice"
    greater_is_better = True
    truth = "masks"

    def __init__(self, config: EMFoundationConfig):
        super().__init__(config)
        self.class_head = nn.Conv2d(self.trunk.channels[0], len(config.id2label or {}), 1)
        self.post_init()

    @property
    def classes(self) -> dict[int, str]:
        """Class index: class name."""
        return {int(index): str(label) for index, label in (self.config.id2label or {}).items()}

    @property
    def last_layer(self) -> nn.Conv2d:
        """The convolution to the classes."""
        return self.class_head

    def loss_of(self, outputs: Tensor, image: Tensor, labels: Tensor) -> Tensor:
        """Return cross-entropy + Dice of logits (B, K, H, W) and class indices (B, H, W)."""
        return segmentation_loss(outputs, labels, self.config.class_weights)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, **kwargs: Any) -> SegmentationOutput:
        """Classify every pixel.

        Args:
            pixel_values: (B, 1, H, W) network values, any H and W.
            labels: (B, H, W) int64 class indices; -100 takes no part in the loss, cross-entropy (with
                `config.class_weights`, where given) + Dice.
            **kwargs: accepted for transformers' Trainer and pipelines, not used.
        """
        logits = self.class_head(self.last_features(pixel_values))
        loss = None if labels is None else self.loss_of(logits, pixel_values, labels)
        return SegmentationOutput(loss=loss, logits=logits)

    @torch.no_grad()
    def maps(self, pixel_values: Tensor) -> Tensor:
        """Return class probabilities (B, K, H, W); probabilities of neighbouring tiles may be blended."""
        return self(pixel_values).logits.float().softmax(dim=1)

    def result(self, maps: np.ndarray, statistics: IntensityStatistics, dtype: Any) -> np.ndarray:
        """Return the class map (H, W) from probabilities (K, H, W): uint8, or uint16 for more than 256 classes."""
        return maps.argmax(axis=0).astype(np.uint8 if len(maps) <= 256 else np.uint16)

    def new_metrics(self) -> SegmentationMetrics:
        """Return empty counts for an evaluation; `add(class map, truth)` and `result()` fill and read them."""
        return SegmentationMetrics(self.classes)
