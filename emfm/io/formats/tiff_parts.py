"""The parts of a TIFF file: its directories, and the strips and tiles of a page.

The directories are checked before anything is decoded, so their damage costs neither time nor
memory. Format: TIFF 6.0, Adobe 1992; BigTIFF, libtiff.org.
"""

import threading
from typing import Any, BinaryIO

import numpy as np
import tifffile

from emfm.io.formats.planes import LARGEST_RATIO, WHOLE_BYTES, Request, check_claim

# TIFF and BigTIFF, little and big endian.
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Bytes of a value, by the number of its type.
_BYTES = np.zeros(65536, np.int64)
_BYTES[1:14] = (1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4)
_BYTES[16:19] = 8
# More entries than any program writes into a directory.
MOST_TAGS = 4096
JPEG = {6, 7, 33007, 34892}
# Codecs of whole images carry their own size, which damage can make huge; JPEG's is checked here.
UNREAD = set(tifffile.TIFF.IMAGE_COMPRESSIONS) - JPEG
# One lock for all files: reading is short, decoding happens outside.
_READING = threading.Lock()


def check_structure(file: BinaryIO, size: int) -> None:
    """Walk the directories of an open TIFF file of so many bytes, and leave it at its start.

    Raises:
        ValueError: no TIFF, a directory beyond the end or in a circle, or a value beyond the file.
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
        values = tags["count"].astype(np.float64) * _BYTES[tags["type"]]
        if (values > size).any():
            largest = tags[int(values.argmax())]
            raise ValueError(f"{int(largest['count'])} values under tag {int(largest['code'])}")
        place = int(np.frombuffer(content, number, 1, count * tag.itemsize)[0])
    if not seen:
        raise ValueError("it has no directory")
    file.seek(0)


class Segments:
    """The strips or tiles of one compressed page, decoded one by one.

    `segments[:, top:bottom, left:right]` is a region (separate samples, rows, columns, samples). It
    begins at the corner of a segment, and ends at one or with the image, as a `LazyImage` asks for.

    Raises:
        EMError: segments are missing, lie beyond the end of the file, or claim too many pixels.
    """

    def __init__(self, opened: Any, page: Any, request: Request):
        self._opened, self._page = opened, page  # the file stays open as long as this
        self._key = key = page.keyframe
        self._separate, _, height, width, self._together = key.shaped
        rows, columns = (key.tilelength, key.tilewidth) if key.is_tiled else (key.rowsperstrip, width)
        self.chunk = max(1, min(rows, height)), max(1, columns)
        self._down, self._across = -(-height // self.chunk[0]), -(-width // self.chunk[1])
        needed = self._separate * self._down * self._across
        offsets, counts = (np.asarray(part, np.float64) for part in (page.dataoffsets, page.databytecounts))
        if len(offsets) < needed or len(counts) < needed:
            raise request.damaged(f"{min(len(offsets), len(counts))} strips or tiles of {needed}")
        if (offsets[:needed] + counts[:needed]).max() > opened.size:
            raise request.damaged(f"strips or tiles end beyond the file's {opened.size} bytes")
        nbytes = self.chunk[0] * self.chunk[1] * self._together * key.dtype.itemsize
        check_claim(nbytes, int(counts[:needed].max()), request)

    def __getitem__(self, region: tuple[slice, slice, slice]) -> np.ndarray:
        top, bottom, left, right = region[1].start, region[1].stop, region[2].start, region[2].stop
        rows, columns = self.chunk
        shape = (self._separate, bottom - top, right - left, self._together)
        result = np.zeros(shape, self._key.dtype)  # segments that a sparse file leaves out are zero
        for sample in range(self._separate):
            for y in range(top, bottom, rows):
                for x in range(left, right, columns):
                    number = (sample * self._down + y // rows) * self._across + x // columns
                    segment = self._decoded(number)
                    if segment is None:
                        continue
                    place = result[sample, y - top : y - top + rows, x - left : x - left + columns]
                    part = segment[: place.shape[0], : place.shape[1]]
                    if part.shape != place.shape:
                        raise ValueError(f"a strip or tile of {segment.shape[:2]} pixels in the place of {self.chunk}")
                    place[...] = part
        return result

    def _decoded(self, index: int) -> np.ndarray | None:
        """Return a segment's pixels (rows, columns, samples), None where the file leaves it out."""
        offset, count = int(self._page.dataoffsets[index]), int(self._page.databytecounts[index])
        if not count:
            return None
        with _READING:
            handle = self._opened.tiff.filehandle
            handle.seek(offset)
            content = handle.read(count)
        extra = {}
        if self._key.compression in JPEG:
            check_jpeg(content, self.chunk[0] * self.chunk[1])
            extra = {"jpegtables": self._page.jpegtables, "jpegheader": self._key.jpegheader}
        segment, _, _ = self._key.decode(content, index, **extra)
        return segment[0]


def check_jpeg(content: bytes, pixels: int) -> None:
    """Raise an error if a JPEG stream claims far more pixels than belong into its strip or tile."""
    place = 2
    while place + 9 < len(content):
        marker = content[place + 1]
        if content[place] != 0xFF or marker == 0xFF:
            place += 1
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # these stand alone
            place += 2
        elif marker == 0xDA:  # pixels begin
            return
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the frame's header
            height, width = (int.from_bytes(content[place + at : place + at + 2], "big") for at in (5, 7))
            if height * width > max(4 * pixels, WHOLE_BYTES // LARGEST_RATIO):
                raise ValueError(f"a JPEG stream of {width} x {height} in a strip or tile of {pixels} pixels")
            return
        else:
            place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
