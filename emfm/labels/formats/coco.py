"""COCO: one JSON file for many images, with polygons or runs of pixels for each object."""

from collections.abc import Callable, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from emfm.errors import EMError
from emfm.labels.fill import fill_coco
from emfm.labels.formats.json_parts import objects, part, points, read_json
from emfm.labels.shapes import Drawn, DrawnImage, Region

MOST_PIXELS = 2**31  # of a mask, whatever a file claims


def is_coco(content: Any) -> bool:
    """Tell whether JSON is that of COCO."""
    return isinstance(content, dict) and "images" in content and "annotations" in content


def read_coco(path: Path, content: Any = None) -> list[DrawnImage]:
    """Return what was drawn on the images of a COCO file, in the order of its annotations.

    Raises:
        EMError: the file is damaged.
    """
    content = read_json(path) if content is None else content
    if not is_coco(content):
        raise EMError(f"{path} is no COCO file: it has no 'images' and 'annotations'")
    names: dict[int, str] = {}
    for number, category in enumerate(objects(content.get("categories"), f"{path}: 'categories'"), start=1):
        where = f"{path}, category {number}"
        names[part(category, "id", int, where)] = part(category, "name", str, where)
    images: dict[int, DrawnImage] = {}
    for number, image in enumerate(objects(content["images"], f"{path}: 'images'"), start=1):
        where = f"{path}, image {number}"
        shape = (part(image, "height", int, where), part(image, "width", int, where))
        name = PureWindowsPath(part(image, "file_name", str, where)).as_posix()
        images[part(image, "id", int, where)] = DrawnImage(str(path), name, shape=shape)
    for number, annotation in enumerate(objects(content["annotations"], f"{path}: 'annotations'"), start=1):
        where = f"{path}, annotation {number}"
        drawn_on = images.get(part(annotation, "image_id", int, where))
        if drawn_on is None:
            raise EMError(f"{where} is of the image {annotation['image_id']}, which 'images' does not list")
        label = names.get(part(annotation, "category_id", int, where))
        if label is None:
            raise EMError(f"{where} is of the category {annotation['category_id']}, not one of 'categories'")
        _add(drawn_on, annotation, label, where)
    return list(images.values())


def _add(image: DrawnImage, annotation: dict[str, Any], label: str, where: str) -> None:
    """Add an annotation to its image, or count it among what has no pixels."""
    segmentation = annotation.get("segmentation")
    if not segmentation:
        image.left_out["bounding box without a segmentation"] += 1
    elif isinstance(segmentation, list):
        polygons = [_polygon(ring, where) for ring in segmentation]
        image.drawn.append(Drawn(label, where, lambda size: fill_coco(polygons, size)))
    elif isinstance(segmentation, dict):
        image.drawn.append(Drawn(label, where, _runs_filler(segmentation, where)))
    else:
        raise EMError(f"{where}: 'segmentation' is neither polygons nor runs (RLE): {segmentation!r:.60}")


def _polygon(ring: Any, where: str) -> np.ndarray:
    """Return the corners (N, 2) of a polygon [x1, y1, x2, y2, ...]."""
    if not isinstance(ring, list) or len(ring) % 2:
        raise EMError(f"{where}: a polygon is no list of x1, y1, x2, y2 and so on: {ring!r:.60}")
    return points([ring[i : i + 2] for i in range(0, len(ring), 2)], where)


def _runs_filler(runs: dict[str, Any], where: str) -> Callable[[tuple[int, int]], Region]:
    height, width = (int(side) for side in _size(runs, where))
    counts = runs.get("counts")
    lengths = decode_counts(counts, where) if isinstance(counts, str) else counts
    if not isinstance(lengths, list) or not all(isinstance(run, int) and run >= 0 for run in lengths):
        raise EMError(f"{where}: the 'counts' of its runs are damaged: save the file again")
    if sum(lengths) != height * width:
        raise EMError(f"{where}: its runs cover {sum(lengths)} pixels; expected {height} x {width}: save it again")

    def fill(size: tuple[int, int]) -> Region:
        if size != (height, width):
            raise EMError(f"{where}: its runs are of {height} x {width} pixels, its image of {size[0]} x {size[1]}")
        return _region(np.array(lengths, dtype=np.int64), height)

    return fill


