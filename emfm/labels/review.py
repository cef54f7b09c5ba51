"""Drafts of labels, and which regions of them people have found right.

A folder with drafts is a labelled folder whose masks hold only what was reviewed: the rest says
"ignore". So whatever reads it learns from nothing that nobody has looked at.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emfm.data.classes import IGNORE, GreyValues
from emfm.data.examples import IGNORED
from emfm.data.json_files import read_json_object
from emfm.data.labelled_folder import folder_classes, open_labelled_folder
from emfm.data.splits import NameIndex, split_among, stem
from emfm.errors import EMError, nearest
from emfm.files import write_text
from emfm.io.listing import plain
from emfm.io.masks import Mask, read_masks
from emfm.io.writing import write_image
from emfm.labels.arguments import ReviewArguments

REVIEW = "review.json"
EXAMPLE = '{"a.png": {"model": "out", "reviewed": [[0, 0, 64, 64]]}}'
BOX = re.compile(r"\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,\s*(\d{1,9})\s*")
DRAFT = "draft"  # the split of images of which nothing is reviewed
# x, y, width, height in pixels.
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Reviewed:
    """What is reviewed of one image."""

    file: str
    share: float  #: of its pixels
    boxes: list[Box]


def reviewed_regions(folder: Path) -> dict[str, list[Box]]:
    """Return for each image with a draft the regions that were found right.

    Raises:
        EMError: the folder has no drafts, or its `review.json` is damaged.
    """
    return {
        name: [_box_of(box, folder, name) for box in entry["reviewed"]] for name, entry in read_review(folder).items()
    }


def read_review(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what `review.json` says of each image.

    Raises:
        EMError: it is missing or damaged.
    """
    path = folder / REVIEW
    if not path.is_file():
        raise EMError(f"{folder} has no {REVIEW}, so no drafts: emfm labels draft makes them")
    content = read_json_object(path, EXAMPLE)
    for name, entry in content.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("reviewed"), list):
            raise EMError(f"{path}: '{name}' is {entry!r:.60}; expected as in {EXAMPLE}")
    return content


def _box_of(given: Any, folder: Path, name: str) -> Box:
    if not isinstance(given, list) or len(given) != 4 or not all(type(value) is int and value >= 0 for value in given):
        raise EMError(f"{folder / REVIEW}: '{name}' has the region {given!r:.60}; expected [x, y, width, height]")
    return given[0], given[1], given[2], given[3]


def mark_reviewed(folder: str | Path, file: str, arguments: ReviewArguments | None = None) -> Reviewed:
    """Take regions of an image's draft over into its mask, as reviewed; all of it by default.

    Correct `drafts/` first, with any program that keeps its grey values.

    Args:
        folder: as `draft_labels` leaves it.
        file: name of the image.
        arguments: which regions; the whole image if None.

    Raises:
        EMError: there is no such draft, a region lies outside the image, or its mask holds other
            labels there and they are not to be replaced.
    """
    folder, how = Path(folder), arguments or ReviewArguments()
    review = read_review(folder)
    name = _name_of(file, review, folder)
    labels, draft, mask = _opened(folder, name)
    given, drawn, values = labels.indices(draft, draft.name), _grey(draft, labels), _grey(mask, labels)
    height, width = given.shape
    boxes = [_parsed(text, given.shape) for text in how.box] if how.box else [(0, 0, width, height)]
    for x, y, across, down in boxes:
        place = np.s_[y : y + down, x : x + across]
        before = labels.indices(mask, mask.name)[place]
        other = int(((before != IGNORED) & (before != given[place])).sum())
        if other and not how.overwrite:
            raise EMError(
                f"{folder / 'masks' / mask.name} holds other labels than the draft in {other} pixels of "
                f"{x},{y},{across},{down}: --overwrite replaces them"
            )
        values[place] = drawn[place]
    known = [_box_of(box, folder, name) for box in review[name]["reviewed"]]
    boxes = [*known, *(box for box in boxes if box not in known)]
    review[name]["reviewed"] = [list(box) for box in boxes]
    write_image(_mask_path(folder, name), values)
    write_text(folder / REVIEW, json.dumps(review, indent=1, ensure_ascii=False))
    write_splits(folder, review)
    return Reviewed(name, _share(boxes, given.shape), boxes)


