"""The splits of a labelled folder: `splits.json`, folders called as splits, or all for training."""

import logging
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from emfm.data.json_files import find_json, read_json_object
from emfm.errors import EMError, MissingSplitError, nearest
from emfm.io.listing import plain

logger = logging.getLogger(__name__)
EXPECTED = '{"train": [file names], "test": [file names]}'
# How people call the three splits.
SPELLINGS = {
    "train": ("train", "training", "trainset", "train_set"),
    "validation": ("validation", "valid", "val", "dev", "development", "eval", "evaluation", "validate"),
    "test": ("test", "testing", "testset", "test_set"),
}
_SPLIT_OF = {spelling: split for split, spellings in SPELLINGS.items() for spelling in spellings}


def split_called(name: str) -> str:
    """Return the split that a name stands for: "validation" for "Val", others without case."""
    seen = plain(name)
    return _SPLIT_OF.get(seen, seen)


def split_among(split: str, known: Iterable[str], where: str) -> str | None:
    """Return how one of the known splits is spelled that is the one asked for, None if none is.

    Raises:
        EMError: two of them are.
    """
    found = [name for name in known if split_called(name) == split_called(split)]
    if len(found) > 1:
        raise EMError(f"{where} has the splits {' and '.join(map(repr, found))}, which are one: call it '{found[0]}'")
    return found[0] if found else None


class NameIndex:
    """Finds names the way people see them: in any case, Unicode form and kind of slash."""

    def __init__(self, names: Iterable[str]):
        self.names = sorted(names)
        self._exact = set(self.names)
        self._plain: dict[str, list[str]] = defaultdict(list)
        self._stems: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            self._plain[plain(name)].append(name)
            self._stems[stem(name)].append(name)

    def find(self, name: str) -> list[str]:
        """Return the name itself where it is there, else those that look like it."""
        return [name] if name in self._exact else self._plain.get(plain(name), [])

    def of_stem(self, seen: str) -> list[str]:
        """Return the names that look like it without their suffix."""
        return self._stems.get(seen, [])


def stem(name: str) -> str:
    """Return a name as people see it, without its suffix, which may be .ome.tif."""
    return plain(PurePosixPath(name).with_suffix("").as_posix()).removesuffix(".ome")


def read_splits(folder: Path, images: Path, names: list[str]) -> dict[str, list[str]]:
    """Return the names of the images in each split that has any.

    `splits.json` says it, or sub-folders of the images that are called as splits; else all are in
    "train".

    Args:
        folder: that may hold `splits.json`.
        images: folder of the images.
        names: of all images, relative to it.

    Raises:
        EMError: `splits.json` is damaged, or names a file twice or one that is not there; or some
            sub-folders are called as splits and others are not.
    """
    path = find_json(folder, "splits.json")
    if path is None:
        return _by_folder(images, names)
    listed = read_json_object(path, EXPECTED)
    for split in listed:
        split_among(split, listed, str(path))
    index = NameIndex(names)
    splits = {split_called(split): _resolved(path, images, index, split, part) for split, part in listed.items()}
    filled = {split: part for split, part in splits.items() if part}
    if not filled:
        raise EMError(f"{path} lists no image in any split; remove it to put all images in 'train'")
    return filled


def _by_folder(images: Path, names: list[str]) -> dict[str, list[str]]:
    heads = {name: name.partition("/")[0] if "/" in name else "" for name in names}
    usual = {head for head in heads.values() if split_called(head) in SPELLINGS}
    if not usual:
        return {"train": names}
    others = sorted(set(heads.values()) - usual)
    if others:
        beside = f"the folder {others[-1]}" if others[-1] else f"images such as {names[0]}"
        raise EMError(
            f"{images} holds the folders {', '.join(sorted(usual))}, called as splits, and beside them {beside}: "
            "move those into one of them, or write splits.json"
        )
    for head in usual:
        split_among(head, usual, str(images))
    splits: dict[str, list[str]] = defaultdict(list)
    for name, head in heads.items():
        splits[split_called(head)].append(name)
    return dict(splits)


def _resolved(path: Path, images: Path, index: NameIndex, split: str, listed: Any) -> list[str]:
    """Return the images that `splits.json` lists for a split, under their own names."""
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise EMError(f"{path}: '{split}' is {listed!r:.80}; expected a list of file names, as {EXPECTED}")
    found: dict[str, str] = {}
    for name in listed:
        own = _image(path, images, index, split, name)
        if own in found:
            raise EMError(f"{path}: '{split}' names {own} twice; expected it once")
        found[own] = name
    return list(found)


def _image(path: Path, images: Path, index: NameIndex, split: str, name: str) -> str:
    parts = PureWindowsPath(name)  # which knows both slashes
    if parts.is_absolute() or parts.drive or name.startswith(("/", "\\")) or ".." in parts.parts:
        raise EMError(f"{path} names {name}; expected paths inside {images}")
    seen = plain(name)
    below = seen.removeprefix("images/")
    for candidates in (index.find(name), index.find(below), index.of_stem(seen), index.of_stem(below)):
        if len(candidates) > 1:
            raise EMError(f"{path}: '{split}' names {name}, which may be {' or '.join(candidates)}: name one of them")
        if candidates:
            return candidates[0]
    near = nearest(name, index.names[:1000])
    hint = near if near.startswith("did") else f"it holds {len(index.names)} images, such as {index.names[0]}"
    raise EMError(f"{path}: '{split}' names {name}, which is not in {images}; {hint}")


def names_of_split(splits: dict[str, list[str]], split: str, folder: Path) -> list[str]:
    """Return the images of one split; a warning names images that training and test share.

    Raises:
        MissingSplitError: it has none.
    """
    names = splits.get(split_called(split))
    if not names:
        path = find_json(folder, "splits.json")
        if path is None and set(splits) == {"train"}:
            example = f'{{"{split}": [file names]}}'
            raise MissingSplitError(f"{folder} has no splits.json, so no split '{split}': write {example} into one")
        raise MissingSplitError(f"{path or folder} has no images in a split '{split}'; {nearest(split, splits)}")
    if split_called(split) in SPELLINGS:
        for other in SPELLINGS.keys() - {split_called(split)}:
            if both := sorted(set(names) & set(splits.get(other, ()))):
                many = f" and {len(both) - 1} more" if len(both) > 1 else ""
                message = "%s: %s%s is in '%s' and in '%s': its figures are those of an image that was seen"
                logger.warning(message, folder, both[0], many, split_called(split), other)
    return names
