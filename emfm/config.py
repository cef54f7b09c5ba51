"""The configuration of a generator, and the names under which generators are known."""

import re

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from emfm.errors import EMError, nearest

# One solution per named receptive field (pixels); the bottleneck's dilation stands last.
UNET_DILATIONS: dict[str, tuple[int, ...]] = {
    "unet2-rf44": (1, 1, 1),
    "unet2-rf84": (2, 2, 2),
    "unet2-rf116": (2, 2, 4),
    "unet3-rf96": (1, 1, 1, 1),
    "unet3-rf176": (1, 2, 2, 2),
    "unet3-rf240": (1, 2, 2, 4),
    "unet4-rf200": (1, 1, 1, 1, 1),
    "unet4-rf360": (1, 1, 2, 2, 2),
    "unet4-rf424": (1, 1, 2, 2, 3),
}
# Generator name: timm's name.
HRNET_VARIANTS = {
    "hrnet-w18-small": "hrnet_w18_small",
    "hrnet-w18": "hrnet_w18",
    "hrnet-w32": "hrnet_w32",
    "hrnet-w48": "hrnet_w48",
}
GENERATORS = (*UNET_DILATIONS, *HRNET_VARIANTS)
NORMS = ("batch", "instance")
MAX_WIDTH = 256


@strict
class EMFoundationConfig(PreTrainedConfig):
    """Describes one generator: its trunk, and what its weights were trained for.

    Build it by name with `EMFoundationConfig.from_name("unet4-rf200-w16")`.
    """

    model_type = "emfm"

    # The generator's name, as the zoo and the command line know it.
    generator: str = "unet4-rf200"
    # Which trunk of `emfm.backbones.BACKBONES` builds it: "unet" or "hrnet".
    backbone: str = "unet"
    # U-Net: channels at full resolution, doubled per level; 4 in the paper.
    width: int = 4
    # U-Net: dilation of each level's convolutions, bottleneck last; they set the receptive field.
    dilations: list[int] | tuple[int, ...] = (1, 1, 1, 1, 1)
    # Normalisation layers of the U-Net: "instance" adapts to each micrograph's contrast, which fine-tuning on mixed
    # micrographs needs; with "batch" the result in tiles equals that of the whole image. An HRNet has "batch".
    norm: str = "instance"
    # HRNet: timm's name of the variant.
    variant: str | None = None
    # Pixel sizes in nm that the weights were trained at, smallest and largest; None if unknown.
    pixel_size_range: list[float] | tuple[float, float] | None = None
    # Recipe, cost and validation figures of the pretraining; None for random weights.
    pretraining: dict | None = None
    # Super-resolution: output pixels per input pixel and axis, 2 or 4.
    scale: int = 1
    # Restoration: whether the network predicts what is to be added to its input.
    residual: bool = False
    # Restoration: gain and offset from the units of the targets in training to those of their images.
    target_units: list[float] | tuple[float, float] | None = None
    # Segmentation: weight of each class in the cross-entropy; None for equal ones.
    class_weights: list[float] | tuple[float, ...] | None = None
    # Version of this file's layout, raised when a field changes its meaning.
    schema_version: int = 1

    def __post_init__(self, **kwargs):
        self.dilations = tuple(self.dilations)
        if self.id2label is not None:
            self.id2label = {int(key): value for key, value in self.id2label.items()}
            self.label2id = {value: key for key, value in self.id2label.items()}
        self._check()
        super().__post_init__(**kwargs)

    def _check(self):
        if self.backbone not in ("unet", "hrnet"):
            raise EMError(f"backbone is '{self.backbone}'; expected 'unet' or 'hrnet'")
        if self.norm not in NORMS:
            raise EMError(f"norm is '{self.norm}'; expected one of {', '.join(NORMS)}")
        if self.backbone == "hrnet" and (self.norm != "batch" or self.variant not in HRNET_VARIANTS.values()):
            raise EMError(
                f"an HRNet has norm 'batch' and a variant out of {', '.join(HRNET_VARIANTS.values())}; "
                f"got norm '{self.norm}', variant '{self.variant}'"
            )
        if not 1 <= self.width <= MAX_WIDTH:
            raise EMError(f"width is {self.width}; expected 1 to {MAX_WIDTH} channels at full resolution")
        if not 2 <= len(self.dilations) <= 7 or not all(1 <= dilation <= 16 for dilation in self.dilations):
            raise EMError(f"dilations are {self.dilations}; expected 2 to 7 levels, each 1 to 16")
        if self.scale not in (1, 2, 4):
            raise EMError(f"scale is {self.scale}; expected 1, or 2 or 4 for super-resolution")
        if self.class_weights is not None and (
            len(self.class_weights) != len(self.id2label or {}) or not all(w > 0 for w in self.class_weights)
        ):
            raise EMError(
                f"class_weights are {list(self.class_weights)}; expected a positive number for each of the "
                f"{len(self.id2label or {})} classes"
            )
        if self.schema_version != 1:
            raise EMError(
                f"this model has schema_version {self.schema_version}; this emfm reads version 1: update emfm"
            )

    @classmethod
    def from_name(cls, name: str, **fields) -> "EMFoundationConfig":
        """Return the configuration of a generator by its name.

        Args:
            name: `unet2-rf44|84|116`, `unet3-rf96|176|240`, `unet4-rf200|360|424`, with `-wN` appended for a
                width other than the paper's 4 (`unet4-rf200-w16`); or `hrnet-w18-small`, `hrnet-w18`,
                `hrnet-w32`, `hrnet-w48`.
            **fields: further fields of the configuration, such as `norm` or `id2label`.

        Raises:
            EMError: the name is not known; the message holds the nearest names.
        """
        if name in HRNET_VARIANTS:
            return cls(generator=name, backbone="hrnet", variant=HRNET_VARIANTS[name], **{"norm": "batch", **fields})
        match = re.fullmatch(r"(.+?)(?:-w([1-9]\d{0,3}))?", name)
        if match is None or match[1] not in UNET_DILATIONS:
            raise EMError(f"'{name}' is not a generator; {nearest(name, GENERATORS)} U-Nets take a width, as in -w16")
        width = int(match[2] or 4)
        return cls(generator=name, backbone="unet", width=width, dilations=UNET_DILATIONS[match[1]], **fields)
