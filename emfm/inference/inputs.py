"""What `emfm predict` is given, from files to folders, and the names of the results."""

import glob
import logging
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emfm.errors import EMError
from emfm.io.listing import plain
from emfm.io.reading import SUFFIXES, FileChoice, list_micrographs, split_dataset

logger = logging.getLogger(__name__)
# What Windows allows in no file's name.
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]+')


@dataclass(frozen=True)
class Input:
    """One micrograph to predict."""

    file: Path
    dataset: str | None = None  #: inside the file; None for the only or the standard one
    below: Path = Path()  #: the sub-folder of a given folder that it lies in, kept for the result

    @classmethod
    def of(cls, path: "str | Path | Input") -> "Input":
        """Return the input that a path, or `FILE::DATASET`, stands for."""
        return path if isinstance(path, cls) else cls(*split_dataset(path))  # type: ignore[arg-type]

    def choosing(self, choice: FileChoice) -> "Input":
        """Return the input with a dataset chosen for all; an EMError if it names its own."""
        if choice.dataset is not None and self.dataset is not None:
            raise EMError(f"dataset is '{choice.dataset}', but {self} names one, too: give it once")
        return replace(self, dataset=self.dataset or choice.dataset_in(self.file))

    def __str__(self) -> str:
        return str(self.file) if self.dataset is None else f"{self.file}::{self.dataset}"

    def result(self, output: Path, form: str, index: int | None) -> Path:
        """Return where the result goes: the input's name, with its dataset and slice."""
        parts = [self.file.stem]
        if self.dataset is not None:
            parts.append(_FORBIDDEN.sub("_", self.dataset).strip("_. ") or "dataset")
        if index is not None:
            parts.append(f"slice{index:04d}" if index >= 0 else f"slice{index}")
        return output / self.below / f"{'_'.join(parts)}.{form}"

    def facts(self, output: Path) -> dict[str, Any]:
        """Return where the file lies from the results, its size in bytes and time of change.

        Of a folder (Zarr) these are those of all its files.
        """
        files = [file for file in self.file.rglob("*") if file.is_file()] if self.file.is_dir() else [self.file]
        states = [file.stat() for file in files]
        changed = max((state.st_mtime_ns for state in states), default=0)
        try:
            path = Path(os.path.relpath(self.file.resolve(), output.resolve())).as_posix()
        except ValueError:  # another drive of Windows
            path = self.file.resolve().as_posix()
        name = self.file.name if self.dataset is None else f"{self.file.name}::{self.dataset}"
        return {"name": name, "path": path, "bytes": sum(state.st_size for state in states), "changed": changed}


def expand_inputs(given: list[str], output: Path) -> list[Input]:
    """Return the micrographs that names, patterns and folders stand for.

    Of a folder, nothing that lies in the folder of the results is taken.

    Raises:
        EMError: a name, pattern or folder stands for no micrograph.
    """
    found: list[Input] = []
    for name in given:
        if not name.strip():
            raise EMError("an input is empty; expected a file, a pattern or a folder")
        found += _expand(name, output)
    return list(dict.fromkeys(found))


def _expand(name: str, output: Path) -> list[Input]:
    path, dataset = split_dataset(name)
    if path.is_dir() and path.suffix.lower() not in SUFFIXES:
        if dataset is not None:
            raise EMError(f"{path} is a folder, which holds no dataset '{dataset}': give {path / '*'}::{dataset}")
        return _in_folder(path, output)
    if path.exists() or not glob.has_magic(str(path)):
        return [Input(path, dataset)]  # one that is missing is reported when it is its turn
    # pathlib takes no absolute patterns
    matches = (Path(match) for match in sorted(glob.glob(str(path), recursive=True)))  # noqa: PTH207
    chosen = [Input(match, dataset) for match in matches if match.suffix.lower() in SUFFIXES]
    if not chosen:
        raise EMError(f"no micrograph matches {name}; looked for {', '.join(SUFFIXES)}")
    return chosen


def _in_folder(folder: Path, output: Path) -> list[Input]:
    files, results = list_micrographs(folder), output.resolve()
    if results != folder.resolve():
        own = [file for file in files if results in file.resolve().parents]
        if own:
            logger.warning("%s: %d files in %s, where the results go, are left out", folder, len(own), output)
        files = [file for file in files if file not in own]
    if not files:
        raise EMError(f"{folder} holds no micrograph outside {output}, where the results go: choose another --output")
    return [Input(file, None, file.parent.relative_to(folder)) for file in files]


def check_names(targets: list[tuple[Input, Path]]) -> None:
    """Raise an error if two results would have one name, on any system, or if one is an input."""
    first: dict[str, Input] = {}
    for given, target in targets:
        name = plain(target.as_posix())
        if name in first:
            raise EMError(
                f"{first[name]} and {given} would both become {target}: predict them apart, into folders of their "
                "own, or give a pattern such as *.dm4"
            )
        first[name] = given
    inputs = {given.file.resolve(): given for given, _ in targets}
    for given, target in targets:
        taken = inputs.get(target.resolve())
        if taken is not None:
            raise EMError(f"the result of {given} would replace the micrograph {taken.file}: choose another --output")
