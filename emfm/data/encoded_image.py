"""Image files in memory, as the rows of a dataset hold them: kept as they are, or made from arrays without loss."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from emfm.data.io import decode_micrograph
from emfm.errors import EMError

# What a file holds without loss: PNG the unsigned, TIFF the rest.
DTYPES = ("uint8", "uint16", "int16", "int32", "float32")


@dataclass(frozen=True)
class EncodedImage:
    """A whole image file in memory.

    Attributes:
        content: the bytes of the file.
        name: the file's name.
        shape: (height, width) in pixels.
        dtype: of the pixels.
    """

    content: bytes
    name: str
    shape: tuple[int, int]
    dtype: str


def kept_file(path: str | Path) -> EncodedImage:
    """Return a PNG, JPEG or TIFF file as it is, after a look at its pixels.

    Raises:
        EMError: it is missing, broken, of another format, in colour, or a stack.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EMError(f"cannot read {path} ({error.strerror}); expected an image file") from error
    image = decode_micrograph(content, str(path)).array
    return EncodedImage(content, path.name, (image.shape[0], image.shape[1]), str(image.dtype))


def encode_image(image: np.ndarray, name: str) -> EncodedImage:
    """Write an array as an image file in memory: PNG for uint8 and uint16, TIFF for the rest.

    Args:
        image: (H, W) uint8, uint16, int16, int32 or floating point; float16 and float64 become float32.
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
    return EncodedImage(file.getvalue(), f"{name}{suffix}", (pixels.shape[0], pixels.shape[1]), kind.name)
