"""From a model's name to a folder with its files: bundled, local, or one revision of a repository of the Hub."""

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download

from emfm.errors import EMError
from emfm.loading.model_files import CHECKSUMS, PICKLES, PUBLISHED, check_checksums
from emfm.loading.names import absent, locate, missing_files
from emfm.retries import download_errors, with_retries

# What a download understands of the keywords of `from_pretrained`.
HUB_ARGUMENTS = ("revision", "token", "cache_dir", "local_files_only", "force_download")


def model_folder(name_or_path: str | Path, **hub: Any) -> Path:
    """Return the folder of a model: its own, or a copy of the Hub's with every published file.

    All files of a download come from one commit, and are compared with its checksums, where it has them.

    Args:
        name_or_path: zoo name, local folder or Hub id.
        **hub: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`, as in transformers.

    Raises:
        EMError: nothing goes by this name, the Hub does not answer or refuses, or the repository holds no whole model.
    """
    place = locate(name_or_path)
    if Path(place).is_dir():
        return Path(place)
    try:
        with download_errors(place, hub.get("revision")):
            folder = Path(with_retries(lambda: snapshot_download(place, allow_patterns=list(PUBLISHED), **hub)))
    except EMError as error:
        if known := absent(name_or_path):
            raise EMError(f"{known} ({error})") from error
        raise
    missing = missing_files(folder)
    if missing:
        raise EMError(f"{place} on the Hub is not a whole emfm model: {', '.join(missing)} missing{_why(place, hub)}")
    if (folder / CHECKSUMS).is_file():
        try:
            check_checksums(folder)
        except EMError as error:
            raise EMError(f"{error}. If the repository is whole, load it again with force_download=True") from error
    return folder


def _why(repo_id: str, hub: dict[str, Any]) -> str:
    """Return what a repository holds in the place of weights that emfm reads."""
    try:
        names = HfApi(token=hub.get("token")).list_repo_files(repo_id, revision=hub.get("revision"))
    except Exception:  # whatever it is, the answer that follows is the better one
        return ": its upload may have been cut off"
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles and "model.safetensors" not in names:
        return f"; it holds {', '.join(pickles)}: pickled weights can run code when they load, emfm reads safetensors"
    return ": its upload may have been cut off"
