"""Scale bars that were drawn into a micrograph: horizontal, of one grey value.

They may have thin ticks. Thin ones between ticks, broken ones and those in colour are not found.
"""

import logging
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage

from emfm.errors import EMError
from emfm.io.reading import Micrograph

logger = logging.getLogger(__name__)
# Ink is within this share of the image's range from its darkest or brightest value: first what is
# plainly so, then what compression has blurred.
INKS = (0.08, 0.2)
# A bar fills its box to this share, without the blurred lines of its rim, and what lies above and
# below differs from it in that share of its pixels. It is so many times as long as it is high, so
# many pixels long at least, and takes these shares of the image's width and height at most.
FILLED, DIFFERENT, SLENDER, SHORTEST = 0.93, 0.96, 3.0, 16
LONGEST, HIGHEST = 0.75, 0.05
LOWEST_HEIGHT = 2
# Rows above and below that are compared with it, behind a rim of so many pixels that compression
# has blurred; they differ by this share of the range. Ticks may stand on this share of its ends.
BESIDE, RIMS, CONTRAST, TICKS = 2, (1, 2, 3), 0.25, 0.05
# Letters stand so many times their height above or below the bar at most; they are so high, as
# shares of the image's height, and there are so many at least.
NEAR, LETTERS, FEWEST = 2.0, (0.008, 0.09), 2
MARGIN = 2  # pixels around what is left out
LARGEST = 2**25  # pixels of an image that is looked at

