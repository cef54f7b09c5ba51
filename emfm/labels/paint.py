"""From what was drawn to masks of grey values, and to numbers of objects."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from emfm.class_names import class_name, is_background
from emfm.data.classes import IGNORE
from emfm.errors import EMError, nearest
from emfm.labels.shapes import Drawn, DrawnImage, Region

BACKGROUND = "background"
# Labels that are numbers: the first stands for the first class that the user names.
NUMBERED = re.compile(r"(?:class|group) ([0-9]+)")
COVERS_NOTHING = "shape that covers no pixel"  # in what is left out
FEW = 255  # so many classes fit into eight bits beside "ignore"


@dataclass(frozen=True)
class Classes:
    """Names of the classes, in the order of the masks' values."""

    names: tuple[str, ...]
    given: tuple[str, ...] = ()  #: those that the user named, in that order; then others are errors

    @property
    def ignore(self) -> int:
        """The grey value of pixels about which nobody knows."""
        return 255 if len(self.names) <= FEW else 65535

    @property
    def dtype(self) -> type:
        """The type of masks."""
        return np.uint8 if len(self.names) <= FEW else np.uint16

    def value(self, drawn: Drawn) -> int:
        """Return the grey value of a shape.

        Raises:
            EMError: its class is none of those that were given.
        """
        name = self.name(drawn)
        if name.casefold() == IGNORE:
            return self.ignore
        if name not in self.names:
            raise EMError(
                f"{drawn.where} is of the class '{name}', which --classes does not name; {nearest(name, self.names)}"
            )
        return self.names.index(name)

    def name(self, drawn: Drawn) -> str:
        """Return the name of a shape's class."""
        name = class_name(drawn.label, f"{drawn.where}: its class")
        numbered = NUMBERED.fullmatch(name)
        if numbered and name not in self.given and 1 <= int(numbered[1]) <= len(self.given):
            return self.given[int(numbered[1]) - 1]
        spelled = {known.casefold(): known for known in self.names}
        return spelled.get(name.casefold(), name)

    def labels(self, ignored: bool) -> dict[str, str]:
        """Return what `labels.json` says."""
        found = {str(value): name for value, name in enumerate(self.names)}
        return {**found, str(self.ignore): IGNORE} if ignored else found


def classes_of(images: Iterable[DrawnImage], given: Sequence[str] | None, background: bool) -> Classes:
    """Return the classes: those that are given, or all that are drawn, in the order of the files.

    Args:
        images: with all that was drawn.
        given: by the user.
        background: whether pixels that nobody drew on are a class, which then comes first.

    Raises:
        EMError: there are fewer than two, or too many.
    """
    chosen = tuple(class_name(name, "a class") for name in given or ())
    names = list(chosen)
    if not given:
        every = Classes(())
        found = (every.name(drawn) for image in images for drawn in image.drawn)
        by_look: dict[str, str] = {}
        for name in found:
            by_look.setdefault(name.casefold(), name)
        names = sorted(by_look.values(), key=_order)
    names = [name for name in names if name.casefold() != IGNORE]
    if background and not any(is_background(name) for name in names):
        names = [BACKGROUND, *names]
    if len(names) < 2:
        raise EMError(
            f"the labels name {f'the class {names[0]!r} alone' if names else 'no class'}; two are needed: draw "
            "another, or take what nobody drew on as background with --unlabelled background"
        )
    if len(names) >= 65535:
        raise EMError(f"the labels name {len(names)} classes; expected up to 65534: are they numbers of objects?")
    return Classes(tuple(names), chosen)


def _order(name: str) -> tuple[bool, str, int]:
    """Order names: the background first, numbered ones by their number, others by the alphabet."""
    numbered = NUMBERED.fullmatch(name)
    return (not is_background(name), "" if numbered else name.casefold(), int(numbered[1]) if numbered else 0)


def paint(
    image: DrawnImage, shape: tuple[int, int], classes: Classes, background: bool, overlap: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return a mask (H, W) of grey values, and numbers of objects (H, W) uint32.

    Shapes that cover no pixel are counted among what is left out.

    Args:
        image: what was drawn.
        shape: (H, W).
        classes: with their values.
        background: what pixels are that nobody drew on; else they are to be ignored.
        overlap: "last", "first" or "smallest": which shape keeps the pixels of several.

    Raises:
        EMError: a shape lies outside the image, or its class is unknown.
    """
    nothing = next((value for value, name in enumerate(classes.names) if is_background(name)), classes.ignore)
    start = nothing if background else classes.ignore
    mask: np.ndarray = np.full(shape, start, dtype=classes.dtype)
    ids = np.zeros(shape, dtype=np.uint32)  # of what is to be ignored, the mask tells
    found: list[tuple[Drawn, Region, int]] = []
    for drawn in image.drawn:
        region = drawn.region(shape)
        if region.mask.any():
            found.append((drawn, region, classes.value(drawn)))
        else:
            image.left_out[COVERS_NOTHING] += 1
    numbers = _numbers(found, classes)
    if overlap == "first":
        found.reverse()
    elif overlap == "smallest":
        found.sort(key=lambda entry: entry[1].area, reverse=True)
    for drawn, region, value in found:
        mask[region.place][region.mask] = value
        ids[region.place][region.mask] = numbers[id(drawn)]
    return mask, ids


def _numbers(found: Sequence[tuple[Drawn, Region, int]], classes: Classes) -> dict[int, int]:
    """Return a number for each object, by the shapes' identities: 0 for what is none."""
    numbers: dict[int, int] = {}
    of_objects: dict[object, int] = {}
    following = 1
    for drawn, _, value in found:
        if value == classes.ignore or is_background(classes.names[value]):
            numbers[id(drawn)] = 0
            continue
        key = id(drawn) if drawn.object is None else (value, drawn.object)
        if key not in of_objects:
            of_objects[key] = following
            following += 1
        numbers[id(drawn)] = of_objects[key]
    return numbers
