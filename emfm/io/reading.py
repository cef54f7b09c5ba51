"""Reading micrographs of every format in their own dtype, with the pixel size."""

import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from emfm.errors import EMError
from emfm.io.formats.containers import open_hdf5, open_zarr
from emfm.io.formats.mapped import open_mrc, open_npy
from emfm.io.formats.pictures import open_picture
from emfm.io.formats.planes import RULES, Planes, Request
from emfm.io.formats.tiff import open_tiff
from emfm.io.formats.tiff_parts import MAGIC
from emfm.io.formats.vendor import open_vendor
from emfm.io.large_images import LazyImage
from emfm.io.listing import walk
from emfm.io.own_output import OwnOutput

ZARR = ".zarr"  # the only format whose files are folders
MRC_SUFFIXES = (".mrc", ".mrcs", ".map", ".rec", ".st")
_CONTAINERS = {
    **dict.fromkeys((".h5", ".hdf5", ".hdf"), open_hdf5),
    ZARR: open_zarr,
    **dict.fromkeys((".dm3", ".dm4", ".ser", ".emd"), open_vendor),
}
Readers = Mapping[str, Callable[[Any, Request], Planes]]
READERS: Readers = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp"), open_picture),
    **dict.fromkeys((".tif", ".tiff", ".btf", ".tf8"), open_tiff),
    ".npy": open_npy,
    **dict.fromkeys(MRC_SUFFIXES, open_mrc),
    **_CONTAINERS,
}
SUFFIXES = tuple(READERS)


@dataclass(frozen=True)
class Micrograph:
    """One image as the file holds it.

    Attributes:
        image: (H, W) in the file's own dtype and native byte order. Above 64 MiB a read-only memory
            map, or a `LazyImage`, which reads regions on demand: `np.asarray(image)` loads it.
        pixel_size: side of a pixel in nm, or None where the file does not say.
        name: the file's name.
        axes: one letter for each axis of the file that is longer than one: "YX", or "ZYX" of a
            stack; "Q" for an axis that the file does not name.
        index: which slice of a stack this is, None for a file of one image.
        data_bar: rows at the bottom that a scanning microscope wrote its settings into, 0 if the
            file does not say; what measures, learns or predicts leaves them out.
        slice_distance: nm from a slice of a stack to the next, or None where the file does not say.
    """

    image: np.ndarray | LazyImage
    pixel_size: float | None
    name: str
    axes: str = "YX"
    index: int | None = None
    data_bar: int = 0
    slice_distance: float | None = None

    def without_data_bar(self) -> "Micrograph":
        """Return the micrograph above its data bar."""
        if not self.data_bar:
            return self
        height = self.image.shape[0] - self.data_bar
        if isinstance(self.image, np.ndarray):
            return replace(self, image=self.image[:height], data_bar=0)
        whole = self.image

        def read(top: int, bottom: int, left: int, right: int) -> np.ndarray:
            return whole[top:bottom, left:right]

        image = LazyImage((height, whole.shape[1]), whole.dtype, (1, whole.shape[1]), read)
        return replace(self, image=image, data_bar=0)

    @property
    def array(self) -> np.ndarray:
        """The whole image as an array, loaded where it is not yet."""
        return np.asarray(self.image)


@dataclass(frozen=True)
class FileChoice:
    """What is chosen of every file of a folder; fields as in `read_micrograph`.

    The dataset is that of files which hold several; PNG or TIFF files beside them have none.
    """

    dataset: str | None = None
    colour: str | None = None

    def dataset_in(self, path: str | Path) -> str | None:
        """Return the dataset to read from a file."""
        return self.dataset if Path(path).suffix.lower() in _CONTAINERS else None

    def check(self, paths: Iterable[str | Path], source: str) -> None:
        """Raise an EMError if a dataset is chosen and no file could hold it."""
        if self.dataset is not None and not any(self.dataset_in(path) for path in paths):
            kinds = ", ".join(_CONTAINERS)
            raise EMError(
                f"dataset is '{self.dataset}', but {source} holds no file with datasets ({kinds}): leave it out"
            )


