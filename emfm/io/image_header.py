"""The size of an image in a dataset's row, looked at before memory is taken for its pixels.

Rows come from strangers, by the million and unattended, so their bounds are narrower than those of the readers, which
open a user's own mosaics, too.
"""

import io
import lzma
import struct
import zlib
from collections.abc import Callable
from math import prod
from typing import Any

import tifffile
from PIL import Image, UnidentifiedImageError

from emfm.errors import EMError
from emfm.io.formats.pictures import PNG_MAGIC
from emfm.io.formats.tiff_structure import MAGIC

# Pillow's own limit, without which `datasets` would not show the image either: 13,377 pixels a side.
MOST_PIXELS = 178_956_970
# Of the decoded pixels of one image: as many float64.
MOST_BYTES = 8 * MOST_PIXELS
# What Pillow may take a row's bytes for; other formats of its list start foreign programs.
_PILLOW_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
# TIFF compression: how a strip is unpacked piece by piece. Other decoders write into memory of the right size.
_UNPACKERS: dict[int, Callable[[], Any]] = {
    8: zlib.decompressobj,
    32946: zlib.decompressobj,
    34925: lzma.LZMADecompressor,
}
# Bytes that deflate can make of one.
_DEFLATE_RATIO = 1032


def check_decodable(content: bytes, name: str) -> None:
    """Look at the header of a PNG, JPEG or TIFF file in memory, and at how far its compressed parts unpack.

    Args:
        content: the whole file.
        name: stands in the error.

    Raises:
        EMError: it is damaged or of another format, or its pixels would fill the memory.
    """
    try:
        if content[:4] in MAGIC:
            return _check_tiff(content, name)
        with Image.open(io.BytesIO(content), formats=_PILLOW_FORMATS) as picture:
            return _check_size(picture.size, 1, name)
    except EMError:
        raise
    except Image.DecompressionBombError as error:
        size = struct.unpack(">II", content[16:24]) if content.startswith(PNG_MAGIC) else None
        raise _too_large(size, name) from error
    except UnidentifiedImageError as error:  # its text is the buffer's address
        raise EMError(f"{name}: the file is not a PNG, JPEG or TIFF image; it begins with {content[:8]!r}") from error
    except Exception as error:  # the decoders raise many kinds on damaged files
        raise EMError(f"{name}: the file is damaged or not a PNG, JPEG or TIFF image ({error})") from error


def _check_size(size: tuple[int, ...], bytes_per_pixel: int, name: str) -> None:
    if prod(size) > MOST_PIXELS or prod(size) * bytes_per_pixel > MOST_BYTES:
        raise _too_large(size, name)


def _too_large(size: tuple[int, ...] | None, name: str) -> EMError:
    claimed = f"{size[0]} x {size[1]} pixels" if size else "more pixels"
    return EMError(
        f"{name}: the file claims {claimed}; expected at most {MOST_PIXELS:,} in all and {MOST_BYTES / 1e9:.1f} GB "
        "unpacked: it is damaged or made to fill the memory; cut large micrographs into parts"
    )


def _check_tiff(content: bytes, name: str) -> None:
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        page = tiff.pages.first
        size = (page.imagewidth, page.imagelength)
        itemsize = page.dtype.itemsize if page.dtype else 8
        _check_size(size, itemsize * page.samplesperpixel * page.imagedepth, name)
        part = prod(page.chunks) * itemsize  # a strip or tile, which may be larger than the image
        if part > MOST_BYTES:
            raise _too_large((page.tilewidth or page.imagewidth, page.tilelength or page.imagelength), name)
        unpacker = _UNPACKERS.get(page.compression)
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            packed = memoryview(content)[offset : offset + count]
            if unpacker is None or (unpacker is zlib.decompressobj and len(packed) * _DEFLATE_RATIO <= MOST_BYTES):
                continue
            if _unpacks_beyond(packed, unpacker(), max(part, MOST_BYTES // 8)):
                raise EMError(
                    f"{name}: a part of the file unpacks to more than the {part:,} bytes that its header tells: it is "
                    "damaged or made to fill the memory"
                )


def _unpacks_beyond(packed: memoryview, unpacker: Any, limit: int) -> bool:
    """Tell whether data unpack to more bytes than a limit, holding few of them at a time."""
    total, waiting = 0, bytes(packed)
    while total <= limit and not unpacker.eof:
        piece = unpacker.decompress(waiting, 1 << 22)
        total += len(piece)
        waiting = unpacker.unconsumed_tail if hasattr(unpacker, "unconsumed_tail") else b""
        if not piece and not waiting:
            break
    return total > limit
