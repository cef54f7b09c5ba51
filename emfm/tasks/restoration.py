"""What the restoration tasks share: a generator that makes a better image of the same place."""

from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import can_return_tuple

from emfm.backbones import BACKBONES
from emfm.config import EMFoundationConfig
from emfm.data.augmentation import Augmentation
from emfm.data.croppers import Cropper, DegradingCropper, PairCropper
from emfm.data.examples import CleanMicrographs, Examples, PairedMicrographs
from emfm.data.streamed_examples import StreamedExamples
from emfm.errors import EMError
from emfm.loading.names import model_folder
from emfm.modeling import EMRestoringModel, ImageOutput
from emfm.processing import EMImageProcessor
from emfm.tasks.losses import restoration_loss
from emfm.tasks.metrics import RESTORATION_FIGURES, RestorationMetrics, is_constant
from emfm.tasks.task import CardWords, EMTaskModel, MissingTruth, ModelChoices

# Network values that pass uncut: heavy particles are far above the 99th percentile around them.
CLIP = 30.0
# Bicubic interpolation takes the two nearest pixels on each side.
BICUBIC_REACH = 2
# Of a stream of pairs so many tell the units of the targets.
UNIT_SAMPLE = 32
RESTORED = CardWords(
    output="the restored micrograph, in the input's units and dtype (float32 for few grey levels)",
    limits=("The output is a plausible image: check on known structures before you measure on it.",),
)