def _opened(folder: Path, name: str) -> tuple[GreyValues, Mask, Mask]:
    """Return the classes, an image's draft and its mask.

    Raises:
        EMError: a file is missing, or the draft holds values without a class or is of another size.
    """
    masks, drafts = open_labelled_folder(folder, "masks").truth, open_labelled_folder(folder, "drafts").truth
    assert masks is not None and drafts is not None
    labels = folder_classes(folder, masks)
    where = drafts.path(name)
    draft, mask = read_masks(where)[0], read_masks(_mask_path(folder, name))[0]
    labels.indices(draft, str(where))  # which checks its values
    if draft.array.shape != mask.array.shape:
        raise EMError(f"{where} is {draft.array.shape} pixels, its mask {mask.array.shape}: give it its image's size")
    return labels, draft, mask


def _mask_path(folder: Path, name: str) -> Path:
    """Return an image's mask, which can be written; an EMError if it is of another format."""
    masks = open_labelled_folder(folder, "masks").truth
    assert masks is not None
    path = masks.path(name)
    if path.suffix.lower() not in (".png", ".tif", ".tiff"):
        raise EMError(f"{path}: masks that are reviewed are PNG or TIFF: save it as one of them")
    return path


def _grey(mask: Mask, labels: GreyValues) -> np.ndarray:
    """Return a mask in the grey values of `labels.json`, where it may hold NaN or one bit."""
    values = labels.values(mask, mask.name).astype(float)
    ignore = next(value for value, name in labels.names.items() if name.casefold() == IGNORE)
    return np.where(np.isnan(values), ignore, values).astype(grey_type(labels.names))


def grey_type(values: Iterable[int]) -> type:
    """Return the type of masks that hold these grey values.

    Raises:
        EMError: one of them is negative.
    """
    lowest, highest = min(values), max(values)
    if lowest < 0:
        raise EMError(f"labels.json names the grey value {lowest}; drafts hold 0 to 65535: choose another value")
    return np.uint8 if highest < 256 else np.uint16


def _name_of(file: str, review: dict[str, Any], folder: Path) -> str:
    """Return an image of which there is a draft, by its name as people write it."""
    index = NameIndex(review)
    name = Path(file).as_posix()
    for shown in (name, name.removeprefix(f"{(folder / 'images').as_posix()}/"), Path(file).name):
        found = index.find(shown) or index.of_stem(stem(shown))
        if len(found) == 1:
            return found[0]
    raise EMError(f"{folder} has no draft of {file}; {nearest(file, list(review)[:1000])}")


def _parsed(text: str, shape: tuple[int, ...]) -> Box:
    found = BOX.fullmatch(text)
    if not found:
        raise EMError(f"--box is '{text}'; expected X,Y,WIDTH,HEIGHT in pixels, as in 0,0,64,64")
    x, y, width, height = (int(value) for value in found.groups())
    if not width or not height or x + width > shape[1] or y + height > shape[0]:
        raise EMError(f"--box is {text}; expected a region within the image of {shape[1]} x {shape[0]} pixels")
    return x, y, width, height


def write_splits(folder: Path, review: dict[str, dict[str, Any]]) -> None:
    """Put images of which something is reviewed into "train", others into "draft".

    Images that stand in another split stay there, labelled by somebody or not.
    """
    path = folder / "splits.json"
    splits = read_json_object(path, '{"train": []}') if path.is_file() else {}
    train = split_among("train", splits, str(path)) or "train"
    taken = {_plain(name) for split, names in splits.items() if split != DRAFT for name in names}
    free = [name for name in review if _plain(name) not in taken]
    splits[train] = splits.get(train, []) + [name for name in free if review[name]["reviewed"]]
    splits[DRAFT] = [name for name in free if not review[name]["reviewed"]]
    write_text(path, json.dumps(splits, indent=1, ensure_ascii=False))


def _plain(name: str) -> str:
    """Return an image's name as it may be written in `splits.json`, to compare it."""
    return stem(plain(name).removeprefix("images/"))


def _share(boxes: list[Box], shape: tuple[int, ...]) -> float:
    seen = np.zeros(shape, dtype=bool)
    for x, y, width, height in boxes:
        seen[y : y + height, x : x + width] = True
    return float(seen.mean())
