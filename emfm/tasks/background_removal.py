"""Noise and background removal: only the structure stays."""

from emfm.tasks.restoration import EMForImageRestoration


class EMForBackgroundRemoval(EMForImageRestoration):
    """Removes noise and a slowly varying background, such as uneven support or charging.

    A background wider than the receptive field cannot be told from the structure: choose a
    generator with a wide one.
    """

    purpose = "noise and background removal"
    degradations = ("background",)
