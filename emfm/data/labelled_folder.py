"""Folders to fine-tune from: `images/` with `masks/` or `targets/` of the same names, splits."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emfm.data.classes import GreyValues, read_labels, values_as_classes
from emfm.data.json_files import find_entry, find_json
from emfm.data.splits import names_of_split, read_splits, split_called
from emfm.data.truth_files import TruthFiles
from emfm.errors import EMError
from emfm.io.masks import Mask, read_masks
from emfm.io.reading import FileChoice, Micrograph, list_micrographs, read_slices

logger = logging.getLogger(__name__)
# The folder that holds the truth: the column that holds the same in a data set.
TRUTHS = {"masks": "mask", "targets": "target", "instances": "instance"}
# A micrograph, its truth (of a clean one itself), and the name of the truth.
Record = tuple[Micrograph, Micrograph, str]
EXPECTED = "a labelled folder holds images/ and masks/ of the same file names, a paired one images/ and targets/"
DEGRADE = "pairs can also be made from clean images with --degrade"
# What tells labels of other programs in JSON from other JSON files.
MARKS_OF_LABELS = (b'"shapes"', b'"annotations"', b'"regions"', b'"FeatureCollection"')
LARGEST_LABELS = 2**26  # bytes of such a file that are looked at


class OtherLabelsError(EMError):
    """A folder holds labels of another program, which `emfm.labels` reads."""


@dataclass(frozen=True)
class LabelledFolder:
    """The images of a folder with their truth, by split."""

    folder: Path
    images: Path  #: folder of the images: `images/`, or the folder itself
    names: list[str]  #: of all images, relative to it
    splits: dict[str, list[str]]  #: names of each split that has any, as "train" and "validation"
    truth: TruthFiles | None  #: where the truth of each image lies
    choice: FileChoice  #: of every image and target

    def records(self, split: str) -> Iterator[Record]:
        """Iterate over a split's micrographs, their truth (without one themselves) and its path.

        Stacks come slice by slice, called `v.tif[0]`. A warning names files of the folder that
        belong to no split, or to no image.

        Raises:
            MissingSplitError: there is no such split; before anything is read.
            EMError: a file is missing or broken, or a stack has not as many slices as its truth.
        """
        names = names_of_split(self.splits, split, self.folder)
        return self._read(names, warn=split_called(split) == "train")

    def _read(self, names: list[str], warn: bool) -> Iterator[Record]:
        for name in names:
            path = self.images / name
            slices = [named_slice(micrograph) for micrograph in read_slices(path, self.choice)]
            if self.truth is None:
                yield from ((micrograph, micrograph, "") for micrograph in slices)
                continue
            where = self.truth.path(name)
            truths = self.truth.read(where, self.choice)
            _check_slices(path, slices, where, truths)
            for micrograph, truth in zip(slices, truths, strict=True):
                yield micrograph, truth, str(where) if truth.index is None else f"{where}[{truth.index}]"
        if warn:  # not before an error, which says more
            self._warn_of_unused()

    def unused(self) -> list[str]:
        """Return the images that are in no split."""
        return sorted(set(self.names).difference(*self.splits.values()))

    def _warn_of_unused(self) -> None:
        if unused := self.unused():
            more = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
            logger.warning("%s: %s%s in no split: left out", self.images, ", ".join(unused[:3]), more)
        if self.truth is not None:
            self.truth.warn_of_unused()


def named_slice(micrograph: Micrograph) -> Micrograph:
    """Return a slice of a stack under a name that tells which; a single image as it is."""
    index = micrograph.index
    return micrograph if index is None else replace(micrograph, name=f"{micrograph.name}[{index}]")


def _check_slices(path: Path, slices: Sequence[Micrograph], where: Path, truths: Sequence[Micrograph]) -> None:
    """Raise an error unless an image has one truth, and a stack one for each of its slices."""
    kinds = [f"a stack of {len(some)}" if some[0].index is not None else "one image" for some in (slices, truths)]
    if kinds[0] != kinds[1]:
        raise EMError(
            f"{where} holds {kinds[1]}, {path} {kinds[0]}: a stack needs the truth of each slice, in a stack of "
            "as many; a single image needs a single one"
        )


def folder_truth(folder: Path) -> str:
    """Return which truth a folder holds: "masks" or "targets", "instances" where it has neither.

    Raises:
        EMError: it has none, or both.
    """
    _images_of(folder)
    found = truths_of(folder)
    found = [truth for truth in found if truth != "instances"] or found
    if len(found) == 2:
        raise EMError(f"{folder} holds masks/ and targets/: say which with truth='masks' or truth='targets'")
    if not found:
        _check_labels_of_others(folder)
        raise EMError(
            f"there is no folder {folder / 'masks'} (segmentation) or {folder / 'targets'} "
            f"(restoration) beside images/; {DEGRADE}"
        )
    return found[0]


def truths_of(folder: Path) -> list[str]:
    """Return which folders with truth a folder holds, in any case of their names."""
    return [truth for truth in TRUTHS if find_entry(folder, truth, Path.is_dir)]


def open_labelled_folder(folder: Path, truth: str | None, choice: FileChoice | None = None) -> LabelledFolder:
    """Open a folder; nothing but `splits.json` is read yet.

    Args:
        folder: with `images/`, or of micrographs alone.
        truth: "masks", "targets", or None for the micrographs alone.
        choice: what is taken of every image and target.

    Raises:
        EMError: a folder is missing, or `splits.json` is damaged.
    """
    images = _images_of(folder, needed=truth is not None)
    if truth is None:
        place = None
    else:
        place = find_entry(folder, truth, Path.is_dir)
        if place is None:
            _check_labels_of_others(folder)
            more = f"; {DEGRADE}" if truth == "targets" else ""
            missing = f"{folder / truth}; {_hint(folder)}{truth}/"
            raise EMError(f"there is no folder {missing} holds a file of the same name for each of images/{more}")
    names = [path.relative_to(images).as_posix() for path in list_micrographs(images)]
    choice = choice or FileChoice()
    choice.check(names, str(images))
    truths = TruthFiles(place, truth, images, names) if place and truth else None
    return LabelledFolder(folder, images, names, read_splits(folder, images, names), truths, choice)


def _images_of(folder: Path, needed: bool = True) -> Path:
    """Return the folder of the images: `images/`, or the folder itself where it is not `needed`."""
    if folder.is_file():
        if _has_labels(folder):
            raise OtherLabelsError(
                f"{folder} seems to hold labels of another program: emfm labels import {folder} --output NEW makes a "
                "labelled folder of them"
            )
        raise EMError(f"{folder} is a file; {EXPECTED}: give the folder, an archive unpacked")
    if not folder.is_dir():
        raise EMError(f"there is no folder {folder}; {EXPECTED}")
    images = find_entry(folder, "images", Path.is_dir)
    if images is None and needed:
        _check_labels_of_others(folder)
        raise EMError(f"there is no folder {folder / 'images'}; {_hint(folder)}{EXPECTED}")
    return images or folder


def _check_labels_of_others(folder: Path) -> None:
    """Raise an OtherLabelsError where those of another program lie in a folder."""
    for place in (folder, folder / "images"):
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            if path.is_file() and _has_labels(path):
                raise OtherLabelsError(
                    f"{folder} is no labelled folder; {path.name} seems to hold labels of another program: "
                    f"emfm labels import {place} --output NEW makes a labelled folder of them"
                )


def _has_labels(path: Path) -> bool:
    """Tell whether a file looks like labels of another program (`emfm.labels` reads them)."""
    suffix = path.suffix.lower()
    if suffix in (".geojson", ".roi") or (suffix == ".zip" and "roi" in path.name.lower()):
        return True
    if suffix != ".json":
        return False
    with path.open("rb") as file:
        content = file.read(LARGEST_LABELS)
    return any(mark in content for mark in MARKS_OF_LABELS)


def _hint(folder: Path) -> str:
    """Return where the images are perhaps, if not in `images/`."""
    parent = folder.absolute().parent
    if folder.absolute().name.casefold() in ("images", *TRUTHS) and find_entry(parent, "images", Path.is_dir):
        return f"did you mean {folder.parent}? "
    inside = sorted(part.name for part in folder.iterdir() if part.is_dir() and find_entry(part, "images", Path.is_dir))
    if inside:
        return (
            f"{' and '.join(inside)} hold images/: give one of them, or for splits move them to "
            f"images/{inside[0]}, masks/{inside[0]} and so on; "
        )
    parts = sorted(part.name for part in folder.iterdir() if part.is_dir())
    return f"it has {', '.join(parts[:5])}; " if parts else ""


def folder_classes(folder: Path, masks: TruthFiles) -> GreyValues:
    """Return the classes of the masks, from `labels.json` or from the values that they hold."""
    path = find_json(folder, "labels.json")
    if path is not None:
        return read_labels(path)
    found: Iterator[Mask] = (mask for file in masks.paths() for mask in read_masks(file))
    return values_as_classes(found, str(masks.folder), str(folder / "labels.json"))
