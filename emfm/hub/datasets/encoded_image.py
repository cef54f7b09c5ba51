"""Image files in memory, as rows of a dataset: kept as they are, or made without loss."""

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from emfm.data.classes import IGNORE, GreyValues
from emfm.errors import EMError
from emfm.hub.privacy import holds_private_metadata
from emfm.io.image_header import MOST_PIXELS
from emfm.io.masks import BORDER, Mask, read_masks
from emfm.io.reading import Micrograph, decode_micrograph, read_slices

# What a file holds without loss: PNG the unsigned, TIFF the rest.
DTYPES = ("uint8", "uint16", "int16", "int32", "float32")
# Files that every reader of datasets decodes.
KEPT_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


@dataclass(frozen=True)
class EncodedImage:
    """A whole image file in memory."""

    content: bytes  # the bytes of the file
    name: str  # the file's name
    shape: tuple[int, ...]  # (height, width) in pixels
    dtype: str  # of the pixels
    pixel_size: float | None = None  # nm per pixel, None where it is not known


def kept_file(path: str | Path) -> EncodedImage:
    """Return a PNG, JPEG or TIFF file as it is, after a look at its pixels.

    Raises:
        EMError: it is missing, broken, of another format, in colour, or a stack.
    """
    return _kept(Path(path))[0]


def _kept(path: Path) -> tuple[EncodedImage, Micrograph]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EMError(f"cannot read {path} ({error.strerror}); expected an image file") from error
    found = decode_micrograph(content, str(path))
    return EncodedImage(content, path.name, found.image.shape, str(found.image.dtype), found.pixel_size), found


def published_file(path: str | Path, name: str) -> tuple[EncodedImage, Micrograph]:
    """Return a file as a row of a published dataset holds it, and what it shows.

    A PNG, JPEG or TIFF file of one channel is kept byte for byte. Others become a PNG or TIFF with
    the same values and no metadata: other formats, grey images stored as RGB, files that Pillow
    (`datasets` without emfm) reads differently, metadata with a path, a token or the user's name.

    Args:
        path: of any format that `read_micrograph` reads.
        name: of the file in the dataset; an image that is encoded anew gets another suffix.

    Raises:
        EMError: it is missing, broken, in colour or a stack, or fits no file that `datasets` reads.
    """
    path = Path(path)
    if path.suffix.lower() in KEPT_SUFFIXES:
        kept, micrograph = _kept(path)
        if _read_alike_by_pillow(kept.content, micrograph.array) and not holds_private_metadata(kept.content):
            return replace(kept, name=name), micrograph
    else:
        micrograph = _single(path)
    if micrograph.image.size > MOST_PIXELS:
        height, width = micrograph.image.shape
        raise EMError(f"{path} has {height} x {width} pixels; a row has at most {MOST_PIXELS:,}: cut it into parts")
    again = encode_image(_storable(micrograph.array, path), Path(name).with_suffix("").as_posix())
    return replace(again, pixel_size=micrograph.pixel_size), micrograph


def _single(path: Path) -> Micrograph:
    """Return the only image of a file."""
    first = next(read_slices(path))
    if first.index is not None:
        raise EMError(f"{path}: a stack; a row of a dataset holds one image: save each slice as its own file")
    return first


def published_mask(path: str | Path, name: str, classes: GreyValues) -> tuple[EncodedImage, Mask]:
    """Return a mask as a row of a published dataset holds it, and what was read.

    PNG and TIFF files are kept, palettes and single bits, too, as `published_file` says. What is
    encoded anew holds the grey values that have names.

    Raises:
        EMError: as `published_file`; or the mask holds a value without a class.
    """
    path = Path(path)
    mask, *more = read_masks(path)
    if more or mask.index is not None:
        raise EMError(f"{path}: a stack of masks; a row of a dataset holds one: save each slice as its own file")
    values = classes.values(mask, str(path))
    if path.suffix.lower() in KEPT_SUFFIXES:
        content = path.read_bytes()
        if _read_alike_by_pillow(content, mask.array, nan=True) and not holds_private_metadata(content):
            return EncodedImage(content, name, mask.array.shape, str(mask.array.dtype)), mask
    values = _with_ignored(values, mask, classes, path)
    return encode_image(_storable(values, path), Path(name).with_suffix("").as_posix()), mask


def _with_ignored(values: np.ndarray, mask: Mask, classes: GreyValues, path: Path) -> np.ndarray:
    """Return values in which the pixels of no class, NaN or a border, have that of "ignore"."""
    no_class = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    if mask.border is not None and mask.border not in classes.names:
        no_class |= values == mask.border
    if not no_class.any():
        return values
    ignored = [value for value, label in classes.names.items() if label.casefold() == IGNORE]
    if not ignored:
        raise EMError(
            f"{path} has {int(no_class.sum())} pixels of no class (NaN, or a border) and has to be encoded anew: "
            f'say in labels.json which value they shall have, as "{BORDER}": "{IGNORE}"'
        )
    return np.where(no_class, ignored[0], values).astype(np.int32)


def _read_alike_by_pillow(content: bytes, image: np.ndarray, nan: bool = False) -> bool:
    """Tell whether Pillow reads a file to the same values, of which some may be NaN."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            pixels = np.asarray(picture)
    except Exception:  # Pillow raises many kinds on what it does not know
        return False
    return np.array_equal(pixels, image, equal_nan=nan)


def _storable(image: np.ndarray, path: Path) -> np.ndarray:
    """Return an image in a dtype that image files hold, with the same values."""
    if image.dtype.kind == "f" or image.dtype.name in DTYPES:
        return image
    low, high = int(image.min()), int(image.max())
    for name in DTYPES[:-1]:
        if np.iinfo(name).min <= low and high <= np.iinfo(name).max:
            return image.astype(name)
    raise EMError(f"{path}: {image.dtype} values from {low} to {high} fit no image file; expected them within int32")


def encode_image(image: np.ndarray, name: str) -> EncodedImage:
    """Write an array as an image file in memory: PNG for uint8 and uint16, TIFF for the rest.

    Args:
        image: (H, W) uint8, uint16, int16, int32 or floating point; floats become float32.
        name: of the file, without suffix.

    Raises:
        EMError: another shape or dtype, or values that are not finite.
    """
    if image.ndim != 2 or 0 in image.shape:
        raise EMError(f"{name}: shape {image.shape}; expected one image (height, width)")
    kind = np.dtype(np.float32) if image.dtype.kind == "f" else image.dtype.newbyteorder("=")
    if kind.name not in DTYPES:
        raise EMError(f"{name}: dtype {image.dtype}; expected {', '.join(DTYPES[:-1])} or floating point")
    pixels = np.ascontiguousarray(image, dtype=kind)
    if kind.kind == "f" and not np.isfinite(pixels).all():
        count = int((~np.isfinite(pixels)).sum())
        raise EMError(f"{name}: {count} pixels are NaN or infinite; replace them in the source, or leave the image out")
    file = io.BytesIO()
    if kind.kind == "u":
        Image.fromarray(pixels).save(file, "PNG")
    else:
        tifffile.imwrite(file, pixels)
    suffix = ".png" if kind.kind == "u" else ".tif"
    return EncodedImage(file.getvalue(), f"{name}{suffix}", pixels.shape, kind.name)
