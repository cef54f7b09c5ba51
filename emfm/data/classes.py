"""From the grey values of masks to class indices."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emfm.data.examples import IGNORED
from emfm.errors import EMError

EXAMPLE = '{"0": "background", "255": "particle"}'
# The name in labels.json of grey values that stand for "nobody knows".
IGNORE = "ignore"


@dataclass(frozen=True)
class GreyValues:
    """Which class each grey value of the masks stands for.

    Classes are numbered by increasing grey value; those called "ignore" are none.
    """

    names: dict[int, str]  # grey value: class name

    @property
    def id2label(self) -> dict[int, str]:
        """Class index: class name."""
        return dict(enumerate(self.names[value] for value in self._classes()))

    def _classes(self) -> list[int]:
        return [value for value in sorted(self.names) if self.names[value].lower() != IGNORE]

    def indices(self, mask: np.ndarray, name: str) -> np.ndarray:
        """Return int16 class indices (H, W), -100 where the mask (H, W) says "ignore".

        Raises:
            EMError: the mask holds a value without a class; `name`, that of its file, stands in it.
        """
        found = np.unique(mask)
        unknown = set(found.tolist()) - set(self.names)
        if unknown:
            raise EMError(
                f"{name} holds the grey values {shorten(unknown)}, which labels.json does not name; it has "
                f"{', '.join(str(value) for value in sorted(self.names))}"
            )
        classes = self._classes()
        index_of = np.array([classes.index(value) if value in classes else IGNORED for value in found.tolist()])
        return index_of.astype(np.int16)[np.searchsorted(found, mask)]


def read_labels(path: Path) -> GreyValues:
    """Read a `labels.json`.

    Raises:
        EMError: it is no JSON object of grey values and names, or names no class.
    """
    labels = read_json_object(path, EXAMPLE)
    try:
        values = GreyValues({int(value): str(name) for value, name in labels.items()})
    except ValueError as error:
        raise EMError(f"{path} has a key that is not a grey value ({error}); expected {EXAMPLE}") from error
    if not values.id2label:
        raise EMError(f"{path} names no class but '{IGNORE}'; expected {EXAMPLE}")
    return values


def values_as_classes(masks: Iterable[np.ndarray], where: str, labels: str) -> GreyValues:
    """Return classes for masks without labels.json: their values must be 0..K-1.

    Raises:
        EMError: they hold other values, or a single one; says `where` they are, and which file of `labels` would
            name their values.
    """
    values: set[int] = set()
    for mask in masks:
        values.update(int(value) for value in np.unique(mask))
    if sorted(values) == list(range(len(values))) and len(values) > 1:
        return GreyValues({value: "background" if value == 0 else f"class {value}" for value in sorted(values)})
    shown = json.dumps({str(value): f"name of {value}" for value in sorted(values)[:8]})
    raise EMError(
        f"the masks in {where} hold the grey values {shorten(values)}; without labels.json they must be 0..K-1: write "
        f"{labels} like {shown}"
    )


def read_json_object(path: Path, expected: str) -> dict:
    """Return the content of a JSON file that holds an object, or raise an error that shows what was expected."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise EMError(f"{path} is not readable JSON ({error}); expected {expected}") from error
    if not isinstance(content, dict) or not content:
        raise EMError(f"{path} holds no JSON object; expected {expected}")
    return content


def shorten(values: set) -> str:
    """List up to eight values."""
    listed = sorted(values)
    return ", ".join(str(value) for value in listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")
