"""Super-resolution: 2 or 4 times as many pixels along each axis."""

from emfm.config import EMFoundationConfig
from emfm.data.restoration_pairs import SCALES
from emfm.errors import EMError
from emfm.tasks.restoration import EMForImageRestoration


class EMForSuperResolution(EMForImageRestoration):
    """Enlarges a micrograph by bicubic interpolation, then lets the generator sharpen it.

    The pixel size of the output is the input's divided by the scale.
    `EMForSuperResolution.from_pretrained("unet4-rf200-w16", scale=2)`; the scale is 2 unless it is given.
    """

    degradations = ("downsample",)

    def __init__(self, config: EMFoundationConfig):
        if config.scale == 1:  # a generator's own configuration
            config.scale = SCALES[0]
        if config.scale not in SCALES:
            raise EMError(f"scale is {config.scale}; super-resolution has 2 or 4")
        super().__init__(config)
