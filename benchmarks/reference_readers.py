"""The images of a file as the reference library of its format gives them."""

import importlib
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emfm.io.formats.planes import LARGEST_SIDE_NM, RULES, SMALLEST_SIDE, nanometres


class NotAnImageError(Exception):
    """The file is sound, and holds no image: a spectrum, complex values, a line."""


@dataclass(frozen=True)
class Image:
    """One image, or a stack, of a file."""

    array: np.ndarray  #: (..., H, W)
    pixel_size: float | None = None  #: nm; NaN where the reference does not know such files
    dataset: str | None = None  #: by which emfm knows it, where the file holds several
    colour: str | None = None  #: the rule by which it became grey
    complaint: str | None = None  #: what the reference found wrong with the file, and passed over


def reference_images(path: Path) -> list[Image]:
    """Return the images of a file.

    Raises:
        NotAnImageError: there is none.
        Exception: what the library raises on a damaged file.
    """
    images = _READERS[path.suffix.lower()](path)
    real = [one for one in images if one.array.dtype.kind in "biuf" and one.array.ndim > 1 and one.array.size]
    if not real:
        raise NotAnImageError(", ".join(f"values of {one.array.dtype}, shape {one.array.shape}" for one in images))
    return real


def _grey(array: np.ndarray) -> tuple[np.ndarray, str | None]:
    """Return grey values of (..., 3 or 4) and the rule: none where the channels are equal.

    Slices whose channels are equal stay as they are: the shares of the colours add up to 1.
    """
    if (array[..., :1] == array[..., 1:3]).all():
        return array[..., 0], None
    planes = array.reshape(-1, *array.shape[-3:])
    grey = planes[..., :3] @ np.array(RULES["luminance"])
    values = (np.rint(grey) if array.dtype.kind in "iu" else grey).astype(array.dtype)
    for number, plane in enumerate(planes):
        if (plane[..., :1] == plane[..., 1:3]).all():
            values[number] = plane[..., 0]
    return values.reshape(array.shape[:-1]), "luminance"


def _without_names(array: np.ndarray) -> Image:
    """Return the image of an array whose axes nobody names: a last one of 3 or 4 is colour."""
    if array.ndim < 2:
        return Image(array)
    kept = np.squeeze(array) if array.ndim > 2 else array
    if kept.ndim > 2 and kept.shape[-1] in (3, 4):
        grey, rule = _grey(kept)
        return Image(grey, colour=rule)
    return Image(array.reshape(kept.shape) if kept.ndim >= 2 else array.reshape(-1, array.shape[-1]))


def _picture(path: Path) -> list[Image]:
    from PIL import Image as Pictures

    with Pictures.open(path) as picture:
        if getattr(picture, "n_frames", 1) > 1:
            raise NotAnImageError("an animation")
        mode = {"P": "RGB", "PA": "RGBA", "LA": "L", "La": "L", "CMYK": "RGB"}.get(picture.mode)
        array = np.array(picture.convert(mode) if mode else picture)
    if array.ndim == 3:
        return [Image(*(lambda grey, rule: (grey, None, None, rule))(*_grey(array)))]
    return [Image(array)]


def _bounded(size: float | None) -> float | None:
    return size if size is not None and SMALLEST_SIDE <= size <= LARGEST_SIDE_NM else None


def _scale(axes: list[dict[str, Any]]) -> float | None:
    """Return nm a pixel: the root of the area of one, where x and y differ."""
    sides = [nanometres(axis.get("scale"), axis.get("units")) for axis in axes]
    if any(side is None or side <= 0 for side in sides):
        return None
    return _bounded(float(np.sqrt(sides[0] * sides[1])))  # type: ignore[operator]


def _rosettasciio(path: Path) -> list[Image]:
    module = {".dm3": "digitalmicrograph", ".dm4": "digitalmicrograph", ".ser": "tia", ".emd": "emd"}
    reader = importlib.import_module(f"rsciio.{module[path.suffix.lower()]}")
    signals = reader.file_reader(path)
    images = []
    for signal in signals:
        axes = sorted(signal["axes"], key=lambda axis: axis.get("index_in_array", 0))
        plane = [axis for axis in axes if not axis.get("navigate")]
        array = np.asarray(signal["data"])
        if array.dtype.names:  # colour
            array = np.stack([array[name] for name in array.dtype.names], axis=-1)
            grey, rule = _grey(array)
            images.append((grey, _scale(plane or axes), rule))
        elif len(plane) == 2 and array.ndim >= 2 and plane == axes[-2:]:
            images.append((_upright(array, plane), _scale(plane), None))
        elif sorted(names := [str(axis.get("name")).lower() for axis in axes[:2]]) == ["x", "y"]:
            # a spectrum at each place
            place = names.index("y"), names.index("x")
            images.append((np.moveaxis(array, place, (-2, -1)), _scale(axes[:2]), None))
    if not images:
        raise NotAnImageError(f"{len(signals)} signals, none of them an image")
    several = len(images) > 1
    return [
        Image(array, size, str(number) if several else None, rule) for number, (array, size, rule) in enumerate(images)
    ]


