"""Which files of a folder are the user's, and when two names are one to a person's eye."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

# What systems, cloud drives and archives leave in folders, besides names that begin with a dot.
_OF_SYSTEMS = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    *("__macosx", "@eadir", "#recycle", "#snapshot", "$recycle.bin"),
    *("system volume information", "lost+found", "recycler"),
}
# Beginnings of the files that programs keep beside an open one, and of hidden files.
_BEGINNINGS = (".", "~$", "@__")


def is_foreign(name: str) -> bool:
    """Tell whether a file's or folder's name is that of a system, not of the user's data.

    Hidden files (`.a.tif`, `._a.tif` of macOS), `Thumbs.db`, `desktop.ini`, `@eaDir`, `__MACOSX`
    and locks of open documents (`~$a.docx`) are.
    """
    return name.startswith(_BEGINNINGS) or name.casefold() in _OF_SYSTEMS


def walk(folder: str | Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Walk through a folder as `os.walk` does, without foreign names, in the order of the names.

    Links to folders are followed; one that leads back into a folder that it lies in is left out.
    """
    for place, folders, names in os.walk(folder, followlinks=True):
        here = Path(place)
        above = {os.path.realpath(parent) for parent in (here, *here.parents)}
        own = [name for name in folders if not is_foreign(name)]
        folders[:] = sorted(
            name for name in own if not (here / name).is_symlink() or os.path.realpath(here / name) not in above
        )
        yield here, folders, sorted(name for name in names if not is_foreign(name))


def plain(name: str) -> str:
    """Return a name as a person tells it from others: one Unicode form, no case, plain blanks."""
    composed = unicodedata.normalize("NFC", name.replace("\\", "/"))
    seen = "".join(letter for letter in composed if unicodedata.category(letter) != "Cf")
    parts = (" ".join(part.split()) for part in seen.casefold().split("/"))
    return unicodedata.normalize("NFC", "/".join(part for part in parts if part not in ("", ".")))
