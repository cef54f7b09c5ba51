"""Super-resolution: 2 or 4 times as many pixels along each axis."""

from dataclasses import replace
from typing import Any

from emfm.config import EMFoundationConfig
from emfm.data.examples import Examples
from emfm.data.restoration_pairs import SCALES
from emfm.errors import EMError
from emfm.tasks.restoration import RESTORED, EMForImageRestoration
from emfm.tasks.task import ModelChoices


class EMForSuperResolution(EMForImageRestoration):
    """Enlarges a micrograph by bicubic interpolation, then lets the generator sharpen it.

    The output's pixel size is the input's divided by `scale`, which is 2 unless it is given, as in
    `EMForSuperResolution.from_pretrained("unet4-rf200-w16", scale=4)`.
    """

    purpose = "super-resolution, {scale} times as many pixels a side"
    degradations = ("downsample",)
    own_settings = ("residual", "degrade", "scale")
    card = replace(
        RESTORED, output="the enlarged micrograph, in the input's units and dtype (float32 for few grey levels)"
    )

    def __init__(self, config: EMFoundationConfig):
        if config.scale == 1:  # a generator's own configuration
            config.scale = SCALES[0]
        if config.scale not in SCALES:
            raise EMError(f"scale is {config.scale}; super-resolution has 2 or 4")
        super().__init__(config)

    @classmethod
    def fields_for(cls, data: Examples, choices: ModelChoices) -> dict[str, Any]:
        """Return the scale of the data, and whether the network adds to the enlarged input."""
        if data.scale == 1:
            raise EMError(f"the targets of {choices.data} have the size of their images: nothing to enlarge")
        return {**super().fields_for(data, choices), "scale": data.scale}

    @classmethod
    def adds_to_input(cls, model: str | None) -> bool:
        """Return True: the input, enlarged first, measured best as a start."""
        return True