def _size(runs: dict[str, Any], where: str) -> list[Any]:
    size = part(runs, "size", list, where)
    if (
        len(size) != 2
        or not all(isinstance(side, int) and side > 0 for side in size)
        or size[0] * size[1] > MOST_PIXELS
    ):
        raise EMError(f"{where}: the 'size' of its runs is {size!r:.60}; expected [height, width]")
    return size


def _region(lengths: np.ndarray, height: int) -> Region:
    """Return the pixels of runs, as a patch no wider than they are."""
    edges = np.cumsum(lengths)
    starts, ends = edges[:-1:2], edges[1::2]
    starts, ends = starts[ends > starts], ends[ends > starts]
    if not len(starts):
        return Region(0, 0, np.zeros((1, 1), dtype=bool))
    left, right = int(starts[0]) // height, int(ends[-1] - 1) // height + 1
    changes = np.zeros((right - left) * height + 1, dtype=np.int8)
    np.add.at(changes, starts - left * height, 1)
    np.add.at(changes, ends - left * height, -1)
    mask = np.cumsum(changes[:-1], dtype=np.int8).reshape(right - left, height).T > 0
    rows = np.flatnonzero(mask.any(axis=1))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    return Region(top, left, mask[top:bottom])


def decode_counts(text: str, where: str) -> list[int]:
    """Return the lengths of runs from COCO's text: five bits a letter, soon as differences.

    Raises:
        EMError: the text is cut off or holds other letters.
    """
    lengths: list[int] = []
    value, shift = 0, 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64:
            raise EMError(f"{where}: the 'counts' of its runs hold the letter {letter!r}: save the file again")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + lengths[-2] if len(lengths) > 2 else value)
        value, shift = 0, 0
    if shift:
        raise EMError(f"{where}: the 'counts' of its runs are cut off: save the file again")
    return lengths


def encode_counts(lengths: Sequence[int]) -> str:
    """Return COCO's text for the lengths of runs."""
    letters = []
    for index, length in enumerate(lengths):
        value = length - lengths[index - 2] if index > 2 else length
        while True:
            bits, value = value & 31, value >> 5
            done = value == (-1 if bits & 16 else 0)
            letters.append(chr(48 + (bits if done else bits | 32)))
            if done:
                break
    return "".join(letters)


def runs_of(region: Region, shape: tuple[int, int]) -> list[int]:
    """Return the lengths of the runs of a region, column by column, the first one of zeros."""
    framed = np.pad(region.mask, ((1, 1), (0, 0))).astype(np.int8)
    steps = np.diff(framed, axis=0).T  # (w, h + 1): 1 where a run begins, -1 where it has ended
    columns, rows = np.nonzero(steps)
    edges = (columns + region.left) * shape[0] + rows + region.top
    starts, ends = edges[::2], edges[1::2]  # each column has as many of both
    joined = np.flatnonzero(ends[:-1] == starts[1:])  # from the bottom of one column to the top of the next
    starts, ends = np.delete(starts, joined + 1), np.delete(ends, joined)
    edges = np.stack([starts, ends], axis=1).ravel()
    last = [] if len(edges) and edges[-1] == shape[0] * shape[1] else [shape[0] * shape[1]]
    return np.diff(np.concatenate([[0], edges, last])).astype(int).tolist()


def coco_annotation(region: Region, shape: tuple[int, int]) -> dict[str, Any]:
    """Return segmentation, area and bounding box of an object's pixels."""
    height, width = region.mask.shape
    return {
        "segmentation": {"size": list(shape), "counts": encode_counts(runs_of(region, shape))},
        "area": region.area,
        "bbox": [region.left, region.top, width, height],
        "iscrowd": 0,
    }
