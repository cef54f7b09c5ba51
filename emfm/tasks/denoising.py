"""Denoising: the micrograph as more electrons would have shown it."""

from torch import Tensor

from emfm.config import EMFoundationConfig
from emfm.data.augmentation import Augmentation
from emfm.data.croppers import Cropper
from emfm.data.examples import CleanMicrographs, Examples, PairedMicrographs
from emfm.data.noisy import BlindSpotCropper, NoisyMicrographs, Repeats
from emfm.data.streamed_examples import StreamedExamples
from emfm.tasks.losses import noisy_target_loss
from emfm.tasks.restoration import EMForImageRestoration
from emfm.tasks.task import MissingTruth


class EMForDenoising(EMForImageRestoration):
    """Removes noise; background, contrast and size stay.

    `EMForDenoising.from_pretrained("unet4-rf200-w16")` takes trunk and head from pretraining.
    """

    purpose = "denoising"
    degradations = ("dose", "paper")
    own_settings = ("residual", "degrade", "dose", "self_supervised", "noise")
    takes = (PairedMicrographs, CleanMicrographs, NoisyMicrographs)

    def __init__(self, config: EMFoundationConfig):
        super().__init__(config)
        self.noisy_targets = False  # whether what it learns from has noise of its own

    def learn_units(self, data: Examples | StreamedExamples) -> None:
        """Note whether targets are noisy; repeats and hidden pixels have their images' units."""
        self.noisy_targets = isinstance(data.like, (NoisyMicrographs, Repeats))
        if self.noisy_targets:
            self.config.target_units = None
        else:
            super().learn_units(data)

    def image_loss(self, image: Tensor, target: Tensor) -> Tensor:
        """Return L1 + L2 of restored images (B, 1, H, W); L2 alone where targets are noisy."""
        return noisy_target_loss(image, target) if self.noisy_targets else super().image_loss(image, target)

    def cropper(self, data: Examples, side: int, augmentation: Augmentation) -> Cropper:
        """Return what cuts crops of pairs, or of noisy micrographs, some pixels of them hidden."""
        if isinstance(data, NoisyMicrographs):
            return BlindSpotCropper(self.processor, side, augmentation, data.noise, data.length)
        return super().cropper(data, side, augmentation)

    def missing_truth(self, data: Examples) -> MissingTruth:
        """Return targets that nothing can be learnt from; noisy micrographs need none."""
        return MissingTruth(None, [], "", []) if isinstance(data, NoisyMicrographs) else super().missing_truth(data)
