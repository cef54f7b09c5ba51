"""The weights that ship inside the package, one folder a model, and how a model's name becomes a place to load from."""

import os
from pathlib import Path

from emfm.backbones import generator_names
from emfm.config import EMFoundationConfig
from emfm.errors import EMError, nearest

BUNDLED = Path(__file__).parents[1] / "weights"
# Whose repositories on the Hub hold the zoo, unless the environment variable EMFM_ZOO names another account.
ZOO_NAMESPACE = "emfm"
MODEL_FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
# A folder with LoRA's additions holds these in the place of whole weights.
ADAPTER_FILES = ("config.json", "preprocessor_config.json", "adapter_config.json", "adapter_model.safetensors")


def bundled_names() -> list[str]:
    """Return the names of the models whose weights are in the package."""
    return sorted(folder.name for folder in BUNDLED.iterdir() if (folder / "model.safetensors").is_file())


def zoo_id(name: str) -> str:
    """Return the Hub id of a model of the zoo."""
    return f"{os.environ.get('EMFM_ZOO') or ZOO_NAMESPACE}/{name}"


def missing_files(folder: Path) -> list[str]:
    """Return the files that a folder lacks to be loaded as a model."""
    return [file for file in _needed(folder) if not (folder / file).is_file()]


def _needed(folder: Path) -> tuple[str, ...]:
    return ADAPTER_FILES if (folder / "adapter_config.json").is_file() else MODEL_FILES


def locate(name_or_path: str | Path) -> str:
    """Return the local folder or the Hub id that a model's name stands for.

    A zoo name stands for the bundled weights where there are any, else for `ZOO_NAMESPACE/name` on the Hub. Whether
    that can be reached shows when it is loaded; `absent` then says what else there is.

    Args:
        name_or_path: a zoo name ("unet4-rf200"), a local folder, or a Hub id ("owner/name").

    Raises:
        EMError: the folder lacks a file, or nothing goes by this name.
    """
    name = str(name_or_path)
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        missing = missing_files(folder)
        if missing:
            raise EMError(
                f"{folder} is not a whole emfm model: {', '.join(missing)} missing. A model folder holds "
                f"{', '.join(_needed(folder))}, as save_pretrained writes them"
            )
        return str(folder)
    if name in bundled_names():
        return str(BUNDLED / name)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return name
    if "/" in name:
        raise EMError(f"there is no model folder {folder}")
    if not _is_generator(name):
        hint = nearest(name, dict.fromkeys([*bundled_names(), *generator_names()]))
        raise EMError(f"there is no model '{name}' (a local folder or owner/name works, too): {hint}")
    return zoo_id(name)


def absent(name_or_path: str | Path) -> str | None:
    """Return what to tell about a zoo name whose weights are not bundled and did not come from the Hub, else None."""
    name = str(name_or_path)
    if Path(name).expanduser().is_dir() or name in bundled_names() or not _is_generator(name):
        return None
    return (
        f"the weights of '{name}' are not in this package, which has {', '.join(bundled_names())}, and {zoo_id(name)} "
        f"could not be loaded from the Hub; random weights of it come from "
        f"EMFoundation(EMFoundationConfig.from_name('{name}')) or --scratch {name}"
    )


def _is_generator(name: str) -> bool:
    try:
        EMFoundationConfig.from_name(name)
    except EMError:
        return False
    return True
