"""The generator EMFoundation, and what all models share: padding, strict loading, processor."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import convert_file_size_to_int

from emfm.backbones import BACKBONES
from emfm.backbones.restoring_heads import ImageHead, ResidualHead
from emfm.backbones.trunk import Trunk
from emfm.config import EMFoundationConfig
from emfm.errors import EMError
from emfm.loading.domain import Domain, read_domain, write_domain
from emfm.loading.names import HUB_ARGUMENTS, model_folder
from emfm.loading.strict import check_weights, load_with_adapter, read_config, read_processor
from emfm.processing import EMImageProcessor, IntensityStatistics

logger = logging.getLogger(__name__)


@dataclass
class ImageOutput(ModelOutput):
    """Output of the models that map an image to an image."""

    loss: Tensor | None = None  # scalar, where labels were given
    reconstruction: Tensor | None = None  # (B, 1, H, W) in network values
    hidden_states: tuple[Tensor, ...] | None = None  # `features`, where they were asked for


@contextmanager
def _quietly() -> Iterator[None]:
    """Hide transformers' bar, and its report of what `check_weights` compared before."""
    shown, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity(max(level, transformers_logging.ERROR))
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if shown:
            transformers_logging.enable_progress_bar()


def _check_saving(model: "EMPreTrainedModel", asked: dict[str, Any]) -> None:
    """Refuse what would be written and not be read, or be pushed without processor and card."""
    if isinstance(model.config, EMFoundationConfig):
        model.config.check_known()
    if asked.get("push_to_hub"):
        raise EMError("push_to_hub=True would push without a card: call push_to_hub('owner/name') of the model")
    if asked.get("variant") is not None:
        raise EMError(f"variant is '{asked['variant']}'; emfm reads model.safetensors alone: leave it out")
    limit = asked.get("max_shard_size")
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if limit is not None and size > (convert_file_size_to_int(limit) if isinstance(limit, str) else limit):
        raise EMError(f"max_shard_size is {limit}, the weights are {size} bytes: emfm reads one file, leave it out")


def _look_at_head(model: "EMPreTrainedModel", saved_by: list[str], info: dict[str, Any]) -> None:
    """Note whether a loaded model's head is new, and say so where that may not be meant."""
    cls, name = type(model).__name__, model.name_or_path
    mismatched = [key for key, *_ in info["mismatched_keys"]]
    if mismatched:
        logger.warning("%s was saved with a head of another shape: the head is new", name)
    if saved_by and not {cls, EMFoundation.__name__}.intersection(saved_by):
        logger.warning("%s was saved by %s: the trunk is its own, the head is new", name, ", ".join(saved_by))
    missing = [*info["missing_keys"], *mismatched]
    model.new_head = cls not in saved_by or any(key.startswith(model.head_name) for key in missing)


