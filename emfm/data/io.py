"""Reading micrographs in their own dtype, with the pixel size where the file has it; writing results atomically."""

import io
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from emfm.errors import EMError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")
# Nanometres in one unit of length, by the names that ImageJ and OME use.
_NANOMETRES = {"nm": 1.0, "nanometer": 1.0, "um": 1e3, "µm": 1e3, "\\u00b5m": 1e3, "micron": 1e3, "mm": 1e6, "cm": 1e7}
# TIFF and BigTIFF, little and big endian.
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TIFF_RESOLUTION_UNIT = {2: 2.54e7, 3: 1e7}  # inch, centimetre


@dataclass(frozen=True)
class Micrograph:
    """One image as the file holds it.

    Attributes:
        image: (H, W) in the file's own dtype.
        pixel_size: side of a pixel in nm, or None where the file does not say.
        name: the file's name.
    """

    image: np.ndarray
    pixel_size: float | None
    name: str


def read_micrograph(path: str | Path) -> Micrograph:
    """Read one micrograph from PNG, JPEG, TIFF or NPY.

    Grey images stored as RGB with equal channels are taken as grey; colour is refused.

    Raises:
        EMError: the file is missing, broken, of another format, in colour, or a stack.
    """
    path = Path(path)
    if not path.is_file():
        raise EMError(f"there is no file {path}")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise EMError(f"{path}: cannot read '{suffix}' files; supported: {', '.join(SUFFIXES)}")
    image, pixel_size = _decode(path, path, suffix[1:])
    return Micrograph(_one_channel(image, path), pixel_size, path.name)


def decode_micrograph(content: bytes, name: str) -> Micrograph:
    """Read one micrograph from the bytes of a PNG, JPEG or TIFF file, as the rows of a dataset hold them.

    Args:
        content: the whole file.
        name: stands in errors and in the result.

    Raises:
        EMError: broken, of another format, in colour, or a stack.
    """
    image, pixel_size = _decode(io.BytesIO(content), name, "tiff" if content[:4] in _TIFF_MAGIC else "png or jpeg")
    return Micrograph(_one_channel(image, name), pixel_size, name)


def _decode(file: Path | io.BytesIO, name: str | Path, kind: str) -> tuple[np.ndarray, float | None]:
    """Return the array and the pixel size of a file, or of its bytes, by the kind that its suffix or content says."""
    try:
        if kind == "npy":
            return np.load(file, allow_pickle=False, mmap_mode="r"), None
        if kind in ("tif", "tiff"):
            return _read_tiff(file, name)
        with Image.open(file) as picture:
            if picture.mode == "CMYK":  # in ink colours a grey picture has three equal, empty channels
                raise EMError(f"{name}: a colour image (CMYK); convert it to greyscale first")
            return np.asarray(picture.convert("RGB") if picture.mode == "P" else picture), None
    except EMError:
        raise
    # the decoders raise many kinds on damaged files; whatever it is, the user needs the file's name
    except Exception as error:
        raise EMError(f"{name}: the file is damaged or not a {kind.upper()} image ({error})") from error


def _one_channel(image: np.ndarray, path: str | Path) -> np.ndarray:
    if image.ndim == 3 and image.shape[-1] in (3, 4):
        if not (image[..., :1] == image[..., :3]).all():
            raise EMError(f"{path}: a colour image; a micrograph has one channel: convert it to greyscale first")
        image = np.ascontiguousarray(image[..., 0])
    image = image.squeeze() if image.ndim > 2 else image
    if image.ndim != 2 or 0 in image.shape:
        raise EMError(
            f"{path}: shape {image.shape}; expected one image (height, width): save the slices as files of their own"
        )
    if image.dtype.kind not in "biuf":
        raise EMError(f"{path}: dtype {image.dtype}; expected boolean, integer or floating point")
    return image


def _read_tiff(file: Path | io.BytesIO, path: str | Path) -> tuple[np.ndarray, float | None]:
    with tifffile.TiffFile(file) as tiff:
        if len(tiff.pages) > 1 and len(tiff.series[0].shape) > 2:
            raise EMError(f"{path}: a stack of shape {tiff.series[0].shape}; save the slices as files of their own")
        page = tiff.pages.first
        alike = sum(series.shape == page.shape for series in tiff.series)
        if alike > 1:  # frames written one by one; a thumbnail has another shape
            raise EMError(f"{path}: a stack of {alike} images {page.shape}; save the slices as files of their own")
        if page.photometric == tifffile.PHOTOMETRIC.SEPARATED:
            raise EMError(f"{path}: a colour image (CMYK); convert it to greyscale first")
        return page.asarray(), _tiff_pixel_size(tiff, page)


def _tiff_pixel_size(tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> float | None:
    """Return nm per pixel from ImageJ's unit, or from the resolution tag if the result can be a micrograph's."""
    tag = page.tags.get("XResolution")
    if tag is None or 0 in tag.value:
        return None
    pixels_per_unit = tag.value[0] / tag.value[1]
    if tiff.imagej_metadata:
        unit = _NANOMETRES.get(str(tiff.imagej_metadata.get("unit", "")).lower())
    else:
        unit_tag = page.tags.get("ResolutionUnit")
        unit = _TIFF_RESOLUTION_UNIT.get(int(unit_tag.value)) if unit_tag else None
    if unit is None:
        return None
    pixel_size = unit / pixels_per_unit
    # 72 to 1200 dpi is a printer's resolution, not a microscope's: over 10 micrometres a pixel says nothing
    return pixel_size if pixel_size < 1e4 else None


def list_micrographs(folder: str | Path) -> list[Path]:
    """Return the image files below a folder, sorted by path.

    Raises:
        EMError: the folder is missing or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise EMError(f"there is no folder {folder}")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise EMError(f"{folder} holds no image; looked for {', '.join(SUFFIXES)}")
    return files


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it: no half-written file ever stands there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    try:
        write(Path(temporary))
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically, UTF-8."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_image(path: str | Path, image: np.ndarray, pixel_size: float | None = None) -> None:
    """Write a 2-D or RGB array: TIFF keeps any dtype and the pixel size (nm), PNG takes uint8, uint16 and boolean."""
    path = Path(path)

    def write(temporary: Path) -> None:
        if path.suffix.lower() in (".tif", ".tiff"):
            if pixel_size is None:
                tifffile.imwrite(temporary, image)
            else:
                resolution = (1e7 / pixel_size, 1e7 / pixel_size)  # pixels per centimetre
                tifffile.imwrite(temporary, image, resolution=resolution, resolutionunit="CENTIMETER")
        else:
            Image.fromarray(image).save(temporary)

    write_atomically(path, write)
