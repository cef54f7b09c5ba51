"""The size of an image in a dataset's row, looked at before memory is taken for its pixels.

Rows come from strangers, by the million and unattended: their bounds are narrower than a file's.
"""

import io
import lzma
import struct
import zlib
from math import prod

import tifffile
from PIL import Image, UnidentifiedImageError

from emfm.errors import EMError
from emfm.io.formats.pictures import PNG_MAGIC
from emfm.io.formats.planes import Request
from emfm.io.formats.tiff_parts import MAGIC

# Pillow's own limit, which holds for `datasets`, too: 13,377 pixels a side.
MOST_PIXELS = 178_956_970
# Of the decoded pixels of one image: as many float64.
MOST_BYTES = 8 * MOST_PIXELS
# What Pillow may take a row's bytes for; other formats of its list start foreign programs.
_PILLOW_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
# TIFF compressions that unpack without a limit, and the most bytes that one byte can become.
_UNBOUNDED = {8: 1032, 32946: 1032, 34925: MOST_BYTES}


def check_decodable(content: bytes, name: str) -> None:
    """Look at the header of a PNG, JPEG or TIFF file in memory, and at how far its parts unpack.

    Raises:
        EMError: it is damaged or of another format, or its pixels would fill the memory.
    """
    with Request(name, "PNG, JPEG or TIFF").decoding():
        try:
            if content[:4] in MAGIC:
                with tifffile.TiffFile(io.BytesIO(content)) as tiff:
                    _check_page(tiff.pages.first, content, name)
            else:
                with Image.open(io.BytesIO(content), formats=_PILLOW_FORMATS) as picture:
                    if prod(picture.size) > MOST_PIXELS:
                        raise _too_large(picture.size, name)
        except Image.DecompressionBombError as error:
            size = struct.unpack(">II", content[16:24]) if content.startswith(PNG_MAGIC) else None
            raise _too_large(size, name) from error
        except UnidentifiedImageError as error:  # its text is the buffer's address
            begin = content[:8]
            raise EMError(f"{name}: the file is not a PNG, JPEG or TIFF image; it begins with {begin!r}") from error


def _too_large(size: tuple[int, ...] | None, name: str) -> EMError:
    claimed = f"{size[0]} x {size[1]} pixels" if size else "more pixels"
    return EMError(
        f"{name}: the file claims {claimed}; expected at most {MOST_PIXELS:,} in all and "
        f"{MOST_BYTES / 1e9:.1f} GB unpacked: it is damaged or made to fill the memory; "
        "cut large micrographs into parts"
    )


def _check_page(page: tifffile.TiffPage, content: bytes, name: str) -> None:
    size = page.imagewidth, page.imagelength
    itemsize = page.dtype.itemsize if page.dtype else 8
    part = prod(page.chunks) * itemsize  # a strip or tile, which may be larger than the image
    whole = prod(size) * itemsize * page.samplesperpixel * page.imagedepth
    if prod(size) > MOST_PIXELS or whole > MOST_BYTES:
        raise _too_large(size, name)
    if part > MOST_BYTES:
        raise _too_large((page.tilewidth or size[0], page.tilelength or size[1]), name)
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        packed = content[offset : offset + count]
        may_become = len(packed) * _UNBOUNDED.get(page.compression, 0)
        if may_become > MOST_BYTES and _unpacks_beyond(packed, page.compression, max(part, MOST_BYTES // 8)):
            raise EMError(
                f"{name}: a part of the file unpacks to more than the {part:,} bytes that its "
                "header tells: it is damaged or made to fill the memory"
            )


def _unpacks_beyond(packed: bytes, compression: int, limit: int) -> bool:
    """Tell whether data unpack to more bytes than a limit, holding few of them at a time."""
    unpacker = lzma.LZMADecompressor() if compression == 34925 else zlib.decompressobj()
    total = 0
    while total <= limit and not unpacker.eof:
        piece = unpacker.decompress(packed, 1 << 22)
        packed = getattr(unpacker, "unconsumed_tail", b"")  # LZMA keeps it itself
        total += len(piece)
        if not piece and not packed:
            break
    return total > limit
