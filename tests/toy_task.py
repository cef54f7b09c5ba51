"""A task in one file: one value a pixel, such as a thickness, learnt from targets in units of their own."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emfm.data.augmentation import Augmentation
from emfm.data.croppers import PairCropper
from emfm.modeling import ImageOutput
from emfm.tasks.metrics import Figure
from emfm.tasks.task import CardWords, EMTaskModel, ExportWords


class ValueCropper(PairCropper):
    def labels(self, target, statistics, change):
        return target.astype(np.float32)


class SquaredErrors:
    def __init__(self):
        self.totals = {name: torch.zeros((), dtype=torch.float64) for name in ("squares", "images")}

    def add(self, output: np.ndarray, truth: np.ndarray) -> None:
        self.totals["squares"] += float(np.mean((output - truth) ** 2))
        self.totals["images"] += 1

    def result(self) -> dict[str, Any]:
        images = int(self.totals["images"])
        return {"rmse": float(self.totals["squares"] / max(images, 1)) ** 0.5, "n": images}


class EMForRegression(EMTaskModel):
    head_name, purpose = "value_head", "regression of one value a pixel"
    figures, figure_of_merit, greater_is_better = (Figure("rmse", "RMSE", ".3f"),), "rmse", False
    card = CardWords(output="one value per pixel, float32")
    exported = ExportWords("regression", "values", "values", "value", "one value a pixel", "a value", "the RMSE")
    new_metrics, trivial_answer = staticmethod(SquaredErrors), staticmethod(np.zeros_like)

    def __init__(self, config):
        super().__init__(config)
        self.value_head = nn.Conv2d(self.trunk.channels[0], 1, 1)
        self.post_init()

    def loss_of(self, outputs: Tensor, image: Tensor, labels: Tensor) -> Tensor:
        return F.mse_loss(outputs.float(), labels)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, **kwargs: Any) -> ImageOutput:
        values = self.value_head(self.last_features(pixel_values))
        return ImageOutput(None if labels is None else self.loss_of(values, pixel_values, labels), values)

    def result(self, maps: np.ndarray, statistics: Any, dtype: Any) -> np.ndarray:
        return maps[0]

    def cropper(self, data: Any, side: int, augmentation: Augmentation) -> ValueCropper:
        return ValueCropper(self.processor, side, augmentation)
