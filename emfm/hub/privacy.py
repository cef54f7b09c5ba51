"""What must not leave the machine with published files: tokens, paths, the user's name."""

import getpass
import os
import re
from pathlib import Path

from emfm.errors import EMError
from emfm.loading.model_files import PUBLISHED

SHORTEST_NAME = 4
# Names that many machines give to whoever works there, which say nothing and may mean other things.
NOBODY = {"admin", "administrator", "debian", "docker", "guest", "jovyan", "nobody", "runner", "ubuntu", "vagrant"}
# Where the systems, and clusters, keep people's files; with the folders of this machine's own root.
PLACES = {"home", "root", "Users", "tmp", "mnt", "media", "Volumes", "data", "scratch", "srv", "opt", "private"}
PLACES |= {"net", "nfs", "gpfs", "lustre", "project", "projects", "work", "workspace", "cluster"}
SYSTEM = {"bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "sys", "usr", "var"}


def _folders() -> str:
    """Return a pattern of how absolute paths begin."""
    try:
        here = {path.name for path in Path("/").iterdir() if path.is_dir() and path.name.isalnum()}
    except OSError:
        here = set()
    names = PLACES | {name for name in here if len(name) > 2} - SYSTEM
    return f"/(?:{'|'.join(sorted(map(re.escape, names)))}|run/media|var/(?:folders|home|tmp))/"


# Access tokens of the Hub; absolute paths of the three systems (backslashes are doubled in JSON).
_FOLDERS = _folders()
_SHARE = r"(?<!\\)(?:\\{4}[\w.-]+\\\\[\w$]|\\\\[\w.-]+\\[\w$])"  # of Windows: \\server\folder
PRIVATE = {
    "an access token": re.compile(r"\bhf_[A-Za-z0-9]{8,}"),
    "an absolute path": re.compile(
        rf"(?<![\w:/.]){_FOLDERS}|\bfile:/+[\w~]|\b[A-Za-z]:(?:\\\\|\\\w{{3}}|/\w{{3}})|{_SHARE}"
    ),
}
# How these begin; fast on the bytes of large files, as each begins with a fixed character.
_SUSPECTS = [re.compile(text.encode()) for text in ("hf_[A-Za-z0-9]{8}", _FOLDERS, r":\\(?:\\|\w{3})")]
_SUSPECTS += [re.compile(text) for text in (rb":/\w{3}", rb"file:/", rb"\\\\[\w.-]{2,}\\")]


def _users() -> list[str]:
    """Return the user's names on this machine, but those that may stand in any text."""
    names = []
    for name in (getpass.getuser, lambda: Path.home().name):
        try:
            names.append(name())
        except (OSError, KeyError, ImportError, RuntimeError):  # a container knows no users
            continue
    return [name for name in dict.fromkeys(names) if len(name) > SHORTEST_NAME and name.lower() not in NOBODY]


def _home() -> str | None:
    """Return the user's own folder, wherever it is; None where there is none but the root."""
    try:
        home = Path.home()
    except (RuntimeError, KeyError):
        return None
    return str(home) if len(home.parts) > 1 else None


def private_content(text: str) -> list[str]:
    """Return what a text holds that must stay private, in words for an error; empty if none."""
    found = [what for what, pattern in PRIVATE.items() if pattern.search(text)]
    home = _home()
    if home and "an absolute path" not in found:
        spellings = {home, home.replace("\\", "/"), home.replace("\\", "\\\\")}
        if any(re.search(rf"(?<![\w/]){re.escape(spelled)}(?!\w)", text) for spelled in spellings):
            found.append("an absolute path")
    token = os.environ.get("HF_TOKEN", "")
    if len(token) >= SHORTEST_NAME and token in text:
        found.append("the access token of HF_TOKEN")
    found += [f"the user name {user}" for user in _users() if re.search(rf"\b{re.escape(user)}\b", text)]
    return found


def holds_private_metadata(content: bytes) -> bool:
    """Tell whether an image file's bytes hold something private, be it a path or in UTF-16."""
    names = (os.environ.get("HF_TOKEN", ""), *_users(), _home() or "")
    words = [name.encode() for name in names if len(name) >= SHORTEST_NAME]
    for part in (content, content.replace(b"\0", b"")):
        suspect = any(pattern.search(part) for pattern in _SUSPECTS) or any(word in part for word in words)
        if suspect and private_content(part.decode("ascii", "replace")):
            return True
    return False


def check_private(folder: str | Path) -> None:
    """Raise an error if a text file of a model holds a token, a path or a user's name."""
    for path in (Path(folder) / name for name in PUBLISHED if name.endswith((".json", ".md"))):
        found = private_content(path.read_text(encoding="utf-8")) if path.is_file() else []
        if found:
            raise EMError(f"{path} holds {' and '.join(found)}: take it out before the model is pushed")
