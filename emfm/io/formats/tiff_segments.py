"""The strips and tiles of a compressed TIFF page, decoded one by one."""

import threading
from typing import Any

import numpy as np
import tifffile

from emfm.io.formats.planes import LARGEST_RATIO, WHOLE_BYTES, Request, check_claim

JPEG = {6, 7, 33007, 34892}
# Codecs of whole images carry a size of their own, which damage can make huge; only JPEG's is checked here.
UNREAD = set(tifffile.TIFF.IMAGE_COMPRESSIONS) - JPEG
# One lock for all files: reading is short, decoding happens outside.
_READING = threading.Lock()


class Segments:
    """Strips or tiles of one page.

    Args:
        opened: the open file, an `OpenTiff`; held, so that it stays open as long as this.
        page: of it.
    """

    def __init__(self, opened: Any, page: Any):
        self._opened, self._page = opened, page
        self._key = key = page.keyframe
        self._separate, _, self._height, self._width, self._together = key.shaped
        rows, columns = (key.tilelength, key.tilewidth) if key.is_tiled else (key.rowsperstrip, self._width)
        self.shape = max(1, min(rows, self._height)), max(1, columns)
        self._across = -(-self._width // self.shape[1])
        self._down = -(-self._height // self.shape[0])

    def check(self, request: Request) -> None:
        """Raise an error if segments are missing, lie beyond the end of the file, or claim too many pixels."""
        needed = self._separate * self._down * self._across
        offsets = np.asarray(self._page.dataoffsets, np.float64)
        counts = np.asarray(self._page.databytecounts, np.float64)
        if len(offsets) < needed or len(counts) < needed:
            raise request.damaged(f"{min(len(offsets), len(counts))} strips or tiles of {needed}")
        if (offsets[:needed] + counts[:needed]).max() > self._opened.size:
            raise request.damaged(f"strips or tiles end beyond the file's {self._opened.size} bytes")
        nbytes = self.shape[0] * self.shape[1] * self._together * self._key.dtype.itemsize
        check_claim(nbytes, int(counts[:needed].max()), request)

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Return a region, (separate samples, rows, columns, samples)."""
        rows, columns = self.shape
        shape = (self._separate, bottom - top, right - left, self._together)
        result = np.zeros(shape, self._key.dtype)  # segments that a sparse file leaves out are zero
        for sample in range(self._separate):
            for i in range(top // rows, -(-bottom // rows)):
                for j in range(left // columns, -(-right // columns)):
                    segment = self._decoded((sample * self._down + i) * self._across + j)
                    if segment is None:
                        continue
                    y, x = i * rows, j * columns
                    part = segment[max(top - y, 0) : bottom - y, max(left - x, 0) : right - x]
                    row, column = max(y - top, 0), max(x - left, 0)
                    place = result[sample, row : row + part.shape[0], column : column + part.shape[1]]
                    if place.shape != part.shape or _short(
                        segment, (y, x), (rows, columns), (self._height, self._width)
                    ):
                        raise ValueError(f"a strip or tile of {segment.shape[:2]} pixels in the place of {self.shape}")
                    place[...] = part
        return result

    def _decoded(self, index: int) -> np.ndarray | None:
        """Return the pixels (rows, columns, samples) of a segment, None where the file leaves it out."""
        offset, count = int(self._page.dataoffsets[index]), int(self._page.databytecounts[index])
        if not count:
            return None
        with _READING:
            handle = self._opened.tiff.filehandle
            handle.seek(offset)
            content = handle.read(count)
        extra = {}
        if self._key.compression in JPEG:
            check_jpeg(content, self.shape[0] * self.shape[1])
            extra = {"jpegtables": self._page.jpegtables, "jpegheader": self._key.jpegheader}
        segment, _, _ = self._key.decode(content, index, **extra)
        return segment[0]


def _short(segment: np.ndarray, start: tuple[int, int], chunk: tuple[int, int], image: tuple[int, int]) -> bool:
    """Tell whether a decoded segment covers less of the image than its place."""
    return any(segment.shape[axis] < min(chunk[axis], image[axis] - start[axis]) for axis in (0, 1))


def check_jpeg(content: bytes, pixels: int) -> None:
    """Raise an error if a JPEG stream claims far more pixels than belong into its place.

    Args:
        content: the stream.
        pixels: of the strip or tile.
    """
    place = 2
    while place + 9 < len(content):
        if content[place] != 0xFF:
            place += 1
            continue
        marker = content[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the frame's header
            height, width = (int.from_bytes(content[place + at : place + at + 2], "big") for at in (5, 7))
            if height * width > max(4 * pixels, WHOLE_BYTES // LARGEST_RATIO):
                raise ValueError(f"a JPEG stream of {width} x {height} in a strip or tile of {pixels} pixels")
            return
        if marker == 0xDA:  # pixels begin
            return
        standalone = marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8
        place += (
            (1 if marker == 0xFF else 2) if standalone else 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        )
