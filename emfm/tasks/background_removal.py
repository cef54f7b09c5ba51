"""Noise and background removal: only the structure stays."""

from emfm.tasks.restoration import EMForImageRestoration


class EMForBackgroundRemoval(EMForImageRestoration):
    """Removes noise and a slowly varying background, such as uneven support or charging.

    Choose a generator that sees further than the background varies: else it looks like structure.
    """

    purpose = "noise and background removal"
    degradations = ("background",)
