"""The model zoo: which pretrained generators there are, and what is known of each."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import safe_open

from emfm.backbones import BACKBONES
from emfm.config import EMFoundationConfig
from emfm.weights import BUNDLED, bundled_names


@dataclass(frozen=True)
class ModelInfo:
    """Facts of one pretrained generator, read from its own files.

    Attributes:
        name: what `from_pretrained` takes.
        parameters: number of weights.
        receptive_field: side in pixels.
        size: bytes of the weights file.
        pretraining: the recipe and the validation figures, as stored with the weights.
    """

    name: str
    parameters: int
    receptive_field: int
    size: int
    pretraining: dict[str, Any]


def model_info(name: str) -> ModelInfo:
    """Return the facts of one bundled model, without loading its weights."""
    folder = BUNDLED / name
    config = EMFoundationConfig.from_pretrained(folder)
    weights = folder / "model.safetensors"
    return ModelInfo(
        name=name,
        parameters=_count_parameters(weights),
        receptive_field=BACKBONES[config.backbone].geometry.receptive_field(config),
        size=weights.stat().st_size,
        pretraining=config.pretraining or {},
    )


def _count_parameters(weights: Path) -> int:
    """Count trained numbers from the file's header; batch norm's running statistics are not among them."""
    with safe_open(weights, framework="np") as file:
        trained = [key for key in file.keys() if ".running_" not in key and not key.endswith("num_batches_tracked")]  # noqa: SIM118
        return sum(prod(file.get_slice(key).get_shape()) for key in trained)


def list_models() -> list[ModelInfo]:
    """Return the facts of every model that `from_pretrained` knows by name, smallest first."""
    return sorted((model_info(name) for name in bundled_names()), key=lambda info: info.parameters)
