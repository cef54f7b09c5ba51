"""Reading micrographs of every format in their own dtype, with the pixel size; writing results atomically."""

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emfm.errors import EMError
from emfm.io.formats.colour import check_rule
from emfm.io.formats.hdf5 import open_hdf5
from emfm.io.formats.mrc import open_mrc
from emfm.io.formats.npy import open_npy
from emfm.io.formats.pictures import open_picture
from emfm.io.formats.planes import Planes, Request
from emfm.io.formats.tiff import open_tiff
from emfm.io.formats.tiff_structure import MAGIC
from emfm.io.formats.vendor import open_vendor
from emfm.io.formats.zarr_store import open_zarr
from emfm.io.lazy_image import LazyImage

ZARR = ".zarr"  # the only format whose files are folders
_CONTAINERS = {
    **dict.fromkeys((".h5", ".hdf5", ".hdf"), open_hdf5),
    ZARR: open_zarr,
    **dict.fromkeys((".dm3", ".dm4", ".ser", ".emd"), open_vendor),
}
_READERS: dict[str, Callable[[Any, Request], Planes]] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg"), open_picture),
    **dict.fromkeys((".tif", ".tiff", ".btf", ".tf8"), open_tiff),
    ".npy": open_npy,
    **dict.fromkeys((".mrc", ".mrcs", ".map", ".rec", ".st"), open_mrc),
    **_CONTAINERS,
}
SUFFIXES = tuple(_READERS)


@dataclass(frozen=True)
class Micrograph:
    """One image as the file holds it.

    Attributes:
        image: (H, W) in the file's own dtype and native byte order. An array up to 64 MiB; above that memory-mapped and
            read-only, or a `LazyImage`, which reads regions when they are asked for: `np.asarray(image)` loads it.
        pixel_size: side of a pixel in nm, or None where the file does not say.
        name: the file's name.
        axes: one letter for each axis of the file that is longer than one: "YX", or "ZYX" of a stack; "Q" for an axis
            that the file does not name.
        index: which slice of a stack this is, None for a file of one image.
    """

    image: np.ndarray | LazyImage
    pixel_size: float | None
    name: str
    axes: str = "YX"
    index: int | None = None

    @property
    def array(self) -> np.ndarray:
        """The whole image as an array, loaded where it is not yet."""
        return np.asarray(self.image)


def read_micrograph(
    path: str | Path, index: int | None = None, *, dataset: str | None = None, colour: str | None = None
) -> Micrograph:
    """Read one micrograph of any supported format (docs/formats.md lists them).

    Images of more than 64 MiB stay in their file where the format allows it, and are read as far as they are used.

    Args:
        path: the file, or the folder of a Zarr image. `FILE::DATASET` names a dataset of a container.
        index: slice of a stack, from 0; negative ones count from the end. Stacks of several axes count through all
            slices, the last axis fastest.
        dataset: which image of an HDF5, Zarr, DM or EMD file; for OME-Zarr the level, where it is not the finest.
        colour: how to turn a colour image into grey: "luminance", "mean", "red", "green" or "blue". By default colour
            is refused; equal channels are grey in any case.

    Raises:
        EMError: the file is missing, damaged, of another format, in colour, or a stack without `index`.
    """
    path, planes = _opened(path, dataset, colour)
    if planes.stack and index is None:
        raise EMError(
            f"{path}: a stack of shape {(*planes.stack, *planes.shape)}, axes {planes.axes}, with {planes.count} "
            f"slices; choose one with index=0 to {planes.count - 1} (--index), or go through all with read_stack"
        )
    return _slice(path, planes, index)


def read_stack(path: str | Path, *, dataset: str | None = None, colour: str | None = None) -> Iterator[Micrograph]:
    """Return an iterator over the slices of a stack; each is read when it is its turn. One image is a stack of one.

    Args:
        path: as in `read_micrograph`.
        dataset: as in `read_micrograph`.
        colour: as in `read_micrograph`.

    Raises:
        EMError: as `read_micrograph`; the file is opened at once.
    """
    path, planes = _opened(path, dataset, colour)
    return (_slice(path, planes, number) for number in range(planes.count))


def decode_micrograph(content: bytes, name: str) -> Micrograph:
    """Read one micrograph from the bytes of a PNG, JPEG or TIFF file, as the rows of a dataset hold them.

    Args:
        content: the whole file.
        name: stands in errors and in the result.

    Raises:
        EMError: damaged, of another format, in colour, or a stack.
    """
    is_tiff = content[:4] in MAGIC
    planes = (open_tiff if is_tiff else open_picture)(
        io.BytesIO(content), Request(name, "TIFF" if is_tiff else "PNG OR JPEG")
    )
    if planes.stack:
        raise EMError(
            f"{name}: a stack of shape {(*planes.stack, *planes.shape)}; save the slices as files of their own"
        )
    return Micrograph(np.asarray(planes.plane(0)), planes.pixel_size, name)


def _opened(path: str | Path, dataset: str | None, colour: str | None) -> tuple[Path, Planes]:
    """Return the path, without the dataset that it may name, and the slices."""
    check_rule(colour)
    path = Path(path)
    if "::" in str(path) and not path.exists():
        file, _, dataset_of_path = str(path).rpartition("::")
        if dataset is not None:
            raise EMError(f"dataset is '{dataset}', but {path} names one, too: give it once")
        path, dataset = Path(file), dataset_of_path
    suffix = path.suffix.lower()
    if not (path.is_dir() if suffix == ZARR else path.is_file()):
        raise EMError(f"there is no {'folder' if suffix == ZARR else 'file'} {path}")
    if suffix not in SUFFIXES:
        raise EMError(f"{path}: cannot read '{suffix}' files; supported: {', '.join(SUFFIXES)}")
    if dataset is not None and suffix not in _CONTAINERS:
        raise EMError(f"{path}: '{suffix}' files hold no named datasets, got dataset='{dataset}'")
    return path, _READERS[suffix](path, Request(str(path), suffix[1:].upper(), dataset, colour))


def _slice(path: Path, planes: Planes, index: int | None) -> Micrograph:
    number = 0 if index is None else index
    if not -planes.count <= number < planes.count:
        expected = f"0 to {planes.count - 1}, or -{planes.count} to -1" if planes.stack else "0: it holds one image"
        raise EMError(f"{path}: index is {index}; expected {expected}")
    number %= planes.count
    image = planes.plane(number)
    return Micrograph(image, planes.pixel_size, path.name, planes.axes, number if planes.stack else None)


def list_micrographs(folder: str | Path) -> list[Path]:
    """Return the image files below a folder, sorted by path; the folder of a Zarr image counts as one.

    Raises:
        EMError: the folder is missing or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise EMError(f"there is no folder {folder}")
    found = []
    for place, folders, names in os.walk(folder):
        images = [name for name in folders if Path(name).suffix.lower() == ZARR]
        folders[:] = [name for name in folders if name not in images]
        files = [name for name in names if Path(name).suffix.lower() in SUFFIXES]
        images += [name for name in files if not name.lower().endswith(ZARR) and (Path(place) / name).is_file()]
        found += [Path(place) / name for name in images]
    if not found:
        raise EMError(f"{folder} holds no image; looked for {', '.join(SUFFIXES)}")
    return sorted(found)
