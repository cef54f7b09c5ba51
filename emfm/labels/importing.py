"""`emfm labels import`: labels of other programs become a labelled folder."""

import json
import logging
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import tifffile

from emfm.errors import EMError
from emfm.files import whole_folder, writable_folder, write_atomically, write_text
from emfm.io.reading import FileChoice, read_slices
from emfm.io.writing import write_image
from emfm.labels.arguments import UNLABELLED_OF, ImportArguments
from emfm.labels.paint import COVERS_NOTHING, Classes, classes_of, paint
from emfm.labels.places import Places
from emfm.labels.reading import read_labels_of
from emfm.labels.shapes import DrawnImage

logger = logging.getLogger(__name__)
COLOURED = FileChoice(colour="luminance")  # only sizes are asked for


@dataclass(frozen=True)
class Imported:
    """What an import made."""

    folder: Path
    images: int
    shapes: int  #: that cover pixels
    classes: tuple[str, ...]
    format: str


def import_labels(source: str | Path, output: str | Path, arguments: ImportArguments | None = None) -> Imported:
    """Make a labelled folder from labels of another program; nothing is written if a file is wrong.

    Polygons become masks as their program fills them (docs/labels.md says how).

    Args:
        source: a file of labels, or a folder of them.
        output: the new folder: `images/` (copies), `masks/`, `labels.json`, `splits.json`, and with
            `arguments.instances` the numbers of objects in `instances/`.
        arguments: how; the defaults if None.

    Raises:
        EMError: a file is damaged, belongs to no image or does not fit it, a shape lies outside, or
            the folder is there.
    """
    how, source, output = arguments or ImportArguments(), Path(source), Path(output)
    writable_folder(output)
    if output.is_dir() and any(output.iterdir()):
        raise EMError(f"{output} is not empty: choose another --output")
    form, found = read_labels_of(source, how)
    places = Places(source, form, how.images)
    pairs = places.pairs(found)
    background = (how.unlabelled or UNLABELLED_OF[form]) == "background"
    classes = classes_of(found, how.classes, background)
    pairs = {name: parts for name, parts in pairs.items() if background or any(part.drawn for part in parts)}
    painter = _Painter(classes, background, how)
    with whole_folder(output) as temporary:
        for name, parts in pairs.items():
            painter.write(temporary, name, places.path(name), parts)
        classes_json = classes.labels(painter.ignored)
        write_text(temporary / "labels.json", json.dumps(classes_json, indent=1, ensure_ascii=False))
        write_text(temporary / "splits.json", json.dumps({"train": list(pairs)}, indent=1, ensure_ascii=False))
    _say_left_out(found, source)
    shapes = sum(len(part.drawn) - part.left_out[COVERS_NOTHING] for part in found)
    return Imported(output, len(pairs), shapes, classes.names, form)


class _Painter:
    """Writes images with their masks, and remembers whether any pixel is ignored."""

    def __init__(self, classes: Classes, background: bool, how: ImportArguments):
        self._classes, self._background, self._how = classes, background, how
        self.ignored = False
        self._taken: dict[str, str] = {}  # mask: the image that has it

    def write(self, folder: Path, name: str, path: Path, parts: list[DrawnImage]) -> None:
        """Copy one micrograph, write its mask, and where asked for the numbers of its objects."""
        slices = list(read_slices(path, COLOURED))
        stack = slices[0].index is not None
        target = self._target(name)
        drawn = {part.index: part for part in parts}
        if stack and None in drawn:
            raise EMError(
                f"{drawn[None].file} does not say of which slice of {path} it is, a stack: save each as its own file"
            )
        masks, ids = [], []
        for number, micrograph in enumerate(slices):
            part = drawn.pop(number, None) or drawn.pop(None, None) or DrawnImage(str(path), name)
            shape = micrograph.image.shape
            _check_shape(part, shape, path)
            # of a stack, nobody may have looked at a slice on which nothing is drawn
            seen = self._background and (bool(part.drawn) or not stack)
            mask, numbers = paint(part, shape, self._classes, seen, self._how.overlap)
            self.ignored |= bool((mask == self._classes.ignore).any())
            masks.append(mask)
            ids.append(numbers)
        if drawn:
            part = next(iter(drawn.values()))
            raise EMError(f"{part.file} is of slice {part.index + 1}, and {path} has {len(slices)}")  # type: ignore[operator]
        _copy(path, folder / "images" / name)
        _write(folder / "masks" / target, masks, stack)
        if self._how.instances:
            few = max(int(numbers.max(initial=0)) for numbers in ids) < 2**16
            found = [numbers.astype(np.uint16 if few else np.uint32) for numbers in ids]
            _write(folder / "instances" / PurePosixPath(target).with_suffix(".tif"), found, stack)

    def _target(self, name: str) -> str:
        """Return the name of an image's mask.

        Raises:
            EMError: another image has it.
        """
        target = PurePosixPath(name).with_suffix(".png").as_posix()
        other = self._taken.setdefault(target.casefold(), name)
        if other != name:
            raise EMError(f"{other} and {name} would both have the mask {target}: give each image a name of its own")
        return target


def _check_shape(part: DrawnImage, shape: tuple[int, ...], path: Path) -> None:
    if part.shape is not None and tuple(part.shape) != tuple(shape):
        raise EMError(
            f"{part.file} is of an image of {part.shape[0]} x {part.shape[1]} pixels, {path} has {shape[0]} x "
            f"{shape[1]}: give the images that the labels were drawn on with --images"
        )


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():  # Zarr
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _write(path: Path, slices: list[np.ndarray], stack: bool) -> None:
    """Write a mask, or the masks of a stack."""
    if stack:
        path = path.with_suffix(".tif")
        write_atomically(
            path, lambda temporary: tifffile.imwrite(temporary, np.stack(slices), photometric="minisblack")
        )
    else:
        write_image(path, slices[0])


def _say_left_out(found: list[DrawnImage], source: Path) -> None:
    """Warn of shapes that have no pixels, counted by their kinds."""
    left_out: Counter[str] = Counter()
    for image in found:
        left_out += image.left_out
    if left_out:
        kinds = ", ".join(f"{count} x {kind}" for kind, count in sorted(left_out.items()))
        logger.warning("%s: shapes without pixels of their own are left out: %s", source, kinds)
