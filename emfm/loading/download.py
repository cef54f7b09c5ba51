"""From a model's name to a folder with its files: bundled, local, or one revision of a repository of the Hub."""

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from emfm.errors import EMError
from emfm.loading.model_files import CHECKSUMS, PICKLES, PUBLISHED, check_checksums
from emfm.loading.names import absent, locate, missing_files
from emfm.retries import with_retries

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
        folder = _snapshot(place, hub)
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


def _snapshot(repo_id: str, hub: dict[str, Any]) -> Path:
    """Download one commit of a repository."""
    try:
        return Path(with_retries(lambda: snapshot_download(repo_id, allow_patterns=list(PUBLISHED), **hub)))
    except Exception as error:  # the client's transport has errors of its own, which differ between its releases
        raise EMError(_explain(repo_id, hub, error)) from error


def _explain(repo_id: str, hub: dict[str, Any], error: Exception) -> str:
    revision = hub.get("revision")
    if isinstance(error, GatedRepoError):
        return f"{repo_id} is gated: ask for access on its page, then log in with `hf auth login` or give a token"
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no repository {repo_id} on the Hub, or it is private: check the name, or give a token"
    if isinstance(error, RevisionNotFoundError):
        return f"{repo_id} has no revision '{revision}': give a branch, tag or commit that it has"
    if isinstance(error, LocalEntryNotFoundError):
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        return f"{repo_id} is not in the cache, and the Hub did not answer{cause}: try again with a connection"
    return f"cannot download {repo_id}: {error}"


def _why(repo_id: str, hub: dict[str, Any]) -> str:
    """Return what a repository holds in the place of weights that emfm reads."""
    try:
        api = HfApi(token=hub.get("token"))
        names = api.list_repo_files(repo_id, revision=hub.get("revision"))
    except Exception:  # whatever it is, the answer that follows is the better one
        return ": its upload may have been cut off"
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles and "model.safetensors" not in names:
        return f"; it holds {', '.join(pickles)}: pickled weights can run code when they load, emfm reads safetensors"
    return ": its upload may have been cut off"
