"""The configuration of a generator, and the names under which generators are known."""

import math
import re
from dataclasses import fields as fields_of
from typing import Any

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from emfm.backbones import BACKBONES, generator_fields
from emfm.class_names import class_name
from emfm.defaults import DEFAULT_GENERATOR
from emfm.errors import EMError
from emfm.migrations import SCHEMA_VERSION, migrate

# What transformers writes or adds besides the fields.
BESIDES = ("model_type", "torch_dtype", "_commit_hash", "_name_or_path", "name_or_path", "num_labels", "use_cache")
USUAL_CLASSES = 2  # where nobody names them, as in transformers
MAX_CLASSES = 65_536  # a class map is uint16 at most


def _known(cls: type) -> set[str]:
    """Return what a config.json may hold."""
    return {field.name for field in fields_of(cls)} | set(BESIDES)


def _with_given(content: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a config.json with fields of the user's in their places.

    They are taken out of `given`, and then checked like all others. `label2id` and `num_labels`
    say what `id2label` does, which stands above them.
    """
    names = [*EMFoundationConfig.__annotations__, "id2label"]
    fields = {name: given.pop(name) for name in names if name in given}
    for name in ("class_weights", "class_offsets"):
        if isinstance(fields.get(name), (list, tuple)):
            fields[name] = [float(w) if isinstance(w, int) else w for w in fields[name]]
    label2id, count = given.pop("label2id", None), given.pop("num_labels", None)
    names_given = fields.get("id2label")
    if names_given is not None and label2id is not None:
        turned = {int(index): label for label, index in label2id.items()}
        if turned != {int(index): label for index, label in names_given.items()}:
            raise EMError(f"label2id is {label2id}, but id2label is {names_given}: give one of them")
    if names_given is not None and count not in (None, len(names_given)):
        raise EMError(f"num_labels is {count}, but id2label has {len(names_given)} classes: give one of them")
    if "id2label" not in fields and label2id is not None:
        fields["id2label"] = {index: label for label, index in label2id.items()}
    if "id2label" not in fields and count is not None and count != len(content.get("id2label") or {}):
        fields["id2label"] = {index: f"class {index}" for index in range(count)}
    if "id2label" not in fields:
        return {**content, **fields}
    for name in ("class_weights", "class_offsets"):
        if name not in fields and len(fields["id2label"] or {}) != len(content.get(name) or ()):
            fields[name] = None  # those of other classes
    return {**{key: value for key, value in content.items() if key != "label2id"}, **fields}


@strict
class EMFoundationConfig(PreTrainedConfig):
    """Describes one generator: its trunk, and what its weights were trained for.

    Build it by name with `EMFoundationConfig.from_name("unet4-rf200-w16")`.
    """

    model_type = "emfm"

    # The generator's name, as the zoo and the command line know it.
    generator: str = DEFAULT_GENERATOR
    # A key of `emfm.backbones.BACKBONES`; it decides which of the next four are needed.
    backbone: str = generator_fields(DEFAULT_GENERATOR)["backbone"]
    # Channels at full resolution, doubled per level; 4 in the paper.
    width: int = 4
    # Dilation of each level's convolutions, bottleneck last; they set the receptive field.
    dilations: list[int] | tuple[int, ...] = (1, 1, 1, 1, 1)
    # Normalisation layers: "instance" adapts to each micrograph's contrast, which fine-tuning on
    # mixed micrographs needs; with "batch" the result in tiles equals that of the whole image.
    norm: str = "instance"
    # What the library calls the architecture that is taken from it, such as timm.
    variant: str | None = None
    # Pixel sizes in nm that the weights were trained at, smallest and largest; None if unknown.
    pixel_size_range: list[float] | tuple[float, float] | None = None
    # Recipe, cost and validation figures of the pretraining; None for random weights.
    pretraining: dict | None = None
    # Super-resolution: output pixels per input pixel and axis, 2 or 4.
    scale: int = 1
    # Restoration: whether the network predicts what is to be added to its input.
    residual: bool = False
    # Restoration: gain and offset from the units of the training targets to those of the images.
    target_units: list[float] | tuple[float, float] | None = None
    # Segmentation: whether the head sees the features of all scales, not the finest alone.
    all_scales: bool = False
    # Segmentation: whether a head for all scales sees the responses of hand-made filters, too.
    filters: bool = False
    # Segmentation: weight of each class in the cross-entropy; None for equal ones.
    class_weights: list[float] | tuple[float, ...] | None = None
    # Segmentation: added to the logits of each class before they become probabilities, to take back
    # what class weights did to them; None for nothing.
    class_offsets: list[float] | tuple[float, ...] | None = None
    # Segmentation: then they are divided by this.
    temperature: float = 1.0
    # Instances: the network sees micrographs scaled down so many times.
    shrink: int = 1
    # Instances: thresholds of the watershed, as in `emfm.tasks.separation.Separation`.
    separation: dict | None = None
    # Version of this file's layout, raised when a field changes its meaning.
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self, **kwargs):
        self.dilations = tuple(self.dilations)
        if self.id2label is not None:
            self.id2label = {int(key): class_name(label, f"class {key}") for key, label in self.id2label.items()}
            self.label2id = {value: key for key, value in self.id2label.items()}
            if len(self.label2id) < len(self.id2label):
                raise EMError(f"id2label is {self.id2label}; expected a name of its own for each class")
        self._check()
        super().__post_init__(**kwargs)
        self.architectures = self.architectures or []  # AutoModel.from_config goes through them

    def _check(self):
        if self.backbone not in BACKBONES:
            raise EMError(f"backbone is '{self.backbone}'; expected one of {', '.join(BACKBONES)}")
        trunk = BACKBONES[self.backbone]
        if self.norm not in trunk.norms:
            raise EMError(f"norm is '{self.norm}'; the backbone '{self.backbone}' has {' or '.join(trunk.norms)}")
        trunk.check(self)
        if self.scale not in (1, 2, 4):
            raise EMError(f"scale is {self.scale}; expected 1, or 2 or 4 for super-resolution")
        if self.filters and not self.all_scales:
            raise EMError("filters are for a head that sees all scales: set all_scales, too")
        weights, classes = self.class_weights, len(self.id2label) if self.id2label else USUAL_CLASSES
        if weights is not None and (len(weights) != classes or not all(0 < w < math.inf for w in weights)):
            expected = f"a positive number for each of the {classes} classes"
            raise EMError(f"class_weights are {list(weights)}; expected {expected}")
        offsets = self.class_offsets
        if offsets is not None and (len(offsets) != classes or not all(map(math.isfinite, offsets))):
            raise EMError(f"class_offsets are {list(offsets)}; expected a number for each of the {classes} classes")
        if not 0 < self.temperature < math.inf:
            raise EMError(f"temperature is {self.temperature}; expected a number above 0")
        if self.shrink not in (1, 2, 4):
            raise EMError(f"shrink is {self.shrink}; expected 1, 2 or 4")
        if self.schema_version != SCHEMA_VERSION:
            raise EMError(f"schema_version is {self.schema_version}; this emfm writes {SCHEMA_VERSION}: update emfm")
        if not re.fullmatch(r"[a-z0-9-]{1,64}", self.generator):
            raise EMError(f"generator is {self.generator!r}; expected a name of small letters, digits and hyphens")
        labels = self.id2label or {}
        if sorted(labels) != list(range(len(labels))) or len(labels) > MAX_CLASSES:
            raise EMError(f"id2label has the indices {sorted(labels)[:10]}; expected 0 to {len(labels) - 1}, each once")

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any):
        """Build the configuration from the content of a config.json of this or an earlier version.

        Fields that are given take the place of those read, as in transformers.

        Raises:
            EMError: it is not one of emfm's, a field is unknown, or a value does not suit it.
        """
        asked = set(kwargs)
        config_dict = _with_given(config_dict, kwargs)
        given = sorted(asked - set(kwargs))
        kind = config_dict.get("model_type")
        if kind != cls.model_type:
            raise EMError(f"config.json says model_type {kind!r}; expected '{cls.model_type}'")
        unknown = sorted(config_dict.keys() - _known(cls))
        if unknown:
            found = f"config.json holds {', '.join(unknown)}, which this emfm does not know"
            raise EMError(f"{found}: take it out, or update emfm")
        try:
            return super().from_dict(migrate(dict(config_dict)), **kwargs)
        except (StrictDataclassError, TypeError, AttributeError) as error:
            what = f"{', '.join(given)}: not of the right kind" if given else "config.json is damaged"
            raise EMError(f"{what}: {' '.join(str(error).split())}") from error

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Write config.json into a folder.

        Raises:
            EMError: something was added that loading refuses.
        """
        self.check_known()
        super().save_pretrained(save_directory, *args, **kwargs)

    def check_known(self) -> None:
        """Raise an error if config.json would hold what loading refuses."""
        unknown = sorted(self.to_diff_dict().keys() - _known(type(self)) - {"transformers_version"})
        if unknown:
            raise EMError(f"the configuration holds {', '.join(unknown)}, which no config.json of emfm has: delete it")

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> "EMFoundationConfig":
        """Return this configuration: transformers would take `generator` for one of a decoder."""
        return self

    @classmethod
    def from_name(cls, name: str, **fields) -> "EMFoundationConfig":
        """Return the configuration of a generator by its name.

        Args:
            name: `unet2-rf44|84|116`, `unet3-rf96|176|240`, `unet4-rf200|360|424`, with `-wN` for
                another width than 4 (`unet4-rf200-w16`); `hrnet-w18-small`, `hrnet-w18`,
                `hrnet-w32`, `hrnet-w48`; or any other that a backbone knows.
            **fields: further fields of the configuration, such as `norm` or `id2label`.

        Raises:
            EMError: the name is not known; the message holds the nearest names.
        """
        return cls(generator=name, **{**generator_fields(name), **fields})
