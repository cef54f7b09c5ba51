"""What every format returns: 2-D images of an opened file, with limits on what it can claim."""

import logging
import math
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from emfm.errors import EMError, UnsupportedFileError
from emfm.io.formats.masks import one_value
from emfm.io.formats.slabs import by_slabs
from emfm.io.large_images import LazyImage, ReadRegion

logger = logging.getLogger(__name__)
# Smaller images are read at once: damage is found early, and thousands of them keep no file open.
WHOLE_BYTES = 64 << 20
# What one piece of a compressed file may become. Deflate reaches 1032:1 and LZW about 1300:1 on
# constant images; with more than this the header is damaged, or made to fill the memory.
LARGEST_RATIO = 2000
# A whole image may be far larger than its file, for Zarr, HDF5 and TIFF leave empty chunks out. But
# the largest mosaics have a million pixels a side.
LARGEST_SIDE = 10_000_000
# Pixel sizes along the two axes that differ by more than this are anisotropic.
ISOTROPIC = 0.01
# No microscope has smaller or larger pixels, in nm: 1 pm, and 1 mm of a camera's overview.
SMALLEST_SIDE, LARGEST_SIDE_NM = 1e-3, 1e6
# Nanometres in a unit of length, as `spelling` has what ImageJ, OME, HDF5 and microscopes write.
NANOMETRES = {
    **dict.fromkeys(("m", "meter", "metre"), 1e9),
    **dict.fromkeys(("inch", "in"), 2.54e7),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e7),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e6),
    # NFKC makes one of the two signs for micro
    **dict.fromkeys(("um", "μm", "\\u00b5m", "micron", "micrometer", "micrometre", "mum"), 1e3),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1.0),
    **dict.fromkeys(("a", "å", "angstrom", "ångström", "ångstrom", "ang"), 0.1),
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-3),
}
# A palette of so many entries with at most this share of colours is one of greys with annotations.
LEAST_GREYS, MOST_ANNOTATIONS = 64, 0.1
# Shares of red, green and blue in the grey value. "luminance" is ITU-R BT.601, as Pillow's mode L.
RULES = {
    "luminance": (0.299, 0.587, 0.114),
    "mean": (1 / 3, 1 / 3, 1 / 3),
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
}


@dataclass(frozen=True)
class Request:
    """What the caller of a reader wants.

    Attributes:
        name: stands in errors: the file's path.
        kind: of the file, for errors: "TIFF".
        dataset: path inside the file, for containers; None for the only or the standard one.
        colour: rule that turns colour into grey, None to refuse it.
        mask: the pixels are the values of a mask: palette indices stay, colour is no number.
        can_choose: the caller has a dataset and a rule for colour to give; advice says so.
    """

    name: str
    kind: str
    dataset: str | None = None
    colour: str | None = None
    mask: bool = False
    can_choose: bool = True

    def advice(self, choice: str) -> str:
        """Return what to do about a file with several images: choose, or else save one."""
        return choice if self.can_choose else "save the one to use as a file of its own"

    def damaged(self, why: object) -> EMError:
        """Return the error of a file that cannot be decoded."""
        text = " ".join(str(why).split())[:300] or type(why).__name__
        return EMError(f"{self.name}: the file is damaged or not a {self.kind} image ({text})")

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Turn what a decoder raises on damaged files, of whatever kind, into one error."""
        try:
            yield
        except EMError:
            raise
        except Exception as error:
            if isinstance(error, (NotImplementedError, ImportError)):
                message = f"{self.name}: this kind of {self.kind} file is not supported ({error})"
                raise UnsupportedFileError(message) from error
            raise self.damaged(error) from error


@dataclass(frozen=True)
class Planes:
    """The two-dimensional images of an opened file; each is read when it is asked for.

    Attributes:
        stack: lengths of the axes beside those of a slice; empty for one image. C order.
        shape: (height, width) of a slice.
        axes: one letter an axis, as the file names them: "YX", "ZYX", "TCYX"; "Q" is unnamed.
        pixel_size: side of a pixel in nm, or None.
        plane: returns one slice, (H, W) in the file's dtype and native byte order.
        palette: (N, 3) colours that a mask's values are shown in, None where it has none.
        data_bar: rows at the bottom that a microscope wrote its settings into.
        slice_distance: nm from a slice to the next, or None.
    """

    stack: tuple[int, ...]
    shape: tuple[int, int]
    axes: str
    pixel_size: float | None
    plane: Callable[[int], np.ndarray | LazyImage]
    palette: np.ndarray | None = None
    data_bar: int = 0
    slice_distance: float | None = None

    @property
    def count(self) -> int:
        """Number of slices."""
        return math.prod(self.stack)


@dataclass(frozen=True)
class Pixels:
    """How a slice lies in its file.

    Attributes:
        shape: (height, width).
        dtype: as stored, of any byte order.
        samples: values a pixel: 1 for grey, 3 or 4 for colour.
        chunk: (height, width) of what can be decoded at once.
    """

    shape: tuple[int, int]
    dtype: np.dtype
    samples: int = 1
    chunk: tuple[int, int] | None = None


def check_pixels(pixels: Pixels, request: Request) -> None:
    """Raise an error for pixels that are no micrograph's: empty, complex, text, of odd samples."""
    if 0 in pixels.shape:
        raise EMError(f"{request.name}: shape {pixels.shape}; expected one image (height, width)")
    if max(pixels.shape) > LARGEST_SIDE:
        raise request.damaged(f"it claims {pixels.shape[0]} x {pixels.shape[1]} pixels")
    if pixels.dtype.kind not in "biuf":
        raise UnsupportedFileError(f"{request.name}: dtype {pixels.dtype}; expected boolean, integer or float")
    if pixels.samples not in ((1, 2, 3, 4) if request.mask else (1, 3, 4)):
        raise EMError(f"{request.name}: {pixels.samples} values a pixel; expected one (grey), three or four (colour)")


