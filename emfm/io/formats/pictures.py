"""PNG, JPEG and BMP, through Pillow. They are decoded whole; none knows a microscope's pixel size.

Masks may be GIF or WebP, too.
"""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile

from emfm.errors import UnsupportedFileError
from emfm.io.formats.planes import Planes, Request, check_claim, one_channel, planes_of_array, with_grey_annotations

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# Modes whose array is not the values as they are; others hold one, three or four values a pixel.
_CONVERTED = {"P": "RGB", "PA": "RGBA", "LA": "L", "La": "L", "CMYK": "RGB", "YCbCr": "RGB"}
# Of masks: "PA" is split into its indices and alpha, "P" are indices.
_CONVERTED_OF_MASKS = {"La": "LA", "CMYK": "RGB", "YCbCr": "RGB", "RGBa": "RGBA"}
# By how the file begins: Image.open would try all of Pillow's formats, by whatever name.
_PLUGINS: dict[bytes, type[ImageFile]] = {
    PNG_MAGIC: PngImagePlugin.PngImageFile,
    b"\xff\xd8": JpegImagePlugin.JpegImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
}


def open_picture(file: Path | BytesIO, request: Request) -> Planes:
    """Decode a PNG, JPEG or BMP file."""
    # in memory: from a file Pillow would make room for as many bytes as a damaged chunk claims
    content = file.read_bytes() if isinstance(file, Path) else file.getvalue()
    if content.startswith(PNG_MAGIC) and content[24:26] in (b"\x10\2", b"\x10\4", b"\x10\6"):
        raise UnsupportedFileError(
            f"{request.name}: a 16-bit PNG with colour or alpha, of which Pillow keeps 8 bits: "
            "save it as grey without alpha, or as TIFF"
        )
    # Image.open would refuse large mosaics, and take any of Pillow's formats by whatever name
    with BytesIO(content) as stream, _plugin(content, request)(stream) as picture:
        width, height = picture.size
        claimed = width * height * (len(picture.getbands()) if picture.mode != "I;16" else 2)
        check_claim(claimed, len(content), request)
        frames = getattr(picture, "n_frames", 1)
        if frames > 1:
            raise UnsupportedFileError(f"{request.name}: an animation of {frames} frames; expected one image")
        if request.mask:
            return _mask(picture, request)
        if picture.mode == "CMYK" and request.colour is None:
            # in ink colours a grey picture has three equal, empty channels
            raise UnsupportedFileError(
                f"{request.name}: a colour image (CMYK); convert it to greyscale first"
                + (", or choose how: --colour luminance, in Python colour='luminance'" if request.can_choose else "")
            )
        mode = _CONVERTED.get(picture.mode)
        values = np.array(picture.convert(mode) if mode else picture)
        if picture.mode == "P":
            values = _coloured(picture, request.name)
    if values.ndim == 3:
        values = one_channel(values, request)
    return planes_of_array(values, "YX", None, request)


def _coloured(picture: ImageFile, name: str) -> np.ndarray:
    """Return the colours (H, W, 3) of a picture with a palette, few among greys as grey."""
    colours = np.zeros((256, 3), np.uint8)
    given = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
    colours[: len(given)] = given
    return with_grey_annotations(colours, name)[np.array(picture)]


def _plugin(content: bytes, request: Request) -> type[ImageFile]:
    if request.mask and content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    if request.mask and content.startswith(b"GIF8"):
        return GifImagePlugin.GifImageFile
    for start, plugin in _PLUGINS.items():
        if content.startswith(start):
            return plugin
    raise request.damaged("it begins like no PNG, JPEG or BMP file")


def _mask(picture: ImageFile, request: Request) -> Planes:
    """Return a mask's values with the palette that shows them, if it has one."""
    mode = _CONVERTED_OF_MASKS.get(picture.mode)
    colours = None
    if picture.mode in ("P", "PA"):
        colours = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
    values = np.array(picture.convert(mode) if mode else picture)
    if values.ndim == 3:
        values = one_channel(values, request)
    return replace(planes_of_array(values, "YX", None, request), palette=colours)
