"""`labels.json` and `splits.json` as people write them: found in any case, read in any encoding."""

import json
from collections import Counter
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from emfm.errors import EMError


def find_entry(folder: Path, name: str, is_kind: Any = Path.is_file) -> Path | None:
    """Return the file of a folder that goes by a name in any case, None where there is none.

    Args:
        folder: to look in.
        name: as "labels.json".
        is_kind: `Path.is_dir` finds a folder instead.

    Raises:
        EMError: several go by it.
    """
    if is_kind(folder / name):
        return folder / name
    found = [path for path in sorted(folder.iterdir()) if path.name.casefold() == name and is_kind(path)]
    if len(found) > 1:
        raise EMError(f"{folder} holds {' and '.join(path.name for path in found)}: keep one, called {name}")
    return found[0] if found else None


def find_json(folder: Path, name: str) -> Path | None:
    """Return a JSON file of a folder, None where there is none.

    Raises:
        EMError: there is none of this name, but one that is nearly called so.
    """
    path = find_entry(folder, name)
    if path is None:
        names = {entry.name.casefold(): entry for entry in folder.iterdir() if entry.is_file()}
        if close := get_close_matches(name, names, n=1, cutoff=0.8):
            raise EMError(f"{names[close[0]]} is not read: rename it to {name}, or take it away")
    return path


def read_json_object(path: Path, expected: str) -> dict[str, Any]:
    """Return the object that a JSON file holds, in UTF-8, 16 or 32, with or without a mark.

    Raises:
        EMError: it is damaged, no object, empty, or has a key twice; it shows what is `expected`.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for key, count in Counter(key for key, _ in pairs).items():
            if count > 1:
                raise EMError(f"{path} has the key '{key}' {count} times; expected it once")
        return dict(pairs)

    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=once)
    except EMError:
        raise
    except UnicodeDecodeError as error:
        raise EMError(f"{path} is not in UTF-8 ({error.reason} at byte {error.start}): save it so") from error
    except (ValueError, OSError, RecursionError) as error:
        raise EMError(f"{path} is not readable JSON ({error}); expected {expected}") from error
    if not isinstance(content, dict) or not content:
        raise EMError(f"{path} {'is empty' if content == {} else 'holds no JSON object'}; expected {expected}")
    return content
