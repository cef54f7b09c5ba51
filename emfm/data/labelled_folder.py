"""Folders to fine-tune from: `images/` with `masks/` or `targets/` of the same file names, `splits.json`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emfm.data.classes import GreyValues, read_json_object, read_labels, values_as_classes
from emfm.errors import EMError, MissingSplitError, nearest
from emfm.io.reading import SUFFIXES, Micrograph, list_micrographs, read_micrograph

# The folder that holds the truth: the column that holds the same in a data set.
TRUTHS = {"masks": "mask", "targets": "target"}
# A micrograph, its truth (of a clean one itself), and the name of the truth.
Record = tuple[Micrograph, Micrograph, str]
EXPECTED_SPLITS = '{"train": [file names], "test": [file names]}'


def folder_truth(folder: Path) -> str:
    """Return which truth a folder holds, "masks" or "targets".

    Raises:
        EMError: it has none, or both.
    """
    for part in (folder, folder / "images"):
        _check_folder(part)
    found = [truth for truth in TRUTHS if (folder / truth).is_dir()]
    if len(found) == 2:
        raise EMError(f"{folder} holds masks/ and targets/: say which with truth='masks' or truth='targets'")
    if not found:
        raise EMError(
            f"there is no folder {folder / 'masks'} (segmentation) or {folder / 'targets'} (restoration) beside "
            "images/; pairs can also be made from clean images with --degrade"
        )
    return found[0]


def folder_records(folder: Path, split: str, truth: str | None) -> Iterator[Record]:
    """Return an iterator over micrograph, its truth (without one itself), and the path of the truth, of one split.

    Without `splits.json` every image belongs to "train"; `truth` is "masks", "targets", or None for the micrographs
    alone.

    Raises:
        EMError: a folder, file or split is missing, or a file is broken.
    """
    images = folder / "images"
    if truth is None and not images.is_dir():
        images = folder  # clean micrographs need no structure
    for part in (folder, images):
        _check_folder(part)
    for part in [folder / truth] if truth else []:
        if not part.is_dir():
            more = "; pairs can also be made from clean images with --degrade" if truth == "targets" else ""
            raise EMError(f"there is no folder {part}; it holds a file of the same name for each of images/{more}")
    names = _split_names(folder, images, split)  # at once, so that a missing split is found before anything is read
    return _read(folder, images, names, truth)


def _check_folder(part: Path) -> None:
    if not part.is_dir():
        raise EMError(
            f"there is no folder {part}; a labelled folder holds images/ and masks/ of the same file "
            "names, a paired one images/ and targets/"
        )


def _read(folder: Path, images: Path, names: list[str], truth: str | None) -> Iterator[Record]:
    for name in names:
        micrograph = read_micrograph(images / name)
        if truth is None:
            yield micrograph, micrograph, ""
        else:
            path = truth_path(folder, images, name, truth)
            yield micrograph, read_micrograph(path), str(path)


def folder_classes(folder: Path) -> GreyValues:
    """Return the classes of the masks, from `labels.json` or from the values that they hold."""
    path = folder / "labels.json"
    if path.is_file():
        return read_labels(path)
    masks = (read_micrograph(file).array for file in list_micrographs(folder / "masks"))
    return values_as_classes(masks, str(folder / "masks"), str(path))


def _split_names(folder: Path, images: Path, split: str) -> list[str]:
    path = folder / "splits.json"
    if not path.is_file():
        if split != "train":
            raise MissingSplitError(
                f"{folder} has no splits.json, so no split '{split}': write {{\"{split}\": [file names]}} into one"
            )
        return [path.relative_to(images).as_posix() for path in list_micrographs(images)]
    splits = read_json_object(path, EXPECTED_SPLITS)
    names = splits.get(split)
    if not names:
        filled = [name for name, listed in splits.items() if listed]
        raise MissingSplitError(f"{path} has no images in a split '{split}'; {nearest(split, filled)}")
    _check_names(path, images, split, names)
    return names


def _check_names(path: Path, images: Path, split: str, names: Any) -> None:
    """Raise an error unless `splits.json` lists paths inside the folder of images for a split."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise EMError(f"{path}: split '{split}' is {names!r}; expected a list of file names")
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise EMError(f"{path} names {name}; expected paths inside {images}")


def folder_splits(folder: Path, images: Path) -> dict[str, list[str]]:
    """Return the file names of each split that has any, from the folder's `splits.json`, relative to `images`.

    Raises:
        EMError: `splits.json` is damaged, names no file, or one that is not there.
    """
    path = folder / "splits.json"
    found = read_json_object(path, EXPECTED_SPLITS)
    splits = {split: listed for split, listed in found.items() if listed}
    for split, listed in splits.items():
        _check_names(path, images, split, listed)
        missing = [name for name in listed if not (images / name).is_file()]
        if missing:
            raise EMError(f"{path}: '{split}' names {missing[0]}, which is not in {images} ({len(missing)} in all)")
    if not splits:
        raise EMError(f"{path} lists no image in any split; remove it to have all images in 'train'")
    return splits


def truth_path(folder: Path, images: Path, name: str, truth: str) -> Path:
    """Return the truth of an image: the same name, or the same stem with another lossless suffix.

    Raises:
        EMError: there is none.
    """
    stem = Path(name).parent / Path(name).stem
    for candidate in (name, *(f"{stem}{suffix}" for suffix in SUFFIXES if suffix not in (".jpg", ".jpeg"))):
        if (folder / truth / candidate).exists():
            return folder / truth / candidate
    raise EMError(f"{images / name} has no {truth[:-1]}: expected {folder / truth / name}")
