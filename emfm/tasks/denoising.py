"""Denoising: the micrograph as more electrons would have shown it."""

from emfm.data.augmentation import Augmentation
from emfm.data.croppers import Cropper
from emfm.data.examples import CleanMicrographs, Examples, PairedMicrographs
from emfm.data.noisy import BlindSpotCropper, NoisyMicrographs
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

    def cropper(self, data: Examples, side: int, augmentation: Augmentation) -> Cropper:
        """Return what cuts crops of pairs, or of noisy micrographs, some pixels of them hidden."""
        if isinstance(data, NoisyMicrographs):
            return BlindSpotCropper(self.processor, side, augmentation, data.noise, data.length)
        return super().cropper(data, side, augmentation)

    def missing_truth(self, data: Examples) -> MissingTruth:
        """Return targets that nothing can be learnt from; noisy micrographs need none."""
        return MissingTruth(None, [], "", []) if isinstance(data, NoisyMicrographs) else super().missing_truth(data)