class EMForImageRestoration(EMRestoringModel, EMTaskModel):
    """A pretrained generator, trunk and head, that is trained on pairs of micrographs and targets.

    Input and output are network values of the input's own statistics, so the output comes back in
    the micrograph's units and dtype. With `config.residual` the head predicts, for every pixel,
    what is added to the input and how much of the input stays. If it is not fitted before the first
    step, it starts from zeros, that is from the input. Otherwise it draws the image itself.
    """

    purpose = "restoration of damaged micrographs (a pretrained generator)"
    figures = RESTORATION_FIGURES
    figure_of_merit = "l1"
    greater_is_better = False
    own_settings: ClassVar[tuple[str, ...]] = ("residual", "degrade", "dose")
    card = RESTORED

    def __init__(self, config: EMFoundationConfig):
        super().__init__(config)
        self.processor = self.fitting(self.processor)
        self.post_init()

    def fitting(self, processor: EMImageProcessor) -> EMImageProcessor:
        """Return the processor with a limit above bright structures: what it cuts is lost."""
        return EMImageProcessor(processor.low, processor.high, max(processor.clip, CLIP))

    @property
    def scale(self) -> int:
        """Output pixels per input pixel and axis."""
        return self.config.scale

    @property
    def reach(self) -> int:
        """How many input pixels an output pixel can see: generator's reach plus interpolation's."""
        return super().reach if self.scale == 1 else -(-super().reach // self.scale) + BICUBIC_REACH

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> ImageOutput:
        """Restore micrographs.

        Args:
            pixel_values: (B, 1, H, W) network values, any H and W.
            labels: (B, 1, H * scale, W * scale) targets in the same units, for an L1 + L2 loss.
            output_hidden_states: return the `features` of the enlarged input, too.
            **kwargs: accepted for transformers' Trainer and pipelines, not used.
        """
        image = self.enlarged(pixel_values)
        features, hidden_states = self._seen(image, output_hidden_states)
        reconstruction = self.restored_from(features, image)
        loss = None if labels is None else self.image_loss(reconstruction, labels)
        return ImageOutput(loss, reconstruction, hidden_states)

    @property
    def last_layer(self) -> nn.Conv2d:
        """The convolution to the image, or to what is added to the input and how much stays."""
        return self.restoring_head.out

    def last_features(self, image: Tensor) -> Tensor:
        """Return the last layer's input (B, C, H, W) for an enlarged image (B, 1, H, W)."""
        return self.restoring_head.read(self._full_resolution(image), image)

    def loss_of(self, outputs: Tensor, image: Tensor, labels: Tensor) -> Tensor:
        """Return L1 + L2 of the image that outputs of the last layer make (B, 1, H, W)."""
        return self.image_loss(self.restoring_head.restored(outputs, image), labels)

    def image_loss(self, image: Tensor, target: Tensor) -> Tensor:
        """Return L1 + L2 of restored images (B, 1, H, W)."""
        return restoration_loss(image, target)

    def enlarged(self, pixel_values: Tensor) -> Tensor:
        """Return the input enlarged to (B, 1, H * scale, W * scale), by bicubic interpolation."""
        if self.config.scale == 1:
            return pixel_values
        return F.interpolate(pixel_values, scale_factor=self.config.scale, mode="bicubic", align_corners=False)

    def new_metrics(self) -> RestorationMetrics:
        """Return empty sums of an evaluation, which `add(output, target)` fills."""
        return RestorationMetrics()

    def trivial_answer(self, image: np.ndarray) -> np.ndarray:
        """Return the answer without a network: the micrograph (H, W), enlarged if it must be."""
        if self.config.scale == 1:
            return image
        return self.enlarged(torch.from_numpy(np.asarray(image, dtype=np.float64))[None, None])[0, 0].numpy()

    def missing_truth(self, data: Examples) -> MissingTruth:
        """Return targets that are constant: they have no contrast to learn or to measure by."""
        constant = [name for index, name in enumerate(data.names) if is_constant(data.truth(index))]
        nothing = "every target is constant" if len(constant) == len(data) else None
        return MissingTruth(nothing, constant, "the target is constant", [])

    @classmethod
    def fields_for(cls, data: Examples, choices: ModelChoices) -> dict[str, Any]:
        """Return whether the network adds to its input; `adds_to_input` decides if nobody says."""
        adds = cls.adds_to_input(choices.model) if choices.residual is None else choices.residual
        return {**super().fields_for(data, choices), "residual": adds}

    @classmethod
    def adds_to_input(cls, model: str | None) -> bool:
        """Return whether predicting the difference to the input measured best.

        A pretrained trunk with a path at full resolution goes on drawing the image itself, as it
        learnt to: without such a path that takes far longer. A model that was fine-tuned to add to
        its input goes on so. Random weights (None) add to it, too. See docs/finetuning.md.
        """
        if model is None:
            return True
        config = EMFoundationConfig.from_pretrained(model_folder(model))
        return config.residual or not BACKBONES[config.backbone].full_resolution

    @classmethod
    def why_new_head(cls, source: type[EMTaskModel], config: EMFoundationConfig, fields: dict[str, Any]) -> str | None:
        """Return why a fine-tuned head does not serve: it makes no image, or makes it otherwise."""
        if not issubclass(source, EMForImageRestoration):
            return super().why_new_head(source, config, fields)
        if config.residual != fields["residual"]:
            return "draws the image itself" if fields["residual"] else "adds to its input"
        return None

    def learn_units(self, data: Examples | StreamedExamples) -> None:
        """Note how the targets' units relate to the images'; made pairs have the images' own."""
        if isinstance(data.like, PairedMicrographs):
            sample = data.take(UNIT_SAMPLE) if isinstance(data, StreamedExamples) else data
            assert isinstance(sample, PairedMicrographs)
            units = sample.target_units()
            self.config.target_units = None if units == (1.0, 0.0) else list(units)

    def cropper(self, data: Examples, side: int, augmentation: Augmentation) -> Cropper:
        """Return what cuts crops of pairs, or of clean micrographs, which it damages.

        Raises:
            EMError: the side does not fit the scale.
        """
        if side % data.scale:
            raise EMError(f"a crop of {side} px does not fit the scale {data.scale}: use a multiple of {data.scale}")
        if isinstance(data, CleanMicrographs):
            return DegradingCropper(self.processor, side, augmentation, data.degradation)
        gain, offset = self.config.target_units or (1.0, 0.0)
        return PairCropper(self.processor, side, augmentation, data.scale, (gain, offset))

    def truth_of(self, data: Examples, index: int) -> np.ndarray:
        """Return the target of micrograph `index`, in the image's units."""
        if self.config.target_units is None:
            return data.truth(index)
        gain, offset = self.config.target_units
        return gain * data.truth(index).astype(np.float64) + offset
