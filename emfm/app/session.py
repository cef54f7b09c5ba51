"""A labelling session: a labelled folder on disk, whole after every stroke."""

import json
import shutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import RLock

import numpy as np

from emfm.app.painting import History, Stroke
from emfm.data.classes import IGNORE, read_labels
from emfm.data.json_files import read_json_object
from emfm.data.splits import split_called, stem
from emfm.errors import EMError
from emfm.files import write_atomically, write_text
from emfm.io.masks import read_masks
from emfm.io.reading import Micrograph, list_micrographs, read_micrograph
from emfm.io.writing import write_image

UNLABELLED = 255
FIRST_CLASSES = ("background", "particle")
MOST_CLASSES = 9  # one for each number key
MASKS = (".png", ".tif", ".tiff")


@dataclass
class Painting:
    """A micrograph's mask in grey values (H, W), and what can be taken back."""

    path: Path
    mask: np.ndarray
    written: int  #: when the file was last written, in ns; 0 where there is none
    history: History = field(default_factory=History)
    counts: list[int] | None = None  #: pixels of each class, where they were counted


class LabelSession:
    """Micrographs with partly painted masks, in a folder that `emfm finetune` takes as it is.

    `images/` holds the micrographs, `masks/` what is painted on them, `labels.json` the classes and
    the grey value of unlabelled pixels, `splits.json` which micrographs have labels.

    Args:
        folder: made with the first micrograph; or any labelled folder with masks.

    Raises:
        EMError: the folder holds something else, or its labels.json is damaged.
    """

    def __init__(self, folder: str | Path):
        self.folder, self.lock = Path(folder), RLock()
        self._opened: dict[str, Micrograph] = {}
        self._paintings: dict[str, Painting] = {}
        if self.folder.is_file():
            raise EMError(f"{folder} is a file; expected a folder for the session's labels")
        there = self.folder.is_dir() and any(self.folder.iterdir())
        if there and not (self.folder / "images").is_dir():
            raise EMError(f"{folder} is not empty and no labelled folder: choose another one for the session")
        names = dict(enumerate(FIRST_CLASSES)) | {UNLABELLED: IGNORE}
        if (self.folder / "labels.json").is_file():
            names = read_labels(self.folder / "labels.json").names
        self.values = {label: value for value, label in sorted(names.items()) if label.casefold() != IGNORE}
        ignored = [value for value, label in names.items() if label.casefold() == IGNORE]
        free = [value for value in range(255, -1, -1) if value not in self.values.values()]
        self.unlabelled = ignored[0] if ignored else free[0]

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of their grey values."""
        return list(self.values)

    def names(self) -> list[str]:
        """Return the names of all micrographs, sorted."""
        images = self.folder / "images"
        if not images.is_dir() or not any(images.iterdir()):
            return []
        return [path.relative_to(images).as_posix() for path in list_micrographs(images)]

    def add(self, path: str | Path, name: str | None = None) -> str:
        """Copy a micrograph of any format into the session; returns its name there.

        One of that name and content is there already: it is kept.

        Raises:
            EMError: the file cannot be read, is a stack, or another one has its name.
        """
        path, name = Path(path), name or Path(path).name
        read_micrograph(path)  # of a stack this says what to do
        with self.lock:
            place = self.folder / "images" / name
            taken = {stem(known): known for known in self.names()}
            if stem(name) in taken:
                known = self.folder / "images" / taken[stem(name)]
                if path.is_file() and known.is_file() and known.read_bytes() == path.read_bytes():
                    return taken[stem(name)]
                raise EMError(f"the session has another micrograph called {taken[stem(name)]}: rename the new one")
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, place)
            else:
                write_atomically(place, partial(shutil.copyfile, path))
            if not (self.folder / "labels.json").is_file():
                self._write_classes()
            return name

    def micrograph(self, name: str) -> Micrograph:
        """Return a micrograph, whose pixels may stay in the file.

        Raises:
            EMError: there is none of this name, or it cannot be read.
        """
        with self.lock:
            if name not in self._opened:
                if name not in self.names():
                    raise EMError(f"the session has no micrograph '{name}': open it again")
                self._opened[name] = read_micrograph(self.folder / "images" / name)
            return self._opened[name]

    def painting(self, name: str) -> Painting:
        """Return a micrograph's mask; read again where another program wrote the file.

        Raises:
            EMError: the mask cannot be read, has another size, or holds values without a class.
        """
        with self.lock:
            path = self._mask_path(name)
            written = path.stat().st_mtime_ns if path.is_file() else 0
            known = self._paintings.get(name)
            if known is not None and known.written == written:
                return known
            shape = tuple(self.micrograph(name).image.shape)
            mask = np.full(shape, self.unlabelled, dtype=np.uint8)
            if written:
                (read,) = read_masks(path)[:1]
                mask = np.array(read.array if read.shown is None else read.shown)
                strange = sorted(set(np.unique(mask).tolist()) - {*self.values.values(), self.unlabelled})
                if mask.shape != shape or mask.dtype != np.uint8 or strange:
                    found = f"{mask.dtype} {mask.shape}, values without a class: {strange[:5]}"
                    raise EMError(f"{path} holds {found}; expected a mask of 8 bits {shape} in the classes' values")
            self._paintings[name] = Painting(path, mask, written)
            return self._paintings[name]

    def painted(self, name: str) -> bool:
        """Tell whether a micrograph has a mask."""
        return self._mask_path(name).is_file()

    def labels(self, name: str, part: tuple[slice, slice] = (slice(None), slice(None))) -> np.ndarray:
        """Return class indices (H, W) int16 of a part, -1 where nothing is painted."""
        indices = np.full(256, -1, dtype=np.int16)
        indices[list(self.values.values())] = np.arange(len(self.values))
        with self.lock:
            return indices[self.painting(name).mask[part]]

    def counts(self, name: str) -> list[int]:
        """Return how many pixels of each class are painted."""
        with self.lock:
            painting = self.painting(name)
            if painting.counts is None or len(painting.counts) < len(self.values):
                # a comparison for each class takes a tenth of the time of a histogram
                painting.counts = [int(np.count_nonzero(painting.mask == value)) for value in self.values.values()]
            return list(painting.counts)

    def paint(self, name: str, label: str | None, radius: float, points: list[tuple[float, float]]) -> bool:
        """Paint a stroke of a class, or erase without one; returns whether it met the micrograph.

        Raises:
            EMError: there is no such class, or the stroke is none.
        """
        if label is not None and label not in self.values:
            raise EMError(f"there is no class '{label}'; the session has {', '.join(self.values)}")
        value = self.unlabelled if label is None else self.values[label]
        with self.lock:
            painting = self.painting(name)
            painted = Stroke(value, radius, points).paint(painting.mask)
            if painted is None:
                return False
            painting.history.add(painted)
            self._write(name, painting)
            return True

    def undo(self, name: str) -> bool:
        """Take the last stroke on a micrograph back; returns whether there was one."""
        with self.lock:
            painting = self.painting(name)
            undone = painting.history.take_back(painting.mask)
            if undone:
                self._write(name, painting)
            return undone

    def name_classes(self, names: list[str]) -> None:
        """Rename the classes in their order; further names are new classes.

        Raises:
            EMError: two names are alike, one is empty or means unlabelled, or there are too few.
        """
        names = [name.strip() for name in names]
        alike = len({name.casefold() for name in names}) < len(names)
        if alike or not all(names) or IGNORE in map(str.casefold, names):
            raise EMError(f"classes are {', '.join(names)}; expected names, each once, and none called '{IGNORE}'")
        if not max(2, len(self.values)) <= len(names) <= MOST_CLASSES:
            raise EMError(f"there are {len(names)} classes; expected {len(self.values)} to {MOST_CLASSES}")
        with self.lock:
            values = list(self.values.values())
            free = [value for value in range(256) if value > max(values) and value != self.unlabelled]
            free += [value for value in range(256) if value not in (*values, self.unlabelled, *free)]
            values += free[: len(names) - len(values)]
            self.values = dict(sorted(zip(names, values, strict=True), key=lambda pair: pair[1]))
            self._write_classes()

    def _mask_path(self, name: str) -> Path:
        base = (self.folder / "masks" / name).with_suffix("")
        found = [base.with_name(base.name + suffix) for suffix in MASKS]
        return next((path for path in found if path.is_file()), found[0])

    def _write(self, name: str, painting: Painting) -> None:
        """Write the mask before the splits that name it: what they name is always there."""
        painting.counts = None
        painting.path.parent.mkdir(parents=True, exist_ok=True)
        write_image(painting.path, painting.mask)
        painting.written = painting.path.stat().st_mtime_ns
        path = self.folder / "splits.json"
        splits = read_json_object(path, "file names by split") if path.is_file() else {}
        if any(name in listed for listed in splits.values()):
            return
        split = next((known for known in splits if split_called(known) == "train"), "train")
        splits[split] = [*splits.get(split, []), name]
        write_text(path, json.dumps(splits, indent=1))

    def _write_classes(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        names = {str(value): label for label, value in self.values.items()} | {str(self.unlabelled): IGNORE}
        write_text(self.folder / "labels.json", json.dumps(names, indent=1))
