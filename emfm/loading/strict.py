"""Strict loading: a folder must hold what the model needs; checked before memory is taken."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from emfm.config import EMFoundationConfig
from emfm.errors import EMError
from emfm.loading.domain import read_domain
from emfm.processing import EMImageProcessor

# How the name of a head ends: what one class saved, another may lack.
HEAD = "_head"
# What a task adds to a generator's configuration.
TASK_FIELDS = (
    *("id2label", "scale", "residual", "target_units", "class_weights", "class_offsets"),
    *("all_scales", "filters", "temperature", "shrink", "separation"),
)
# Names that are shown of many.
SHOWN = 6


def read_config(folder: Path, **fields: Any) -> tuple[EMFoundationConfig, dict[str, Any]]:
    """Return the configuration of a model folder, and the keywords that are not fields of it.

    Fields that are given take the place of those read. An EMError says what is wrong with the file.
    """
    read: Any = EMFoundationConfig.from_pretrained
    try:
        content = read(folder)
    except EMError as error:
        raise EMError(f"cannot load {folder}: {error}") from error
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise EMError(f"cannot load {folder}: config.json is damaged ({error})") from error
    return read(folder, return_unused_kwargs=True, **fields) if fields else (content, {})


def read_processor(folder: Path) -> EMImageProcessor:
    """Return the processor of a model folder; an EMError says what is wrong with its file."""
    try:
        return EMImageProcessor.from_pretrained(folder)
    except EMError as error:
        raise EMError(f"cannot load {folder}: preprocessor_config.json: {error}") from error
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise EMError(f"cannot load {folder}: preprocessor_config.json is damaged ({error})") from error


def check_weights(cls: type[PreTrainedModel], config: EMFoundationConfig, path: Path, new_head: bool = False) -> None:
    """Compare the names and shapes in a weights file's header with what `config` asks for.

    A head may be new where another class saved the weights; nothing else may be missing,
    unexpected or of another shape.

    Args:
        cls: the model that is to be loaded.
        config: its configuration.
        path: the safetensors file.
        new_head: the head may be new in any case.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise EMError(
            f"{path} is damaged, cut short or not safetensors ({error}): download or save it again"
        ) from error
    with torch.device("meta"):  # shapes without memory
        wanted = {name: tuple(tensor.shape) for name, tensor in cls(config).state_dict().items()}
    if new_head or cls.__name__ not in (config.architectures or []):
        found, wanted = _without_heads(found), _without_heads(wanted)
    shared = sorted(found.keys() & wanted.keys())
    shapes = [f"{k} is {found[k]}, expected {wanted[k]}" for k in shared if found[k] != wanted[k]]
    differences = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unexpected": sorted(found.keys() - wanted.keys()),
        "of another shape": shapes,
    }
    parts = [f"{kind}: {_some(names)}" for kind, names in differences.items() if names]
    if parts:
        raise EMError(f"the weights in {path} do not fit {cls.__name__} ({config.generator}). {'; '.join(parts)}")


def _without_heads(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in shapes.items() if not name.partition(".")[0].endswith(HEAD)}


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def load_with_adapter(
    cls: type[PreTrainedModel], name: str, folder: Path, dtype: torch.dtype, hub: dict[str, Any]
) -> PreTrainedModel:
    """Load the weights that LoRA's additions in a folder belong to, and add them: a plain model.

    Args:
        cls: the class that saved the additions.
        name: what the user called the model.
        folder: with configuration, processor and additions.
        dtype: of the weights.
        hub: keywords of the download of the weights below, where they are on the Hub.

    Raises:
        EMError: another class saved them, they are damaged, or the weights below are not to be had.
    """
    from peft import PeftModel

    config, _ = read_config(folder)
    if (config.architectures or [""])[0] != cls.__name__:
        raise EMError(f"{name} holds LoRA additions for {config.architectures}; load them as that class")
    base = _base_of(folder / "adapter_config.json")
    fields = {field: getattr(config, field) for field in TASK_FIELDS}
    elsewhere = {key: value for key, value in hub.items() if key != "revision"}
    model = cls.from_pretrained(base, **fields, **elsewhere, dtype=dtype)
    try:
        model = PeftModel.from_pretrained(model, str(folder)).merge_and_unload().requires_grad_(True)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise EMError(f"the LoRA additions in {folder} do not fit {base}: {error}") from error
    model.processor, model.new_head = read_processor(folder), False
    model.config, model.name_or_path, model.domain = config, name, read_domain(folder)
    return model


def _base_of(path: Path) -> str:
    """Return the name of the weights that additions belong to; PEFT allows more than emfm."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        base, kind = settings["base_model_name_or_path"], settings["peft_type"]
        library = (settings.get("auto_mapping") or {}).get("parent_library", "emfm")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EMError(f"{path} is damaged ({error!r}); expected what emfm writes for LoRA") from error
    if kind != "LORA" or library.partition(".")[0] != "emfm" or not isinstance(base, str):
        raise EMError(
            f"{path} describes {kind} additions to {base!r} of {library}; "
            "emfm loads LoRA's additions to a named model of its own"
        )
    return base