def read_micrograph(
    path: str | Path, index: int | None = None, *, dataset: str | None = None, colour: str | None = None
) -> Micrograph:
    """Read one micrograph of any supported format (docs/formats.md lists them).

    Images of more than 64 MiB stay in their file where the format allows it.

    Args:
        path: file, or folder of a Zarr image. `FILE::DATASET` names a dataset of a container.
        index: slice of a stack, from 0; negative ones count from the end. Stacks of several axes
            count through all slices, the last axis fastest.
        dataset: which image of an HDF5, Zarr, DM or EMD file; OME-Zarr's level, if not the finest.
        colour: how to turn a colour image into grey: "luminance", "mean", "red", "green" or "blue".
            By default colour is refused; equal channels are grey in any case.

    Raises:
        EMError: the file is missing, damaged, of another format, colour, or a stack without index.
    """
    request, planes = open_planes(path, READERS, dataset, colour)
    if planes.stack and index is None:
        raise EMError(
            f"{request.name}: a stack of shape {(*planes.stack, *planes.shape)}, axes "
            f"{planes.axes}, with {planes.count} slices; choose one with index=0 to "
            f"{planes.count - 1} (--index), or go through all with read_stack"
        )
    return _slice(request, planes, index or 0)


def read_stack(path: str | Path, *, dataset: str | None = None, colour: str | None = None) -> Iterator[Micrograph]:
    """Return an iterator over a stack's slices, each read in its turn; one image is a stack of one.

    No more than a slice is in memory. Arguments are those of `read_micrograph`, and so are its
    errors. The file is opened at once.
    """
    return iter(Slices(*open_planes(path, READERS, dataset, colour)))


@dataclass(frozen=True)
class Slices:
    """The slices of an opened file, each read when it is asked for: `slices[3]`."""

    request: Request
    planes: Planes

    def __len__(self) -> int:
        return self.planes.count

    def __getitem__(self, number: int) -> Micrograph:
        return _slice(self.request, self.planes, number)

    def __iter__(self) -> Iterator[Micrograph]:
        return (self[number] for number in range(len(self)))


def open_stack(path: str | Path, choice: FileChoice) -> Slices:
    """Open a file for its slices, those of a stack or the only image, with what the user chooses.

    Raises:
        EMError: the file is missing, damaged, of another format, or in colour.
    """
    return Slices(*open_planes(path, READERS, choice.dataset_in(path), choice.colour))


def decode_micrograph(content: bytes, name: str, colour: str | None = None) -> Micrograph:
    """Read one micrograph from the bytes of a PNG, JPEG or TIFF file, as in a dataset's row.

    The name stands in errors and in the result; `colour` is as in `read_micrograph`.

    Raises:
        EMError: damaged, of another format, in colour, or a stack.
    """
    is_tiff = content[:4] in MAGIC
    request = Request(name, "TIFF" if is_tiff else "PNG OR JPEG", colour=_rule(colour), can_choose=False)
    with request.decoding():
        planes = (open_tiff if is_tiff else open_picture)(io.BytesIO(content), request)
        if planes.stack:
            shape = (*planes.stack, *planes.shape)
            raise EMError(f"{name}: a stack of shape {shape}; save each slice as its own file")
        return Micrograph(np.asarray(planes.plane(0)), planes.pixel_size, name, data_bar=planes.data_bar)


def open_planes(
    given: str | Path,
    readers: Readers,
    dataset: str | None = None,
    colour: str | None = None,
    mask: bool = False,
    can_choose: bool = True,
) -> tuple[Request, Planes]:
    """Open a file with the reader of its suffix; returns it with what was asked for.

    Raises:
        EMError: the file is missing, damaged or of another format.
    """
    colour = _rule(colour)
    path, named = split_dataset(given)
    if named is not None and dataset is not None:
        raise EMError(f"dataset is '{dataset}', but {given} names one, too: give it once")
    dataset = named if dataset is None else dataset
    suffix = path.suffix.lower()
    if path.is_dir() and suffix != ZARR:
        raise EMError(f"{path} is a folder; expected a file: list_micrographs finds those in it, emfm predict takes it")
    if not (path.is_dir() if suffix == ZARR else path.is_file()):
        raise EMError(f"there is no {'folder' if suffix == ZARR else 'file'} {path}")
    if suffix not in readers:
        kind = f"'{suffix}' files" if suffix else "a file without a suffix"
        raise EMError(f"{path}: cannot read {kind}; supported: {', '.join(readers)}")
    if suffix != ZARR and not path.stat().st_size:
        raise EMError(f"{path}: the file is empty (0 bytes): copy or save it again")
    if dataset is not None and suffix not in _CONTAINERS:
        raise EMError(f"{path}: '{suffix}' files hold no named datasets, got dataset='{dataset}'")
    request = Request(str(path), suffix[1:].upper(), dataset, colour, mask, can_choose)
    with request.decoding():
        return request, readers[suffix](path, request)


