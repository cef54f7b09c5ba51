"""Outlines of objects as ImageJ's ROI files, which ImageJ and napari open.

A polygon follows the pixels' edges: filled, it is the object, pixel for pixel. Holes and further
parts hang on it by lines there and back, which fill nothing.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from roifile import ROI_TYPE, ImagejRoi

from emfm.files import write_atomically
from emfm.io.large_images import release_pages
from emfm.reports.object_measures import AT_A_TIME, boxes_of
from emfm.reports.prediction import ObjectClasses


def write_outlines(path: str | Path, ids: Any, classes: ObjectClasses | None = None) -> int:
    """Write a ZIP file of ROIs, one for each object, called by its number; return how many.

    With classes the name is followed by that of the class, as in `0012-rod`.

    Args:
        path: of the file.
        ids: (H, W) numbers, 0 is the background; read object by object.
        classes: of the objects, where they have some.
    """
    boxes = boxes_of(ids)

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for done, (number, (top, left, bottom, right)) in enumerate(sorted(boxes.items())):
                if done % AT_A_TIME == 0:
                    release_pages(ids)
                mask = np.asarray(ids[top:bottom, left:right]) == number
                name = f"{number:04d}" if classes is None else f"{number:04d}-{classes.name(number)}"
                roi = ImagejRoi.frompoints(outline_of(mask) + np.array([left, top]), name=name)
                roi.roitype = ROI_TYPE.POLYGON
                archive.writestr(f"{number:04d}.roi", roi.tobytes())

    write_atomically(path, write)
    return len(boxes)


def outline_of(mask: np.ndarray) -> np.ndarray:
    """Return corners (N, 2) int32, x and y, of the polygon around the pixels of a mask (h, w).

    The corner of the first pixel is (0, 0), so its middle is (0.5, 0.5).
    """
    loops = list(_loops(mask))
    start = loops[0][0]
    points = list(loops[0])
    for loop in loops[1:]:  # there, around, and back
        points += [start, *loop, loop[0]]
    return np.array(points if len(loops) == 1 else [*points, start], dtype=np.int32)


def _loops(mask: np.ndarray) -> Iterator[list[tuple[int, int]]]:
    """Yield the closed lines around a mask, as their corners; inside is on the right."""
    following = _edges(mask)
    while following:
        corner, direction = next(iter(following)), (0, 0)
        loop: list[tuple[int, int]] = []
        while corner in following:
            ways = following[corner]
            # of two ways the one to the right keeps pixels apart that meet at a corner
            right = corner[0] - direction[1], corner[1] + direction[0]
            after = right if right in ways else ways[0]
            ways.remove(after)
            if not ways:
                del following[corner]
            turn = after[0] - corner[0], after[1] - corner[1]
            if turn != direction:
                loop.append(corner)
            corner, direction = after, turn
        yield loop


def _edges(mask: np.ndarray) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Return which corners follow each corner along the pixels' edges, in the order of reading."""
    around = np.pad(mask, 1)
    inside = around[1:-1, 1:-1]
    sides = (
        (~around[:-2, 1:-1], (0, 0), (1, 0)),  # above: to the right
        (~around[1:-1, 2:], (1, 0), (1, 1)),  # on the right: downwards
        (~around[2:, 1:-1], (1, 1), (0, 1)),  # below: to the left
        (~around[1:-1, :-2], (0, 1), (0, 0)),  # on the left: upwards
    )
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for outside, begin, end in sides:
        rows, columns = np.nonzero(inside & outside)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            following.setdefault((column + begin[0], row + begin[1]), []).append((column + end[0], row + end[1]))
    return following
