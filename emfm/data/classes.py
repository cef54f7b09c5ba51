"""From the values of masks to class indices."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emfm.class_names import class_name
from emfm.data.examples import IGNORED
from emfm.data.json_files import read_json_object
from emfm.data.mask_looks import SHOWN, Look, distinct, doubt, listed, look_at
from emfm.errors import EMError
from emfm.io.masks import Mask

EXAMPLE = '{"0": "background", "255": "particle"}'
# The name in labels.json of grey values that stand for "nobody knows".
IGNORE = "ignore"
# What masks of 16 bits can hold, with or without a sign.
LOWEST, HIGHEST = -(2**15), 2**16 - 1
KEY = re.compile(r"-?[0-9]{1,6}")


@dataclass(frozen=True)
class GreyValues:
    """Which class each grey value of the masks stands for.

    Classes are numbered by their lowest grey value. Values of one name are one class; those called
    "ignore" are none.
    """

    names: dict[int, str]  # grey value: class name

    @property
    def id2label(self) -> dict[int, str]:
        """Class index: class name."""
        names = (self.names[value] for value in sorted(self.names))
        return dict(enumerate(dict.fromkeys(name for name in names if name.casefold() != IGNORE)))

    def indices(self, mask: Mask, name: str) -> np.ndarray:
        """Return int16 class indices (H, W), -100 where the mask says "ignore", or NaN.

        So is the border of a Pascal VOC or labelme mask that labels.json does not name.

        Raises:
            EMError: the mask holds a value without a class; `name`, that of its file, stands in it.
        """
        values = self.values(mask, name)
        index_of = {label: index for index, label in self.id2label.items()}
        found = distinct(values)
        known = np.array([index_of.get(self.names.get(int(value), IGNORE), IGNORED) for value in found], np.int16)
        indices = np.append(known, np.int16(IGNORED))[np.searchsorted(found, values)]  # NaN is beyond all
        return indices.astype(np.int16, copy=False)

    def values(self, mask: Mask, name: str) -> np.ndarray:
        """Return a mask (H, W) in the grey values that have names, in a dtype of its own.

        Those that are seen are taken where the values have no names: 255 for the 1 of one bit.

        Raises:
            EMError: as `indices`.
        """
        unknown = self._unknown(mask.array, mask)
        if not unknown:
            return mask.array
        shown = mask.shown
        if shown is not None and not self._unknown(shown, mask):
            return shown
        why = doubt([look_at(mask.array, Path(name).name)])
        raise EMError(
            f"{name} holds the grey values {listed(unknown)}, which labels.json does not name; "
            f"it has {listed(self.names)}{f'; {why}' if why else ''}"
        )

    def _unknown(self, values: np.ndarray, mask: Mask) -> set[float]:
        return set(distinct(values).tolist()) - set(self.names) - {mask.border}


def read_labels(path: Path) -> GreyValues:
    """Read a `labels.json`.

    Raises:
        EMError: it is no JSON object of grey values and names, or does not name two classes.
    """
    labels = read_json_object(path, EXAMPLE)
    if all(type(value) is int for value in labels.values()) and not any(KEY.fullmatch(key.strip()) for key in labels):
        turned = json.dumps({str(value): key for key, value in list(labels.items())[:SHOWN]}, ensure_ascii=False)
        raise EMError(f"{path} names grey values by classes; write it the other way round: {turned}")
    names: dict[int, str] = {}
    for key, name in labels.items():
        value = _grey_value(key, path)
        if value in names:
            raise EMError(f"{path} names the grey value {value} twice; expected it once")
        if not isinstance(name, str):
            raise EMError(f"{path} gives {value} the name {json.dumps(name)[:80]}; expected text, as in {EXAMPLE}")
        names[value] = class_name(name, f"{path}: the class of grey value {value}")
    return _checked(names, path)


def _grey_value(key: str, path: Path) -> int:
    if not KEY.fullmatch(key.strip()):
        raise EMError(f"{path} has a key that is not a grey value ({key!r:.80}); expected {EXAMPLE}")
    value = int(key)
    if not LOWEST <= value <= HIGHEST:
        raise EMError(f"{path} names the grey value {value}; expected {LOWEST} to {HIGHEST}, as masks hold them")
    return value


def _checked(names: dict[int, str], path: Path) -> GreyValues:
    spellings: dict[str, str] = {}
    for name in names.values():
        other = spellings.setdefault(name.casefold(), name)
        if other != name and name.casefold() != IGNORE:
            raise EMError(f"{path} has the classes '{other}' and '{name}': write them alike if they are one class")
    values = GreyValues(names)
    classes = list(values.id2label.values())
    if not classes:
        raise EMError(f"{path} names no class but '{IGNORE}'; expected {EXAMPLE}")
    if len(classes) == 1:
        raise EMError(f"{path} names one class, '{classes[0]}'; expected two or more, the background is one: {EXAMPLE}")
    return values


def values_as_classes(masks: Iterable[Mask], where: str, labels: str) -> GreyValues:
    """Return classes for masks without labels.json: their values must be 0..K-1.

    Raises:
        EMError: they hold other values, a single one, or values that are hardly those of classes;
            says `where` they are, and which file of `labels` would name their values.
    """
    values: set[float] = set()
    borders: set[int] = set()
    looks: list[Look] = []
    for mask in masks:
        found = set(distinct(mask.array).tolist())
        borders |= found & {mask.border}
        values |= found - {mask.border}
        # of two values there is nothing to see
        objects = len(found) - 1
        looks.append(look_at(mask.array, mask.name) if objects > 1 else Look(mask.name, objects, objects, 0.0))
    why = doubt(looks)
    if sorted(values) == list(range(len(values))) and len(values) > 1 and not why:
        names = {value: f"class {value}" if value else "background" for value in range(len(values))}
        return GreyValues({**names, **dict.fromkeys(borders, IGNORE)})
    if why:
        raise EMError(f"the masks in {where} hold the grey values {listed(values)}: {why}")
    odd = [value for value in sorted(values) if value != int(value) or not LOWEST <= value <= HIGHEST]
    if odd:
        raise EMError(
            f"the masks in {where} hold the grey values {listed(values)}; {odd[0]:g} is none that labels.json takes: "
            f"save whole numbers from {LOWEST} to {HIGHEST}, as in mask > {(min(values) + max(values)) / 2:g}"
        )
    shown = (
        EXAMPLE if len(values) > SHOWN else json.dumps({f"{value:g}": f"name of {value:g}" for value in sorted(values)})
    )
    raise EMError(
        f"the masks in {where} hold the grey values {listed(values)}; without labels.json they "
        f"must be 0..K-1: write {labels} like {shown}"
    )
