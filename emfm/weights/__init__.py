"""The weights that ship inside the package, one folder a model, and how a model's name becomes a place to load from."""

from pathlib import Path

from emfm.config import GENERATORS, EMFoundationConfig
from emfm.errors import EMError, nearest

BUNDLED = Path(__file__).parent
MODEL_FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
# A folder with LoRA's additions holds these in the place of whole weights.
ADAPTER_FILES = ("config.json", "preprocessor_config.json", "adapter_config.json", "adapter_model.safetensors")


def bundled_names() -> list[str]:
    """Return the names of the models whose weights are in the package."""
    return sorted(folder.name for folder in BUNDLED.iterdir() if (folder / "config.json").is_file())


def missing_files(folder: Path) -> list[str]:
    """Return the files that a folder lacks to be loaded as a model."""
    return [file for file in _needed(folder) if not (folder / file).is_file()]


def _needed(folder: Path) -> tuple[str, ...]:
    return ADAPTER_FILES if (folder / "adapter_config.json").is_file() else MODEL_FILES


def locate(name_or_path: str | Path) -> str:
    """Return the local folder or the Hub id that a model's name stands for.

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
    raise EMError(_unknown(name))


def _unknown(name: str) -> str:
    bundled = bundled_names()
    try:
        EMFoundationConfig.from_name(name)
    except EMError:
        hint = nearest(name, dict.fromkeys([*bundled, *GENERATORS]))
        return f"there is no model '{name}': {hint} A local folder or owner/name also works"
    return (
        f"no pretrained weights of '{name}' are in this package, which has {', '.join(bundled)}; random weights of it "
        f"come from EMFoundation(EMFoundationConfig.from_name('{name}')) or --scratch {name}"
    )
