"""A look at the directories of a TIFF file before anything is decoded, so that damage costs neither time nor memory.

Format: TIFF 6.0, Adobe 1992; BigTIFF, libtiff.org.
"""

from typing import BinaryIO

import numpy as np

# TIFF and BigTIFF, little and big endian.
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Bytes of a value, by the number of its type.
_BYTES = np.zeros(65536, np.int64)
_BYTES[1:14] = (1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4)
_BYTES[16:19] = 8
# More entries than any program writes into a directory.
MOST_TAGS = 4096


def check_structure(file: BinaryIO, size: int) -> None:
    """Walk the chain of directories of a TIFF file.

    Args:
        file: open for reading; left at its start.
        size: of the file in bytes.

    Raises:
        ValueError: no TIFF, a directory beyond the end or in a circle, or a value larger than the file.
    """
    file.seek(0)
    header = file.read(16)
    if header[:4] not in MAGIC:
        raise ValueError("it does not begin like a TIFF file")
    order = "<" if header[:2] == b"II" else ">"
    big = header[2:4] in (b"+\0", b"\0+")
    number = np.dtype(f"{order}u8" if big else f"{order}u4")
    count_type = np.dtype(f"{order}u8" if big else f"{order}u2")
    tag = np.dtype([("code", f"{order}u2"), ("type", f"{order}u2"), ("count", number), ("value", number)])
    place = int.from_bytes(header[8:16] if big else header[4:8], "little" if order == "<" else "big")
    seen: set[int] = set()
    while place:
        if place in seen:
            raise ValueError(f"its directories run in a circle, back to byte {place}")
        seen.add(place)
        place = _next(file, place, (count_type, tag, number), size)
    if not seen:
        raise ValueError("it has no directory")
    file.seek(0)


def _next(file: BinaryIO, place: int, types: tuple[np.dtype, np.dtype, np.dtype], size: int) -> int:
    """Check the directory at a place, and return the place of the next one."""
    count_type, tag, number = types
    if place > size - count_type.itemsize:
        raise ValueError(f"a directory at byte {place} of {size}")
    file.seek(place)
    count = int(np.frombuffer(file.read(count_type.itemsize), count_type)[0])
    if not 0 < count <= MOST_TAGS:
        raise ValueError(f"a directory of {count} entries")
    content = file.read(count * tag.itemsize + number.itemsize)
    if len(content) < count * tag.itemsize + number.itemsize:
        raise ValueError(f"a directory of {count} entries at byte {place} of {size}")
    tags = np.frombuffer(content, tag, count)
    counts = tags["count"].astype(np.float64)
    values = counts * _BYTES[tags["type"]]
    if (values > size).any():
        largest = tags[int(values.argmax())]
        raise ValueError(f"{int(largest['count'])} values under tag {int(largest['code'])}")
    return int(np.frombuffer(content, number, 1, count * tag.itemsize)[0])
