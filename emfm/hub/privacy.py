"""What must not leave the machine with published files: access tokens, absolute paths, the user's name."""

import getpass
import os
import re
from pathlib import Path

from emfm.errors import EMError
from emfm.loading.model_files import PUBLISHED

# Access tokens of the Hub, and absolute paths of the three systems (in JSON their backslashes are doubled).
_FOLDERS = "/(?:home|root|Users|tmp|mnt|data|scratch|srv|opt)/"
PRIVATE = {
    "an access token": re.compile(r"\bhf_[A-Za-z0-9]{8,}"),
    "an absolute path": re.compile(rf"(?<![\w:/.]){_FOLDERS}|\b[A-Za-z]:(?:\\\\|\\\w{{3}})"),
}
# What begins like one of these; on the bytes of large files much faster, for each begins with a fixed character.
_SUSPECTS = [re.compile(text.encode()) for text in ("hf_[A-Za-z0-9]{8}", _FOLDERS, r":\\(?:\\|\w{3})")]
SHORTEST_NAME = 4


def private_content(text: str) -> list[str]:
    """Return what a text holds that must stay private, in words for an error; empty if there is nothing."""
    found = [what for what, pattern in PRIVATE.items() if pattern.search(text)]
    token = os.environ.get("HF_TOKEN", "")
    if len(token) >= SHORTEST_NAME and token in text:
        found.append("the access token of HF_TOKEN")
    user = getpass.getuser()
    if len(user) > SHORTEST_NAME and re.search(rf"\b{re.escape(user)}\b", text):
        found.append(f"the user name {user}")
    return found


def holds_private_metadata(content: bytes) -> bool:
    """Tell whether the bytes of an image file hold something private, as a path in its description or in UTF-16."""
    names = (os.environ.get("HF_TOKEN", ""), getpass.getuser())
    words = [name.encode() for name in names if len(name) >= SHORTEST_NAME]
    for part in (content, content.replace(b"\0", b"")):
        suspect = any(pattern.search(part) for pattern in _SUSPECTS) or any(word in part for word in words)
        if suspect and private_content(part.decode("ascii", "replace")):
            return True
    return False


def check_private(folder: str | Path) -> None:
    """Raise an error if a text file of a model holds something private: a token, a path or a user's name."""
    for path in (Path(folder) / name for name in PUBLISHED if name.endswith((".json", ".md"))):
        found = private_content(path.read_text(encoding="utf-8")) if path.is_file() else []
        if found:
            raise EMError(f"{path} holds {' and '.join(found)}: take it out before the model is pushed")