def _upright(array: np.ndarray, plane: list[dict[str, Any]]) -> np.ndarray:
    """Return rows along y. Of EMD files of Berkeley rosettasciio reverses the axes.

    Their own reader, ncempy, leaves them as they are: the first is that of the rows, or the name
    says which is.
    """
    names = [str(axis.get("name", ""))[-1:].lower() for axis in plane]
    return array if names == ["y", "x"] else np.swapaxes(array, -1, -2)


def _mrc(path: Path) -> list[Image]:
    import mrcfile

    with mrcfile.open(path, permissive=True) as file:
        if file.data is None:
            raise ValueError("no data")
        sides = [float(file.voxel_size.x) / 10, float(file.voxel_size.y) / 10]
        size = _bounded(float(np.sqrt(sides[0] * sides[1]))) if min(sides) > 0 else None
        return [Image(np.array(file.data), size)]


class _Complaints(logging.Handler):
    """Keeps what a library logs as errors."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def _tiff(path: Path) -> list[Image]:
    complaints = _Complaints()
    logging.getLogger("tifffile").addHandler(complaints)
    try:
        (image,) = _tiff_images(path)
    finally:
        logging.getLogger("tifffile").removeHandler(complaints)
    return [replace(image, complaint="; ".join(complaints.said) or None)]


def _tiff_images(path: Path) -> list[Image]:
    import tifffile

    with tifffile.TiffFile(path) as file:
        page, first = file.pages.first, file.series[0]
        if page.photometric == tifffile.PHOTOMETRIC.SEPARATED:
            raise NotAnImageError("ink colours (CMYK)")
        alike = [_shown(file, one) for one in file.series if (one.shape, one.dtype) == (first.shape, first.dtype)]
        axes = first.axes if len(alike) == 1 else f"I{first.axes}"
        array = np.stack(alike) if len(alike) > 1 else alike[0]
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE and not file.is_imagej:
            axes = f"{axes.replace('S', '')}S"
    rule = None
    if "S" in axes:
        array = np.moveaxis(array, axes.index("S"), -1)
        if array.shape[-1] == 2 and page.extrasamples:  # grey and alpha
            array = array[..., :1].repeat(3, axis=-1)
        array, rule = _grey(array)
    return [Image(array, _tiff_size(path), None, rule)]


def _shown(file: Any, series: Any) -> np.ndarray:
    """Return the values of a series, or the colours that a palette gives them."""
    array, page = series.asarray(), series.keyframe
    if page.photometric != 3 or file.is_imagej:  # no palette; ImageJ colours intensities
        return array
    if page.samplesperpixel == 2:  # an index and alpha
        array = array[..., 0]
    planes = array.reshape(-1, *array.shape[-2:]).astype(np.uint16)
    shown = []
    for number, plane in enumerate(planes):  # each page has a palette of its own
        own = series.pages[number] if len(series.pages) == len(planes) else page
        colours = (np.asarray(own.keyframe.colormap).T >> 8).astype(np.uint8)
        shown.append(colours[plane])
    return np.stack(shown).reshape(*array.shape, 3)


def _tiff_size(path: Path) -> float | None:
    """Return what rosettasciio, which knows the tags of microscopes, says of the pixel size."""
    from rsciio import tiff

    try:
        signal = tiff.file_reader(path)[0]
    except Exception:  # it reads fewer kinds than tifffile
        return math.nan
    axes = {str(axis.get("name")): axis for axis in signal["axes"]}
    sides = [axes.get(name, {}) for name in ("width", "height")]
    known = all(str(side.get("units")) not in ("None", "", "<undefined>", "nan") for side in sides)
    return _scale(sides) if known else math.nan


def _npy(path: Path) -> list[Image]:
    return [_without_names(np.load(path, allow_pickle=False))]


def _hdf5(path: Path) -> list[Image]:
    import h5py

    found: list[Image] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim >= 2 and item.dtype.kind in "biuf":
            image = _without_names(item[()])
            found.append(replace(image, dataset=name))

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    if not found:
        raise NotAnImageError("no dataset with two axes or more")
    return found


_READERS: dict[str, Callable[[Path], list[Image]]] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp"), _picture),
    **dict.fromkeys((".tif", ".tiff", ".btf", ".tf8"), _tiff),
    **dict.fromkeys((".dm3", ".dm4", ".ser", ".emd"), _rosettasciio),
    **dict.fromkeys((".mrc", ".mrcs", ".map", ".rec", ".st"), _mrc),
    **dict.fromkeys((".h5", ".hdf5", ".hdf"), _hdf5),
    ".npy": _npy,
}
