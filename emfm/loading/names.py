"""From a model's name to a folder with its files: bundled, local, or one revision on the Hub."""

import logging
import os
import re
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download

from emfm.backbones import generator_names
from emfm.config import EMFoundationConfig
from emfm.data.sources import check_no_folder, is_hub_id
from emfm.errors import EMError, nearest
from emfm.loading.model_files import ADAPTER, CHECKSUMS, PICKLES, PUBLISHED, check_checksums
from emfm.retries import download_errors, with_retries

logger = logging.getLogger(__name__)
# The weights that ship inside the package, one folder a model.
BUNDLED = Path(__file__).parents[1] / "weights"
# The account on the Hub that holds the zoo, or None while it has none: whoever took the name first
# would be trusted with it. The environment variable EMFM_ZOO names an account.
ZOO_NAMESPACE: str | None = None
ACCOUNT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
# What a download understands of the keywords of `from_pretrained`.
HUB_ARGUMENTS = ("revision", "token", "cache_dir", "local_files_only", "force_download")


def bundled_names() -> list[str]:
    """Return the names of the models whose weights are in the package."""
    return sorted(folder.name for folder in BUNDLED.iterdir() if (folder / "model.safetensors").is_file())


def zoo_id(name: str) -> str | None:
    """Return the Hub id of a model of the zoo; None where no account on the Hub holds the zoo.

    Raises:
        EMError: what `EMFM_ZOO` says can be no account.
    """
    namespace = os.environ.get("EMFM_ZOO", "").strip() or ZOO_NAMESPACE
    if namespace is None:
        return None
    if not ACCOUNT.fullmatch(namespace):
        raise EMError(f"EMFM_ZOO is '{namespace}'; expected the name of an account on the Hub, as in my-lab")
    return f"{namespace}/{name}"


def model_folder(name_or_path: str | Path | None, **hub: Any) -> Path:
    """Return the folder of a model: its own, or a copy of the Hub's with every published file.

    All files of a download come from one commit, and must match its checksums, if it has them.

    Args:
        name_or_path: zoo name, local folder or Hub id.
        **hub: those of HUB_ARGUMENTS, as in transformers.

    Raises:
        EMError: nothing goes by this name, the Hub does not answer or refuses, or the repository
            holds no whole model.
    """
    if name_or_path is None:
        raise EMError("from_pretrained(None) has no weights to read: make cls(config), then load_state_dict()")
    name, place = str(name_or_path), locate(name_or_path)
    if Path(place).is_dir():
        if hub.get("revision") is not None:
            logger.warning("revision is '%s', but %s lies on this machine: it has one revision", hub["revision"], name)
        return Path(place)
    try:
        with download_errors(place, hub.get("revision")):
            folder = Path(with_retries(lambda: snapshot_download(place, allow_patterns=list(PUBLISHED), **hub)))
    except EMError as error:
        if "/" in name:
            raise
        failed = f"{place} could not be loaded from the Hub"
        raise EMError(f"{_not_bundled(name)}, and {failed}; {_random_weights(name)} ({error})") from error
    missing = _missing(folder)
    if missing:
        raise EMError(f"{place} on the Hub is not a whole emfm model: {', '.join(missing)} missing{_why(place, hub)}")
    if (folder / CHECKSUMS).is_file():
        try:
            check_checksums(folder)
        except EMError as error:
            raise EMError(f"{error}. If the repository is whole, load it again with force_download=True") from error
    return folder


def locate(name_or_path: str | Path) -> str:
    """Return the local folder or the Hub id that a model's name stands for.

    A zoo name ("unet4-rf200") stands for the bundled weights where there are any, else for
    `NAMESPACE/name` on the Hub, if a namespace is set. Whether that can be reached shows when it is
    loaded.

    Raises:
        EMError: the folder lacks a file, nothing goes by this name, or no namespace is set.
    """
    name = str(name_or_path)
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        missing = _missing(folder)
        if missing:
            raise EMError(
                f"{folder} is not a whole emfm model: {', '.join(missing)} missing. "
                f"A model folder holds {', '.join(_needed(folder))}, as save_pretrained writes them"
            )
        return str(folder)
    if name in bundled_names():
        return str(BUNDLED / name)
    if folder.is_file():
        raise EMError(f"{folder} is a file; a model is a folder: give {folder.parent}, if it is in there")
    if is_hub_id(name):
        check_no_folder(name)
        return name
    if "/" in name:
        raise EMError(f"there is no model folder {folder}")
    try:
        EMFoundationConfig.from_name(name)
    except EMError as error:
        hint = nearest(name, dict.fromkeys([*bundled_names(), *generator_names()]))
        raise EMError(f"there is no model '{name}' (a local folder or owner/name works, too): {hint}") from error
    place = zoo_id(name)
    if place is None:
        raise EMError(
            f"{_not_bundled(name)}, and no account on the Hub is set to look for more: if you know one that holds "
            f"the zoo, set EMFM_ZOO to its name; {_random_weights(name)}"
        )
    return place


def _not_bundled(name: str) -> str:
    return f"the weights of '{name}' are not in this package, which has {', '.join(bundled_names())}"


def _random_weights(name: str) -> str:
    made = f"EMFoundation(EMFoundationConfig.from_name('{name}'))"
    return f"random weights of it come from {made} or --scratch {name}"


def _missing(folder: Path) -> list[str]:
    """Return the files that a folder lacks to be loaded as a model."""
    return [file for file in _needed(folder) if not (folder / file).is_file()]


def _needed(folder: Path) -> tuple[str, ...]:
    if (folder / ADAPTER[0]).is_file():
        return ("config.json", "preprocessor_config.json", *ADAPTER)
    return ("config.json", "model.safetensors", "preprocessor_config.json")


def _why(repo_id: str, hub: dict[str, Any]) -> str:
    """Return what a repository holds in the place of weights that emfm reads."""
    try:
        names = HfApi(token=hub.get("token")).list_repo_files(repo_id, revision=hub.get("revision"))
    except Exception:  # whatever it is, the answer that follows is the better one
        names = []
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles and "model.safetensors" not in names:
        return f"; it holds {', '.join(pickles)}: pickled weights can run code when they load, emfm reads safetensors"
    return ": its upload may have been cut off"