def plane_of(pixels: Pixels, read: ReadRegion, request: Request, mapped: bool = False) -> np.ndarray | LazyImage:
    """Return a slice: an array where it is small, else memory-mapped or lazily read.

    Args:
        pixels: how it lies in the file.
        read: returns `top, bottom, left, right` as (h, w), or (h, w, samples) in colour.
        request: of the caller.
        mapped: `read` returns views of an array in memory or a memory map.
    """
    native = pixels.dtype.newbyteorder("=")

    def region(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        expected = (bottom - top, right - left, *([pixels.samples] if pixels.samples > 1 else []))
        with request.decoding():
            values = read(top, bottom, left, right)
        if values.shape != expected:
            raise request.damaged(f"{values.shape} pixels in the place of {expected}")
        if pixels.samples > 1:
            values = one_channel(values, request)
        return values.astype(native, copy=False)

    height, width = pixels.shape
    if height * width * pixels.samples * pixels.dtype.itemsize <= WHOLE_BYTES:
        image = region(0, height, 0, width)
        return image if image.flags.owndata and image.flags.writeable else np.array(image)
    if mapped and pixels.samples == 1 and pixels.dtype.isnative:
        return region(0, height, 0, width)  # a view of the map
    return LazyImage(pixels.shape, native, pixels.chunk or (1, 1), region)


def planes_of_array(
    array: Any, axes: str | None, pixel_size: float | None, request: Request, distance: float | None = None
) -> Planes:
    """Return the slices of an n-dimensional array with basic indexing: NumPy, HDF5 or Zarr.

    Axes of length one are dropped.

    Args:
        array: with `shape`, `dtype` and perhaps `chunks`, their lengths along each axis.
        axes: one letter for each axis; "Y" and "X" are those of a slice, "S" is colour. With None
            the last two are those of a slice, or the two before a last one of 3 or 4 (colour).
        pixel_size: in nm, or None.
        request: of the caller.
        distance: nm from a slice to the next, or None.
    """
    shape = tuple(int(length) for length in array.shape)
    axes = _guessed(shape) if axes is None else axes
    if "Y" not in axes or "X" not in axes or 0 in shape:
        raise EMError(f"{request.name}: shape {shape}; expected one image (height, width)")
    rows, columns, samples = axes.index("Y"), axes.index("X"), axes.find("S")
    of_slice = (rows, columns, samples)
    stack = [axis for axis in range(len(shape)) if axis not in of_slice and shape[axis] > 1]
    stack_shape = tuple(shape[axis] for axis in stack)
    chunks = getattr(array, "chunks", None)
    chunk = (int(chunks[rows]), int(chunks[columns])) if chunks else None
    of_pixel = 1 if samples < 0 else shape[samples]
    pixels = Pixels((shape[rows], shape[columns]), np.dtype(array.dtype), of_pixel, chunk)
    check_pixels(pixels, request)
    wanted = [rows, columns] if of_pixel == 1 else [rows, columns, samples]
    order = [sorted(wanted).index(axis) for axis in wanted]  # in which the array has them
    source = by_slabs(array, stack[-1]) if chunks and stack else array

    def plane(number: int) -> np.ndarray | LazyImage:
        place: list[int | slice] = [0] * len(shape)
        for axis, position in zip(stack, np.unravel_index(number, stack_shape), strict=True):
            place[axis] = int(position)
        if of_pixel > 1:
            place[samples] = slice(None)

        def read(top: int, bottom: int, left: int, right: int) -> np.ndarray:
            region = place.copy()  # threads may read at the same time
            region[rows], region[columns] = slice(top, bottom), slice(left, right)
            return np.asanyarray(source[tuple(region)]).transpose(order)  # a memory map stays one

        return plane_of(pixels, read, request, mapped=isinstance(array, np.ndarray))

    letters = "".join(axes[axis] for axis in sorted([*stack, rows, columns]))
    distance = side_in_nm(distance) if len(stack) == 1 else None
    return Planes(stack_shape, pixels.shape, letters, pixel_size, plane, slice_distance=distance)


def _guessed(shape: tuple[int, ...]) -> str:
    """Return axes where the file names none; those of length one count where others are missing."""
    kept = list(range(len(shape)))
    for axis, length in enumerate(shape):
        if length == 1 and len(kept) > 2:
            kept.remove(axis)
    colour = len(kept) > 2 and shape[kept[-1]] in (3, 4)
    letters = dict(zip(reversed(kept), "SXY" if colour else "XY", strict=False))
    return "".join(letters.get(axis, "Q") for axis in range(len(shape)))


def one_channel(values: np.ndarray, request: Request) -> np.ndarray:
    """Return the grey values (H, W) of red, green, blue (H, W, 3 or 4); alpha is ignored.

    Equal channels are grey already; others are converted by the request's rule, in the image's own
    dtype. A mask has rules of its own.

    Raises:
        EMError: the channels differ, and there is no rule.
    """
    if request.mask:
        return one_value(values, request.name)
    colour = request.colour
    if (values[..., :1] == values[..., 1:3]).all():
        return np.ascontiguousarray(values[..., 0])
    if colour is None:
        raise EMError(
            f"{request.name}: a colour image; a micrograph has one channel: convert it to greyscale first"
            + (", or choose how: --colour luminance, in Python colour='luminance'" if request.can_choose else "")
        )
    grey = values[..., :3] @ np.array(RULES[colour])
    if values.dtype.kind == "b":
        return grey >= 0.5
    return (np.rint(grey) if values.dtype.kind in "iu" else grey).astype(values.dtype)


def with_grey_annotations(colours: np.ndarray, name: str) -> np.ndarray:
    """Return a palette (N, 3) whose few colours, of annotations in a grey picture, are grey, too.

    Microscopes draw a scale or a marker in colour into a palette of greys; a line says how many
    entries become their luminance. Other palettes are returned as they are.
    """
    coloured = (colours != colours[:, :1]).any(axis=1)
    if not coloured.any() or len(colours) < LEAST_GREYS or coloured.mean() > MOST_ANNOTATIONS:
        return colours
    logger.warning("%s: %d colours of a grey palette (annotations) are taken as grey", name, coloured.sum())
    grey = np.rint(colours @ np.array(RULES["luminance"])).astype(colours.dtype)
    return np.where(coloured[:, None], grey[:, None], colours)


def check_claim(nbytes: int, encoded: int, request: Request) -> None:
    """Raise an error if no compression makes `nbytes` of pixels of so many encoded bytes."""
    if nbytes > max(WHOLE_BYTES, LARGEST_RATIO * encoded):
        raise request.damaged(f"{encoded} bytes claim to hold {nbytes} bytes of pixels")


def pixel_side(x: float | None, y: float | None, name: str) -> float | None:
    """Return one pixel size from those along a row and a column, in nm; None where none can be one.

    A missing one is as the other. Where they differ by more than 1 %, a warning is logged and the
    side of the square of the same area is returned: areas stay right, lengths do not.
    """
    y = x if y is None else y
    x = y if x is None else x
    if x is None or y is None or not (0 < x < math.inf and 0 < y < math.inf):
        return None
    if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE_NM for side in (x, y)):
        logger.warning("%s: its header says %.4g x %.4g nm per pixel, which no microscope has: not taken", name, x, y)
        return None
    if abs(x - y) <= ISOTROPIC * max(x, y):
        return x
    side = math.sqrt(x * y)
    logger.warning("%s: pixels of %g x %g nm are not square; taken as squares of %g nm", name, x, y, side)
    return side


def side_in_nm(value: float | None) -> float | None:
    """Return a length in nm that a voxel can have, None for others."""
    return value if value is not None and SMALLEST_SIDE <= value <= LARGEST_SIDE_NM else None


def spelling(unit: Any) -> str:
    """Return a unit as `NANOMETRES` has it: without case, brackets, blanks and plural."""
    plain = unicodedata.normalize("NFKC", str(unit)).casefold().strip(" \t\n\0[]()").replace("_", "")
    return plain.removesuffix("s") if len(plain) > 3 else plain


def nanometres(value: Any, unit: Any) -> float | None:
    """Return a length in nm, None where the unit is none of length or the value no number."""
    factor = NANOMETRES.get(spelling(unit))
    try:
        return None if factor is None else float(value) * factor
    except (TypeError, ValueError):
        return None