class EMPreTrainedModel(PreTrainedModel):
    """A trunk and a head. A trunk of one class loads into every other; only the head may be new.

    Attributes:
        processor: the EMImageProcessor that belongs to the weights; saved and loaded with them.
        new_head: whether the head is random or of another class, so not trained for this task.
        domain: what the training's micrographs were like; None where that was not kept.
    """

    config_class = EMFoundationConfig
    base_model_prefix = "trunk"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = False
    # the losses are means: over accumulated batches transformers' Trainer may not add them up
    accepts_loss_kwargs = False
    head_name: ClassVar[str]

    def __init__(self, config: EMFoundationConfig):
        super().__init__(config)
        self.trunk: Trunk = BACKBONES[config.backbone](config)
        self.processor = EMImageProcessor()
        self.new_head = True
        self.domain: Domain | None = None

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, (nn.BatchNorm2d, nn.InstanceNorm2d)):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            if module.track_running_stats:
                init.ones_(module.running_var)
                init.zeros_(module.running_mean)
                init.zeros_(module.num_batches_tracked)

    @property
    def classes(self) -> dict[int, str] | None:
        """Class index: class name; None where the model does not classify."""
        return None

    @property
    def object_classes(self) -> dict[int, str]:
        """Class index: class name, of numbered objects; empty where these have no classes."""
        return {}

    @property
    def scale(self) -> int:
        """Output pixels per input pixel and axis."""
        return 1

    @property
    def stride(self) -> int:
        """Sides of the input are padded to a multiple of this."""
        return self.trunk.stride

    @property
    def receptive_field(self) -> int:
        """Side of the convolutions' receptive field in pixels; instance norm sees the whole."""
        return self.trunk.receptive_field

    @property
    def reach(self) -> int:
        """How far in pixels an output pixel can see in any direction, instance norm left out."""
        return self.trunk.reach

    def fitting(self, processor: EMImageProcessor) -> EMImageProcessor:
        """Return the processor for this kind of model, given the one that came with the weights."""
        return processor

    def features(self, pixel_values: Tensor) -> list[Tensor]:
        """Return the trunk's maps of network values (B, 1, H, W) of any size, finest first.

        They are (B, C_i, ceil(H / s), ceil(W / s)) at strides s = 1, 2, 4, ... up to the trunk's.
        """
        height, width = pixel_values.shape[-2:]
        maps = self.trunk.features(self.padded(pixel_values))
        return [m[..., : -(-height // 2**level), : -(-width // 2**level)] for level, m in enumerate(maps)]

    def _seen(self, image: Tensor, all_scales: bool | None) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Return features (B, C, H, W) at the input's size and, if asked for, those of all scales.

        Without a word from the user the configuration's `output_hidden_states` decides.
        """
        if self._wants_all(all_scales):
            maps = tuple(self.features(image))
            return maps[0], maps
        return self._full_resolution(image), None

    def _wants_all(self, asked: bool | None) -> bool:
        return bool(asked or (asked is None and self.config.output_hidden_states))

    def _full_resolution(self, pixel_values: Tensor) -> Tensor:
        """Return the trunk's features (B, C, H, W) at the input's size: padded and cropped."""
        features = self.trunk(self.padded(pixel_values))  # which checks the shape
        return features[..., : pixel_values.shape[-2], : pixel_values.shape[-1]]

    def padded(self, pixel_values: Tensor) -> Tensor:
        """Mirror the bottom and right edges up to the next multiple of the stride."""
        if pixel_values.ndim != 4 or pixel_values.shape[1] != 1 or 0 in pixel_values.shape:
            raise EMError(f"pixel_values has shape {tuple(pixel_values.shape)}; expected (batch, 1, height, width)")
        stride = self.stride
        while True:  # a mirror is smaller than the image, so tiny images take several
            height, width = pixel_values.shape[-2:]
            # torch.compile knows no remainder of a negative number
            bottom, right = (stride - height % stride) % stride, (stride - width % stride) % stride
            if not bottom and not right:
                return pixel_values
            step = (0, min(right, width - 1), 0, min(bottom, height - 1))
            if not any(step):  # one pixel high or wide: nothing to mirror
                return F.pad(pixel_values, (0, right, 0, bottom), mode="replicate")
            pixel_values = F.pad(pixel_values, step, mode="reflect")

    def maps(self, pixel_values: Tensor) -> Tensor:
        """Return (B, C, H, W) values of which neighbouring tiles may be blended; no gradient."""
        raise NotImplementedError

    def result(self, maps: np.ndarray, statistics: IntensityStatistics, dtype: Any) -> np.ndarray:
        """Return a result (H, W) of blended `maps` (C, H, W), given the micrograph's dtype."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any):
        """Load a model with its processor, strictly.

        Args:
            pretrained_model_name_or_path: a zoo name ("unet4-rf200"), a local folder, or a Hub id.
            *args: passed on to transformers.
            **kwargs: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download` as in
                transformers; `dtype` (float32 by default); fields of the configuration, such as
                `id2label`; `ignore_mismatched_sizes=True` for a new head where the saved one has
                another shape.

        Raises:
            EMError: nothing goes by this name, a file is missing, or other weights than the head's
                do not fit.
        """
        name = str(pretrained_model_name_or_path)
        hub = {key: kwargs.pop(key) for key in HUB_ARGUMENTS if key in kwargs}
        folder = model_folder(pretrained_model_name_or_path, **hub)
        want_info = kwargs.pop("output_loading_info", False)
        dtype = kwargs.pop("dtype", kwargs.pop("torch_dtype", None)) or torch.float32
        new_head = kwargs.pop("ignore_mismatched_sizes", False)
        if kwargs.pop("use_safetensors", True) is False:
            raise EMError("use_safetensors=False would read pickled weights, which can run code: leave it out")
        if (folder / "adapter_config.json").is_file():
            return load_with_adapter(cls, name, folder, dtype, hub)
        config = kwargs.pop("config", None)
        if not isinstance(config, PreTrainedConfig):
            config, kwargs = read_config(folder, **kwargs)
        processor = read_processor(folder)
        check_weights(cls, config, folder / "model.safetensors", new_head)
        saved_by = config.architectures or []
        try:
            with _quietly():
                model, info = super().from_pretrained(
                    folder,
                    *args,
                    config=config,
                    use_safetensors=True,
                    output_loading_info=True,
                    dtype=dtype,
                    ignore_mismatched_sizes=new_head,
                    **kwargs,
                )
        except (OSError, SafetensorError) as error:
            raise EMError(f"cannot load {name}: {error}") from error
        model.processor, model.domain = model.fitting(processor), read_domain(folder)
        model.name_or_path = name
        _look_at_head(model, saved_by, info)
        return (model, info) if want_info else model

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Push model, processor, card and test tensors in one commit; return its address.

        Args:
            repo_id: `owner/name`.
            **kwargs: `private`, `branch`, `tag`, `create_pr`, `token`, `message`: `PushArguments`.

        Raises:
            EMError: the Hub refuses, or the model's configuration holds something private.
        """
        from emfm.hub.push import PushArguments, push_model  # loaded by those who push

        return push_model(self, PushArguments(repo_id, **kwargs))

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Write config.json, model.safetensors and preprocessor_config.json into a folder.

        Raises:
            EMError: what would be written could not be loaded, or is to be pushed from here.
        """
        if Path(save_directory).is_file():
            raise EMError(f"{save_directory} is a file; a model is saved as a folder: give another name")
        _check_saving(self, kwargs)
        with _quietly():
            super().save_pretrained(save_directory, *args, **kwargs)
        self.processor.save_pretrained(save_directory)
        if self.domain is not None:
            write_domain(self.domain, save_directory)
        for file in Path(save_directory).glob("*.safetensors"):
            file.chmod(0o644)  # safetensors makes them readable by their owner alone


class EMRestoringModel(EMPreTrainedModel):
    """A trunk and a head that makes an image, or with `config.residual` a change of the input."""

    def __init__(self, config: EMFoundationConfig):
        super().__init__(config)
        if config.residual:
            self.residual_head = ResidualHead(self.trunk)
        else:
            self.image_head = ImageHead(self.trunk)
        self.head_name = "residual_head" if config.residual else "image_head"  # of this model alone

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if self.config.residual and module is self.restoring_head.out:
            init.zeros_(module.weight)  # so that an untrained head returns its input

    @property
    def restoring_head(self) -> ImageHead | ResidualHead:
        """The head, whatever its name."""
        return self.residual_head if self.config.residual else self.image_head

    def restored_from(self, features: Tensor, image: Tensor) -> Tensor:
        """Return the restored image (B, 1, H, W) from the features (B, C, H, W) and the input."""
        head = self.restoring_head
        return head.restored(head.out(head.read(features, image)), image)

    def result(self, maps: np.ndarray, statistics: IntensityStatistics, dtype: Any) -> np.ndarray:
        """Return network values (1, H, W) as a restored micrograph (H, W), its units and dtype."""
        return self.processor.denormalize(maps[0], statistics, dtype)


class EMFoundation(EMRestoringModel):
    """What is pretrained, trunk and head: the generator of Kazimi et al. (arXiv:2402.18286)."""

    def __init__(self, config: EMFoundationConfig):
        super().__init__(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> ImageOutput:
        """Reconstruct clean micrographs.

        Args:
            pixel_values: (B, 1, H, W) network values, any H and W.
            labels: (B, 1, H, W) clean network values; the loss is the mean absolute difference.
            output_hidden_states: return the `features`, too; False by default.
            **kwargs: accepted for transformers' pipelines, not used.
        """
        features, hidden_states = self._seen(pixel_values, output_hidden_states)
        reconstruction = self.restored_from(features, pixel_values)
        loss = None if labels is None else F.l1_loss(reconstruction.float(), labels)
        return ImageOutput(loss, reconstruction, hidden_states)

    @torch.no_grad()
    def maps(self, pixel_values: Tensor) -> Tensor:
        """Return restored images (B, 1, H, W) in network values; tiles may be blended."""
        return self(pixel_values).reconstruction.float()