Box = tuple[int, int, int, int]  # first row and column, and those after the last
NM = {"nm": 1.0, "um": 1e3, "µm": 1e3, "μm": 1e3, "mm": 1e6, "a": 0.1, "å": 0.1, "pm": 1e-3}
LENGTH = re.compile(r"\s*([0-9]+(?:[.,][0-9]+)?)\s*([a-zåµμ]+)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class ScaleBar:
    """A scale bar in an image."""

    box: Box  #: of the bar itself
    around: Box  #: of the bar and the letters beside it, with a margin

    @property
    def pixels(self) -> int:
        """Its length in pixels."""
        return self.box[3] - self.box[1]


def length_in_nm(text: str) -> float:
    """Return a length such as "500 nm", "0.2 um" or "2 µm" in nm.

    Raises:
        EMError: it is none.
    """
    found = LENGTH.fullmatch(text)
    unit = NM.get(found.group(2).casefold()) if found else None
    length = float(found.group(1).replace(",", ".")) if found else 0.0
    if unit is None or length <= 0:
        raise EMError(f"scale_bar is '{text}'; expected a length with its unit, such as '500 nm' or '0.2 um'")
    return length * unit


def find_scale_bars(image: Any) -> list[ScaleBar]:
    """Return the scale bars of an image (H, W), the lowest first.

    Images that stay in their files are not looked at.
    """
    if not isinstance(image, np.ndarray) or image.dtype.kind not in "iuf" or image.size > LARGEST:
        return []
    known = image[np.isfinite(image)] if image.dtype.kind == "f" else image
    if not known.size or known.min() == known.max():
        return []
    low, high = float(known.min()), float(known.max())
    grey = (np.nan_to_num(image, nan=low).astype(np.float32) - low) / (high - low)
    inks = [ink for tolerance in INKS for ink in (grey >= 1 - tolerance, grey <= tolerance)]
    candidates = [bar for ink in inks for bar in _bars_of(ink)]
    found: list[ScaleBar] = []
    for rim in RIMS:
        for bar in candidates:
            if _parted(grey, bar.box, rim) and not any(_meet(bar.box, other.box) for other in found):
                found.append(replace(bar, box=_to_ends(grey, bar.box)))
    return sorted(found, key=lambda bar: bar.box[0], reverse=True)


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _bars_of(ink: np.ndarray) -> list[ScaleBar]:
    """Return what has the form of a bar among the pixels (H, W) of one ink."""
    height = ink.shape[0]
    labels, count = ndimage.label(ink)
    boxes = [
        (rows.start, columns.start, rows.stop, columns.stop) for rows, columns in ndimage.find_objects(labels, count)
    ]
    found = []
    for number, whole in enumerate(boxes, start=1):
        if not _slender(whole, ink.shape):
            continue
        box = _core(labels[whole[0] : whole[2], whole[1] : whole[3]] == number, whole)
        filled = (labels[box[0] : box[2], box[1] : box[3]] == number).mean() if _slender(box, ink.shape) else 0.0
        if filled >= FILLED:
            found.append(ScaleBar(box, _grown(_with_letters(whole, boxes, height), ink.shape)))
    return found


def _slender(box: Box, shape: tuple[int, ...]) -> bool:
    """Return whether a box has the form of a bar in an image (H, W)."""
    rows, columns = box[2] - box[0], box[3] - box[1]
    if not LOWEST_HEIGHT <= rows <= max(LOWEST_HEIGHT, HIGHEST * shape[0]):
        return False
    return max(SHORTEST, SLENDER * rows) <= columns <= LONGEST * shape[1]


def _core(mask: np.ndarray, box: Box) -> Box:
    """Return the box of a mask (h, w) without the lines at its rim of which half is missing."""
    rows, columns = (np.flatnonzero(mask.mean(axis=axis) > 0.5) for axis in (1, 0))
    if not len(rows) or not len(columns):
        return (0, 0, 0, 0)
    return box[0] + int(rows[0]), box[1] + int(columns[0]), box[0] + int(rows[-1]) + 1, box[1] + int(columns[-1]) + 1


def _parted(grey: np.ndarray, box: Box, rim: int) -> bool:
    """Return whether what lies behind a rim above, below and at the ends of a bar differs from it.

    A particle of many greys is no bar: where its brightest part ends, it goes on a little darker.
    """
    top, left, bottom, right = box
    bar = float(grey[top:bottom, left:right].mean())
    tick = max(1, int(TICKS * (right - left)))
    before = [slice(max(0, start - rim - BESIDE), max(0, start - rim)) for start in (top, left)]
    after = [slice(end + rim, end + rim + BESIDE) for end in (bottom, right)]
    sides = [grey[rows, left + tick : right - tick] for rows in (before[0], after[0])]
    ends = [grey[top:bottom, columns] for columns in (before[1], after[1])]
    if not all(side.size and (np.abs(side - bar) > CONTRAST).mean() > DIFFERENT for side in sides):
        return False
    return all(not end.size or (np.abs(end - bar) > CONTRAST).mean() > 0.5 for end in ends)


def _to_ends(grey: np.ndarray, box: Box) -> Box:
    """Return the box of a bar with what of its blurred ends is nearer to it than to the ground."""
    top, left, bottom, right = box
    line = grey[top:bottom].mean(axis=0)
    bar, far = float(line[left:right].mean()), RIMS[-1] + BESIDE
    for _ in RIMS:
        beyond = line[max(0, left - far) : left]
        if len(beyond) and abs(beyond[-1] - bar) < abs(beyond[0] - bar) / 2:
            left -= 1
        beyond = line[right : right + far]
        if len(beyond) and abs(beyond[0] - bar) < abs(beyond[-1] - bar) / 2:
            right += 1
    return top, left, bottom, right


def _with_letters(bar: Box, boxes: list[Box], height: int) -> Box:
    """Return the box of a bar and of the letters above or below it, if there are some."""
    letters = []
    for box in boxes:
        tall, wide = box[2] - box[0], box[3] - box[1]
        gap = max(bar[0] - box[2], box[0] - bar[2])
        middle = (box[1] + box[3]) / 2
        fits = LETTERS[0] * height <= tall <= LETTERS[1] * height and wide <= 3 * tall
        if fits and 0 <= gap <= NEAR * tall and bar[1] - tall <= middle <= bar[3] + tall:
            letters.append(box)
    if len(letters) < FEWEST:
        return bar
    tops, lefts, bottoms, rights = (list(side) for side in zip(bar, *letters, strict=True))
    return min(tops), min(lefts), max(bottoms), max(rights)


def _grown(box: Box, shape: tuple[int, ...]) -> Box:
    top, left, bottom, right = box
    return (
        max(0, top - MARGIN),
        max(0, left - MARGIN),
        min(shape[0], bottom + MARGIN),
        min(shape[1], right + MARGIN),
    )


def pixel_size_by_bar(image: Any, length: str, name: str) -> float:
    """Return nm per pixel of an image (H, W) whose scale bar has some length, such as "500 nm".

    Raises:
        EMError: it is no length, or the image has not exactly one plain bar; says `name`.
    """
    nanometres, bars = length_in_nm(length), find_scale_bars(image)
    if len(bars) != 1:
        found = f"{len(bars)} plain scale bars" if bars else "no plain scale bar"
        raise EMError(f"{name}: {found} found, --scale-bar needs exactly one: measure it and give --pixel-size")
    return nanometres / bars[0].pixels


def offer_scale_bar(micrograph: Micrograph) -> None:
    """Say that a micrograph of unknown pixel size has a scale bar, of which the user knows more."""
    bars = find_scale_bars(micrograph.image) if micrograph.pixel_size is None else []
    if len(bars) == 1:
        logger.warning(
            "%s: scale bar of %d px found; give its length with --scale-bar '500 nm', or --pixel-size",
            *(micrograph.name, bars[0].pixels),
        )
