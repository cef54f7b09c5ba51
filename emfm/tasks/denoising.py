"""Denoising: the micrograph as more electrons would have shown it."""

from emfm.tasks.restoration import EMForImageRestoration


class EMForDenoising(EMForImageRestoration):
    """Removes noise; background, contrast and size stay.

    `EMForDenoising.from_pretrained("unet4-rf200-w16")` takes trunk and head from pretraining.
    """

    purpose = "denoising"
    degradations = ("dose", "paper")
