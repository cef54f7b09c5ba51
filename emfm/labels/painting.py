"""The micrographs that labels of other programs belong to, with their masks, one after another."""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from emfm.errors import EMError
from emfm.io.reading import FileChoice, Micrograph, read_slices
from emfm.labels.arguments import UNLABELLED_OF, ImportArguments
from emfm.labels.paint import COVERS_NOTHING, Classes, classes_of, paint
from emfm.labels.places import Places
from emfm.labels.reading import read_labels_of
from emfm.labels.shapes import DrawnImage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PaintedImage:
    """A micrograph, or a stack, with what was drawn on it.

    Attributes:
        name: of the image, below the folder of images.
        path: of the image.
        mask_name: what its mask is called.
        slices: as they are read.
        masks: grey values (H, W) of each slice.
        ids: numbers of objects (H, W) uint32 of each slice.
    """

    name: str
    path: Path
    mask_name: str
    slices: list[Micrograph]
    masks: list[np.ndarray]
    ids: list[np.ndarray]

    @property
    def stack(self) -> bool:
        """Whether it is a stack."""
        return self.slices[0].index is not None


class Paintings:
    """What was drawn on all micrographs: iterating paints one after another.

    Args:
        source: a file of labels, or a folder of them.
        how: they are read.
        choice: how colour becomes grey.

    Attributes:
        format: of the program that made the labels.
        classes: with their grey values.
        ignored: whether any pixel that was painted so far is to be ignored.

    Raises:
        EMError: a file is damaged, or belongs to no image.
    """

    def __init__(self, source: Path, how: ImportArguments, choice: FileChoice):
        self.format, self._found = read_labels_of(source, how)
        self._places = Places(source, self.format, how.images)
        pairs = self._places.pairs(self._found)
        self._background = (how.unlabelled or UNLABELLED_OF[self.format]) == "background"
        self.classes: Classes = classes_of(self._found, how.classes, self._background)
        self._pairs = {
            name: parts for name, parts in pairs.items() if self._background or any(part.drawn for part in parts)
        }
        self._source, self._overlap, self._choice = source, how.overlap, choice
        self.ignored = False
        self._taken: dict[str, str] = {}  # mask: the image that has it

    @property
    def names(self) -> list[str]:
        """The names of the images."""
        return list(self._pairs)

    @property
    def shapes(self) -> int:
        """How many shapes cover pixels, once all are painted."""
        return sum(len(part.drawn) - part.left_out[COVERS_NOTHING] for part in self._found)

    def __iter__(self) -> Iterator[PaintedImage]:
        """Paint one image after another; a warning counts shapes that have no pixels.

        Raises:
            EMError: labels do not fit their image, or a shape lies outside.
        """
        for name, parts in self._pairs.items():
            yield self._painted(name, self._places.path(name), parts)
        self._say_left_out()

    def _painted(self, name: str, path: Path, parts: list[DrawnImage]) -> PaintedImage:
        target = self._target(name)
        slices = list(read_slices(path, self._choice))
        stack = slices[0].index is not None
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
            mask, numbers = paint(part, shape, self.classes, seen, self._overlap)
            self.ignored |= bool((mask == self.classes.ignore).any())
            masks.append(mask)
            ids.append(numbers)
        if drawn:
            part = next(iter(drawn.values()))
            raise EMError(f"{part.file} is of slice {part.index + 1}, and {path} has {len(slices)}")  # type: ignore[operator]
        return PaintedImage(name, path, target, slices, masks, ids)

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

    def _say_left_out(self) -> None:
        left_out: Counter[str] = Counter()
        for image in self._found:
            left_out += image.left_out
        if left_out:
            kinds = ", ".join(f"{count} x {kind}" for kind, count in sorted(left_out.items()))
            logger.warning("%s: shapes without pixels of their own are left out: %s", self._source, kinds)


def _check_shape(part: DrawnImage, shape: tuple[int, ...], path: Path) -> None:
    if part.shape is not None and tuple(part.shape) != tuple(shape):
        raise EMError(
            f"{part.file} is of an image of {part.shape[0]} x {part.shape[1]} pixels, {path} has {shape[0]} x "
            f"{shape[1]}: give the images that the labels were drawn on with --images"
        )
