"""What emfm itself wrote into a folder of micrographs: it is no input, and neither are masks."""

import json
import logging
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)
# What marks the folder of a run or of a model, and what lies in one.
_MARKS = ("finetuning.json", "preprocessor_config.json", "log.jsonl", "report.html")
_FOLDERS_OF_RUNS = ("pretrained_model", "pictures", "tensorboard")
_BEGINNINGS_OF_RUNS = ("step_", "checkpoint-")
_PICTURES_OF_RUNS = ("curve.png", "curves.png")
_TRUTHS = ("masks", "targets", "instances", "drafts")


def read_record(result: Path) -> dict[str, Any]:
    """Return the record beside a result, which says what it was made from; empty without one."""
    try:
        found = json.loads(result.with_name(f"{result.name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("made_from"), dict) else {}


def shown_by(record: dict[str, Any]) -> set[str]:
    """Return the names of the pictures and tables that a result brought along."""
    shown = record.get("shown")
    names = shown.values() if isinstance(shown, dict) else ()
    return {name for name in names if isinstance(name, str) and Path(name).name == name}


class OwnOutput:
    """Gathers what is to be left out of a listing, place by place."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._sources: dict[Path, set[Path]] = {}  # result: what it may have been made from
        self.left_out = 0  # pictures and results

    def prune(self, folders: list[str], names: list[str]) -> None:
        """Take folders out of a walk: those of runs, and masks or targets beside `images`."""
        if "images" in folders:
            folders[:] = [name for name in folders if name not in _TRUTHS]
        if any(mark in names for mark in _MARKS):
            folders[:] = [
                name for name in folders if name not in _FOLDERS_OF_RUNS and not name.startswith(_BEGINNINGS_OF_RUNS)
            ]

    def without_pictures(self, place: Path, names: Iterable[str], images: list[str]) -> list[str]:
        """Return images of a folder without the pictures of results and of runs."""
        everything = {*names, *images}
        own: set[str] = set()
        if any(mark in everything for mark in _MARKS):
            own.update(_PICTURES_OF_RUNS)
        for name in images:
            record = read_record(place / name) if f"{name}.json" in everything else {}
            if record:
                own |= shown_by(record)
                self._sources[place / name] = _sources(place, record)
        kept = [name for name in images if name not in own]
        self.left_out += len(images) - len(kept)
        return kept

    def without_results(self, files: list[Path]) -> list[Path]:
        """Return files without the results of others among them; says how many were left out."""
        there = {file.resolve() for file in files}
        kept = [file for file in files if not self._sources.get(file, set()) & there]
        self.left_out += len(files) - len(kept)
        if self.left_out:
            _say(f"{self._folder}: {self.left_out} results and pictures that emfm wrote are left out")
        return kept


def _sources(place: Path, record: dict[str, Any]) -> set[Path]:
    """Return the files that a result may have been made from: earlier records have a name alone."""
    found = record["made_from"].get("input")
    facts = found if isinstance(found, dict) else {}
    if isinstance(facts.get("path"), str):
        return {(place / facts["path"]).resolve()}
    name = str(facts.get("name"))
    return {(folder / name).resolve() for folder in (place, place.parent)}


@lru_cache
def _say(line: str) -> None:
    """Warn once: a folder is listed several times in a run."""
    logger.warning("%s", line)
