"""Whose result a file is: the same micrograph and model replace it, others if the user says so."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emfm.errors import EMError
from emfm.files import write_text
from emfm.inference.arguments import FORMATS
from emfm.io.own_output import read_record, shown_by

# Of a value in labels.json that stands for no class.
IGNORE = "ignore"
WAY_OUT = "choose another --output, or replace it with --overwrite"


@dataclass(frozen=True)
class Place:
    """Where one result goes, and what is there.

    Attributes:
        target: the result's file.
        made_from: what the record will say of input, model and settings.
        beside: names of the pictures and tables that will go with it.
    """

    target: Path
    made_from: dict[str, Any]
    beside: tuple[str, ...]

    def finished(self) -> bool:
        """Return whether this very result is there, with all that shows it."""
        record = self.record()
        if record.get("made_from") != self.made_from or record.get("unfinished"):
            return False
        return all(self.target.with_name(name).exists() for name in shown_by(record))

    def record(self) -> dict[str, Any]:
        """Return the record of the result that is there; empty if it or the result is gone."""
        return read_record(self.target) if self.target.exists() else {}

    def check(self) -> None:
        """Raise an error if something that belongs to others would be replaced."""
        record = self.record()
        if self.target.exists() and not record:
            raise EMError(f"{self.target} is there, and no result that emfm recorded: {WAY_OUT}")
        if record and not self._same_owner(record):
            raise EMError(f"{self.target} is the result of {self._other(record)}: {WAY_OUT}")
        known = self._brought_along()
        for name in self.beside:
            if name not in known and self.target.with_name(name).exists():
                raise EMError(f"{self.target.with_name(name)} is there, and does not belong to this result: {WAY_OUT}")

    def begin(self) -> dict[str, Any]:
        """Note that work has begun, and return the old record, if any."""
        old = self.record()
        shown = {name: name for name in sorted(self._brought_along())}
        self._write({"made_from": self.made_from, "shown": shown, "unfinished": True})
        return old

    def give_up(self, old: dict[str, Any]) -> None:
        """Leave the record as it was before `begin`."""
        if old:
            self._write(old)
        else:
            self._path.unlink(missing_ok=True)

    def finish(self, old: dict[str, Any], record: dict[str, Any]) -> None:
        """Write the record; remove what the old result brought along, and the new one did not."""
        for name in shown_by(old) - shown_by(record):
            self.target.with_name(name).unlink(missing_ok=True)
        self._write({"made_from": self.made_from, **record})

    @property
    def _path(self) -> Path:
        return self.target.with_name(f"{self.target.name}.json")

    def _write(self, record: dict[str, Any]) -> None:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        write_text(self._path, json.dumps(record, indent=1))

    def _same_owner(self, record: dict[str, Any]) -> bool:
        other = record["made_from"]
        return other.get("model") == self.made_from["model"] and not self._differs(other.get("input"))

    def _differs(self, facts: Any) -> bool:
        facts, own = facts if isinstance(facts, dict) else {}, self.made_from["input"]
        if "path" not in facts:  # records of earlier versions
            return facts.get("name") != own["name"]
        return (facts["path"], facts.get("name")) != (own["path"], own["name"])

    def _other(self, record: dict[str, Any]) -> str:
        facts = record["made_from"].get("input")
        if self._differs(facts):
            return str((facts or {}).get("path") or (facts or {}).get("name"))
        return "another model"

    def _brought_along(self) -> set[str]:
        """Return what results of this input and model, in any format, have beside them."""
        names: set[str] = set()
        for result in _formats(self.target):
            record = read_record(result)
            if record and self._same_owner(record):
                names |= shown_by(record)
        return names


def _formats(target: Path) -> Iterable[Path]:
    return (target.with_name(f"{target.name.removesuffix(target.suffix)}.{form}") for form in FORMATS)


def result_labels(classes: dict[int, str], targets: list[tuple[Any, Path]]) -> dict[int, str]:
    """Return the names of the values in class maps; pixels without data are to be ignored."""
    values = {(read_record(target).get("no_data") or {}).get("value") for _, target in targets}
    return {**classes, **{int(float(value)): IGNORE for value in values if value is not None}}


def check_labels(output: Path, classes: dict[int, str] | None, overwrite: bool) -> None:
    """Raise an error if `labels.json` of the results' folder names other classes."""
    path = output / "labels.json"
    if classes is None or overwrite or not path.exists():
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        found = None
    named = {value: name for value, name in found.items() if name != IGNORE} if isinstance(found, dict) else found
    if named != {str(index): name for index, name in classes.items()}:
        raise EMError(f"{path} is there, and names other classes than the model: {WAY_OUT}")