def _rule(colour: str | None) -> str | None:
    """Return the name of a rule for colour; an EMError says which there are."""
    if colour is not None and colour not in RULES:
        raise EMError(f"colour is '{colour}'; expected {', '.join(RULES)}, or None to refuse colour images")
    return colour


def split_dataset(path: str | Path) -> tuple[Path, str | None]:
    """Return file and dataset of `FILE::DATASET`; no dataset where the file has that very name."""
    text = str(path)
    if "::" not in text or Path(text).exists():
        return Path(path), None
    parts = text.split("::")
    for count in range(len(parts) - 1, 0, -1):  # the longest name that there is
        file = Path("::".join(parts[:count]))
        if file.exists():
            return file, "::".join(parts[count:])
    missing, _, dataset = text.rpartition("::")
    return Path(missing), dataset


def _slice(request: Request, planes: Planes, index: int) -> Micrograph:
    if isinstance(index, bool) or not isinstance(index, Integral):
        raise EMError(f"index is {index!r}; expected the number of a slice, from 0")
    if not -planes.count <= index < planes.count:
        several = f"0 to {planes.count - 1}, or -{planes.count} to -1"
        expected = several if planes.stack else "0: it holds one image"
        raise EMError(f"{request.name}: index is {index}; expected {expected}")
    number = index % planes.count
    with request.decoding():
        image = planes.plane(number)
    name = Path(request.name).name
    index_of = number if planes.stack else None
    return Micrograph(image, planes.pixel_size, name, planes.axes, index_of, planes.data_bar, planes.slice_distance)


def read_slices(path: str | Path, choice: FileChoice | None = None) -> Iterator[Micrograph]:
    """Return an iterator as `read_stack`, with what the user chooses of every file.

    Without a choice the user can make none: the advice of errors is what to do with the file.
    """
    dataset, colour = (choice.dataset_in(path), choice.colour) if choice else (None, None)
    request, planes = open_planes(path, READERS, dataset, colour, can_choose=choice is not None)
    return iter(Slices(request, planes))


def list_micrographs(folder: str | Path, suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """Return the image files below a folder, sorted by path; a Zarr image's folder counts as one.

    Hidden files and those of systems are left out (`emfm.io.listing`), links are followed. So is
    what emfm itself wrote (`emfm.io.own_output`), and masks or targets beside `images`.

    Raises:
        EMError: the folder is missing or holds no image.
    """
    folder = Path(folder)
    if folder.is_file():
        raise EMError(f"{folder} is a file; expected a folder of micrographs")
    if not folder.is_dir():
        raise EMError(f"there is no folder {folder}")
    found, own = [], OwnOutput(folder)
    for place, folders, names in walk(folder):
        own.prune(folders, names)
        images = [name for name in folders if name.lower().endswith(ZARR)]
        folders[:] = [name for name in folders if name not in images]
        images += [name for name in names if Path(name).suffix.lower() in suffixes and not name.lower().endswith(ZARR)]
        kept = [place / name for name in own.without_pictures(place, names, images)]
        # a link that leads nowhere is kept: reading it says so
        found += [file for file in kept if file.exists() or file.is_symlink()]
    found = own.without_results(found)
    if not found and own.left_out:
        raise EMError(f"{folder} holds no image but what emfm wrote: give the folder of the micrographs")
    if not found:
        raise EMError(f"{folder} holds no image; looked for {', '.join(suffixes)}")
    return sorted(found)
