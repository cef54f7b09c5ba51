"""Parts of JSON files that people or programs may have damaged, checked before they are used."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from emfm.errors import EMError

# Corners beyond this are no place in an image, and would overflow what counts pixels.
FARTHEST = 1e7
_KINDS = {dict: "an object", list: "a list", str: "text", int: "a whole number", float: "a number"}


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        EMError: it is empty, cut off, or no JSON.
    """
    try:
        content = path.read_bytes()
        if not content.strip():
            raise EMError(f"{path}: the file is empty: save it again")
        return json.loads(content)
    except EMError:
        raise
    except (ValueError, RecursionError) as error:
        raise EMError(f"{path} is damaged: no readable JSON ({error}): save it again") from error


def part(owner: dict[str, Any], key: str, kind: Any, where: str) -> Any:
    """Return a part of a JSON object.

    Raises:
        EMError: it is missing or of another kind; `where` tells which object.
    """
    value: Any = owner.get(key)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < FARTHEST else math.inf
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        found = "is missing" if key not in owner else f"is {json.dumps(owner[key])[:60]}"
        raise EMError(f"{where}: '{key}' {found}; expected {_KINDS.get(kind, kind.__name__)}")
    if kind is float and not abs(value) < FARTHEST:
        raise EMError(f"{where}: '{key}' is {value}; expected a number of pixels")
    return value


def objects(value: Any, where: str) -> list[dict[str, Any]]:
    """Return a list of JSON objects.

    Raises:
        EMError: it is something else.
    """
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise EMError(f"{where} is {json.dumps(value)[:60]}; expected a list of objects")
    return value


def points(value: Any, where: str, least: int = 3) -> np.ndarray:
    """Return corners (N, 2) as x, y.

    Raises:
        EMError: they are fewer than `least`, or not pairs of finite numbers.
    """
    try:
        found = np.array(value, dtype=float)
    except (ValueError, TypeError):
        found = np.empty(0)
    if found.ndim != 2 or found.shape[1] != 2:
        raise EMError(f"{where}: its corners are no list of [x, y]: save it again")
    if len(found) < least:
        raise EMError(f"{where}: it has {len(found)} corners; expected at least {least}: correct it there")
    if not (np.abs(found) < FARTHEST).all():  # NaN is not less
        raise EMError(f"{where}: a corner is no place in an image: {value!r:.60}")
    return found
