"""What people drew on an image, whatever program they drew it with."""

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import numpy as np

from emfm.errors import EMError

# How programs call what belongs to no class, and what lies behind all objects.
_COMMON_NAMES = {"__ignore__": "ignore", "_background_": "background"}


@dataclass(frozen=True)
class Region:
    """Pixels of an image: a patch of truth values, all of it within the image."""

    top: int
    left: int
    mask: np.ndarray  #: (h, w) bool

    @property
    def place(self) -> tuple[slice, slice]:
        """The rows and columns of the patch."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    @property
    def area(self) -> int:
        """The number of pixels."""
        return int(self.mask.sum())


EMPTY = Region(0, 0, np.zeros((0, 0), dtype=bool))


@dataclass(frozen=True)
class Drawn:
    """One shape with the name of its class."""

    label: str
    where: str  #: it stands in its file, for errors: "a.json, shape 3"
    fill: Callable[[tuple[int, int]], Region]  #: its pixels in an image of a size (H, W)
    object: Hashable = None  #: shapes of one object share it; None is an object of its own

    def region(self, shape: tuple[int, int]) -> Region:
        """Return its pixels in an image of a size (H, W).

        Raises:
            EMError: it lies outside the image.
        """
        found = self.fill(shape)
        if not found.mask.size:
            raise EMError(f"{self.where} lies outside its image of {shape[0]} x {shape[1]} pixels: correct it there")
        return found


@dataclass
class DrawnImage:
    """What was drawn on one image, in the order in which the program draws it."""

    file: str  #: that holds the labels, for errors
    image: str  #: name of the image, as the file says it, or as its own name says it
    drawn: list[Drawn] = field(default_factory=list)
    shape: tuple[int, int] | None = None  #: (H, W) of the image, where the file says it
    index: int | None = None  #: slice of a stack
    left_out: Counter[str] = field(default_factory=Counter)  #: kinds of shapes without pixels


def common_name(label: str) -> str:
    """Return a label as labelled folders have it, where a program spells it in its own way."""
    return _COMMON_NAMES.get(label.casefold(), label)


def box_of(points: np.ndarray, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return (top, bottom, left, right) around points (N, 2) as x, y, within an image."""
    (left, top), (right, bottom) = np.floor(points.min(axis=0)) - 1, np.ceil(points.max(axis=0)) + 2
    rows = np.clip([top, bottom], 0, shape[0]).astype(int)
    columns = np.clip([left, right], 0, shape[1]).astype(int)
    return int(rows[0]), int(rows[1]), int(columns[0]), int(columns[1])
