"""Labelled folders: `images/` and `masks/` of the same file names, `labels.json`, `splits.json`."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emfm.data.io import SUFFIXES, list_micrographs, read_micrograph
from emfm.errors import EMError, nearest


@dataclass(frozen=True)
class LabelledMicrographs:
    """Micrographs with class maps, all in memory.

    Attributes:
        images: (H, W) arrays in the files' own dtype.
        masks: (H, W) int64 class indices 0..K-1, each of its image's size.
        names: file names.
        id2label: class index: class name.
        pixel_sizes: nm per pixel of each image, None where the file does not say.
    """

    images: list[np.ndarray]
    masks: list[np.ndarray]
    names: list[str]
    id2label: dict[int, str]
    pixel_sizes: list[float | None]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, count: int, seed: int = 0) -> "LabelledMicrographs":
        """Return `count` of the micrographs, drawn by `seed`; the first n of one seed are among its first n + 1.

        Raises:
            EMError: there are fewer.
        """
        if not 1 <= count <= len(self):
            raise EMError(f"{count} images were asked for; the split has {len(self)}: choose 1 to {len(self)}")
        return self._pick(np.random.default_rng(seed).permutation(len(self))[:count])

    def part(self, start: int, stop: int) -> "LabelledMicrographs":
        """Return the micrographs `start` to `stop - 1`."""
        return self._pick(range(start, stop))

    def _pick(self, indices: Iterable[int]) -> "LabelledMicrographs":
        chosen = list(indices)
        lists = {
            field: [getattr(self, field)[i] for i in chosen] for field in ("images", "masks", "names", "pixel_sizes")
        }
        return LabelledMicrographs(id2label=self.id2label, **lists)


def load_em_dataset(folder: str | Path, split: str = "train") -> LabelledMicrographs:
    """Load one split of a labelled folder.

    Args:
        folder: holds `images/` and `masks/` with the same file names. `labels.json` maps a grey value of the masks to a
            class name; without it the values must be 0..K-1. `splits.json` lists file names per split; without it
            every image belongs to "train".
        split: which list of `splits.json`.

    Raises:
        EMError: a folder, file or split is missing, sizes differ, or a mask holds a grey value without a class.
    """
    folder = Path(folder)
    for part in ("", "images", "masks"):
        if not (folder / part).is_dir():
            raise EMError(
                f"there is no folder {folder / part}; a labelled folder holds images/ and masks/ of the same file names"
            )
    names = _split_names(folder, split)
    classes = _classes(folder)
    images, masks, pixel_sizes = [], [], []
    for name in names:
        micrograph = read_micrograph(folder / "images" / name)
        mask = read_micrograph(_mask_path(folder, name)).image
        if mask.shape != micrograph.image.shape:
            raise EMError(
                f"{folder / 'masks' / name} is {mask.shape[0]} x {mask.shape[1]} pixels, its image "
                f"{micrograph.image.shape[0]} x {micrograph.image.shape[1]}: a mask has its image's size"
            )
        images.append(np.asarray(micrograph.image))
        masks.append(_class_indices(mask, classes, folder, name))
        pixel_sizes.append(micrograph.pixel_size)
    id2label = {index: label for index, (_, label) in enumerate(sorted(classes.items()))}
    return LabelledMicrographs(images, masks, names, id2label, pixel_sizes)


def _read_json(path: Path, expected: str) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise EMError(f"{path} is not readable JSON ({error}); expected {expected}") from error
    if not isinstance(content, dict) or not content:
        raise EMError(f"{path} holds no JSON object; expected {expected}")
    return content


def _split_names(folder: Path, split: str) -> list[str]:
    path = folder / "splits.json"
    if not path.is_file():
        if split != "train":
            raise EMError(
                f"{folder} has no splits.json, so no split '{split}': write {{\"{split}\": [file names]}} into one"
            )
        return [path.relative_to(folder / "images").as_posix() for path in list_micrographs(folder / "images")]
    splits = _read_json(path, '{"train": [file names], "test": [file names]}')
    names = splits.get(split)
    if not names:
        filled = [name for name, listed in splits.items() if listed]
        raise EMError(f"{path} has no images in a split '{split}'; {nearest(split, filled)}")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise EMError(f"{path}: split '{split}' is {names!r}; expected a list of file names")
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise EMError(f"{path} names {name}; expected paths inside {folder / 'images'}")
    return names


def _mask_path(folder: Path, name: str) -> Path:
    """Return the mask of an image: the same name, or the same stem with another lossless suffix."""
    stem = Path(name).parent / Path(name).stem
    for candidate in (name, *(f"{stem}{suffix}" for suffix in SUFFIXES if suffix not in (".jpg", ".jpeg"))):
        if (folder / "masks" / candidate).is_file():
            return folder / "masks" / candidate
    raise EMError(f"{folder / 'images' / name} has no mask: expected {folder / 'masks' / name}")


def _classes(folder: Path) -> dict[int, str]:
    """Return grey value: class name, from `labels.json` or from the values that the masks hold."""
    path = folder / "labels.json"
    example = '{"0": "background", "255": "particle"}'
    if path.is_file():
        labels = _read_json(path, example)
        try:
            return {int(value): str(name) for value, name in labels.items()}
        except ValueError as error:
            raise EMError(f"{path} has a key that is not a grey value ({error}); expected {example}") from error
    values: set[int] = set()
    for file in list_micrographs(folder / "masks"):
        values.update(int(value) for value in np.unique(read_micrograph(file).image))
    if sorted(values) == list(range(len(values))) and len(values) > 1:
        return {value: "background" if value == 0 else f"class {value}" for value in sorted(values)}
    shown = json.dumps({str(value): f"name of {value}" for value in sorted(values)[:8]})
    raise EMError(
        f"the masks in {folder / 'masks'} hold the grey values {_shorten(values)}; without labels.json they must "
        f"be 0..K-1: write {path} like {shown}"
    )


def _class_indices(mask: np.ndarray, classes: dict[int, str], folder: Path, name: str) -> np.ndarray:
    """Return int64 class indices, numbered by increasing grey value."""
    values = np.array(sorted(classes))
    found = np.unique(mask)
    unknown = set(found.tolist()) - set(values.tolist())
    if unknown:
        raise EMError(
            f"{folder / 'masks' / name} holds the grey values {_shorten(unknown)}, which labels.json does not name; "
            f"it has {', '.join(str(value) for value in values)}"
        )
    return np.searchsorted(values, mask).astype(np.int64)


def _shorten(values: set) -> str:
    listed = sorted(values)
    return ", ".join(str(value) for value in listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")
