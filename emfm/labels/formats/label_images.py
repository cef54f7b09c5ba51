"""Images of numbers: napari's Labels layers, and the labels that ilastik exports."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from emfm.errors import EMError
from emfm.io.masks import read_masks
from emfm.labels.shapes import Drawn, DrawnImage, Region

# What ilastik's names of exported files say beside the image's name.
ILASTIK_ENDINGS = ("_labels", "-labels", "_label", "-label")
HDF5 = (".h5", ".hdf5", ".hdf", ".ilp")
LARGEST = 2**31 - 1


def read_napari(path: Path, objects: bool = False) -> list[DrawnImage]:
    """Return the labels of an image of numbers; 0 is what nobody painted.

    Args:
        path: TIFF, or any format that masks have.
        objects: each number is an object of one class; else each is a class.
    """
    found = []
    for mask in read_masks(path):
        found.append(_of_numbers(mask.array, path, path.stem, mask.index, objects))
    return found


def read_ilastik(path: Path) -> list[DrawnImage]:
    """Return the labels that ilastik exported: a class each number, 0 what nobody painted."""
    if path.suffix.lower() not in HDF5:
        found = read_napari(path)
    else:
        volume = _hdf5_labels(path)
        several = len(volume) > 1
        found = [
            _of_numbers(values, path, path.stem, index if several else None) for index, values in enumerate(volume)
        ]
    for image in found:
        for ending in ILASTIK_ENDINGS:
            if image.image.casefold().endswith(ending):
                image.image = image.image[: -len(ending)]
                break
    return found


def is_ilastik(path: Path) -> bool:
    """Tell whether an HDF5 file says of its axes what ilastik says."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return any("axistags" in item.attrs for item in file.values() if isinstance(item, h5py.Dataset))
    except (OSError, RuntimeError, KeyError):
        return False


def _hdf5_labels(path: Path) -> np.ndarray:
    """Return the labels (N, H, W) of an HDF5 file, in the order of axes that it states."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            arrays = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset) and item.ndim >= 2}
            if len(arrays) != 1:
                raise EMError(f"{path} holds {len(arrays)} arrays ({', '.join(arrays)}); expected the labels alone")
            (dataset,) = arrays.values()
            tags = dataset.attrs.get("axistags")
            axes = _axes(tags, path) if tags is not None else "zyx"[-dataset.ndim :] if dataset.ndim < 4 else "tzyxc"
            values = np.asarray(dataset[()])
    except EMError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:  # h5py's words for damage
        raise EMError(f"{path} is damaged ({error}): export it again") from error
    if len(axes) != values.ndim:
        raise EMError(f"{path}: its axes are '{axes}', its shape is {values.shape}: export it again")
    if "x" not in axes or "y" not in axes:
        raise EMError(f"{path}: its axes are '{axes}'; expected x and y among them")
    if "c" in axes and values.shape[axes.index("c")] != 1:
        channels = values.shape[axes.index("c")]
        raise EMError(f"{path} has {channels} channels: these are probabilities or features; export the labels")
    order = [axes.index(axis) for axis in (*(axis for axis in axes if axis not in "yx"), "y", "x")]
    values = values.transpose(order)
    return values.reshape(-1, *values.shape[-2:])


def _axes(tags: Any, path: Path) -> str:
    """Return the letters of ilastik's axes, one for each."""
    try:
        return "".join(axis["key"] for axis in json.loads(tags)["axes"])
    except (ValueError, KeyError, TypeError) as error:
        raise EMError(f"{path}: what it says of its axes is damaged ({error!r:.60}): export it again") from error


def _of_numbers(values: np.ndarray, path: Path, name: str, index: int | None, objects: bool = False) -> DrawnImage:
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or (values != np.rint(values)).any():
            raise EMError(f"{path} holds fractions or NaN; expected whole numbers, as labels are")
    elif values.dtype.kind not in "biu":
        raise EMError(f"{path} holds {values.dtype}; expected whole numbers, as labels are")
    if values.size and (values.min() < 0 or values.max() > LARGEST):
        raise EMError(f"{path} holds numbers from {values.min()} to {values.max()}; expected 0 to {LARGEST}")
    found, numbers = np.unique(values, return_inverse=True)
    numbers = numbers.reshape(values.shape)
    numbers = numbers + 1 if len(found) and found[0] > 0 else numbers  # 0 is what nobody painted
    boxes = ndimage.find_objects(numbers)
    image = DrawnImage(str(path), name, shape=values.shape, index=index)
    for number, box in enumerate(boxes, start=1):
        if box is None:
            continue
        value = int(found[number - 1 if found[0] > 0 else number])
        mask = numbers[box] == number
        region = Region(box[0].start, box[1].start, mask)
        label = "object" if objects else f"class {value}"
        image.drawn.append(Drawn(label, f"{path}, label {value}", partial(_whole, region), value))
    return image


def _whole(region: Region, size: tuple[int, int]) -> Region:
    return region
