"""TIFF, BigTIFF, ImageJ and OME-TIFF through tifffile.

Uncompressed pixels are memory-mapped, others read by strips and tiles.
"""

import math
import os
import weakref
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from emfm.errors import UnsupportedFileError
from emfm.io.formats.planes import Pixels, Planes, Request, check_pixels, plane_of, with_grey_annotations
from emfm.io.formats.tiff_calibration import data_bar_of, pixel_size_of, slice_distance_of
from emfm.io.formats.tiff_parts import UNREAD, Segments, check_structure
from emfm.io.large_images import LazyImage


class _OpenTiff:
    """A TIFF file, or its whole content; it is closed when the last image of it is gone."""

    def __init__(self, file: Path | BytesIO):
        self._file = file
        with file.open("rb") if isinstance(file, Path) else nullcontext(file) as stream:
            self.size = stream.seek(0, os.SEEK_END)
            check_structure(stream, self.size)
        # other files of an OME-TIFF in several parts are not opened: each is a stack of its own
        self.tiff = tifffile.TiffFile(file, _multifile=False)
        # tifffile's pages refer to each other: else Python would close the file late
        weakref.finalize(self, self.tiff.close)

    def mapped(self, page: Any, offset: int) -> np.ndarray:
        """Return what lies in the file as it is: (separate samples, rows, columns, samples)."""
        separate, _, height, width, together = page.shaped
        shape = separate, height, width, together
        dtype = page.dtype.newbyteorder(self.tiff.byteorder)
        end = offset + math.prod(shape) * dtype.itemsize
        if end > self.size:
            raise ValueError(f"its pixels end at byte {end} of {self.size}")
        if isinstance(self._file, Path):
            return np.memmap(self._file, dtype, "r", offset, shape)
        return np.frombuffer(self._file.getbuffer(), dtype, math.prod(shape), offset).reshape(shape)


def open_tiff(file: Path | BytesIO, request: Request) -> Planes:
    """Open the slices of a TIFF file or its content: the first series and all others like it.

    Thumbnails and the coarser levels of a pyramid are left out.
    """
    opened = _OpenTiff(file)
    series = opened.tiff.series
    page = series[0].keyframe
    _check_page(page, request)
    alike = [one for one in series if (one.shape, one.dtype) == (series[0].shape, series[0].dtype)]
    each = max(1, math.prod(series[0].shape) // max(1, math.prod(page.shape)))
    axes, stack = _axes(series[0], each)
    if len(alike) > 1:
        axes, stack = "I" + axes, (len(alike), *stack)

    def plane(number: int) -> np.ndarray | LazyImage:
        one, position = alike[number // each], number % each
        if len(one.pages) == each:
            return _page(opened, one.pages[position], None, request)
        if one.dataoffset is None:
            raise request.damaged(f"{len(one.pages)} pages for {each} slices")
        # ImageJ writes one directory for a whole stack
        return _page(opened, one.keyframe, one.dataoffset + position * one.keyframe.nbytes, request)

    shape = page.imagelength, page.imagewidth
    palette = _palette(opened.tiff, page) if request.mask else None
    size, bar = pixel_size_of(opened.tiff, request.name), data_bar_of(opened.tiff)
    distance = slice_distance_of(opened.tiff) if len(stack) == 1 else None
    return Planes(stack, shape, axes, size, plane, palette, bar, distance)


def _axes(series: Any, each: int) -> tuple[str, tuple[int, ...]]:
    """Return axes and lengths of what a series counts its slices by."""
    letters, lengths = "", []
    for letter, length in zip(series.axes, series.shape, strict=True):
        if letter not in "YXS" and length > 1:
            letters += letter
            lengths.append(length)
    if math.prod(lengths) == each:
        return f"{letters}YX", tuple(lengths)
    return ("QYX", (each,)) if each > 1 else ("YX", ())


def _check_page(page: Any, request: Request) -> None:
    if page.compression in UNREAD:
        raise UnsupportedFileError(
            f"{request.name}: compression {getattr(page.compression, 'name', page.compression)} "
            "is not read; save it uncompressed, or with LZW, Deflate or Zstandard"
        )
    if page.imagedepth > 1:
        raise UnsupportedFileError(f"{request.name}: a volume of {page.imagedepth} slices in one page is not read")
    if page.photometric == tifffile.PHOTOMETRIC.SEPARATED:
        raise UnsupportedFileError(f"{request.name}: a colour image (CMYK); convert it to greyscale first")
    if page.dtype is None:
        raise UnsupportedFileError(
            f"{request.name}: {page.bitspersample} bits a value in format {page.sampleformat} are not read"
        )


def _page(opened: _OpenTiff, page: Any, offset: int | None, request: Request) -> np.ndarray | LazyImage:
    """Return one page, or one slice of a contiguous stack that starts at an offset."""
    key = page.keyframe
    separate, _, height, width, together = key.shaped
    samples = separate * together
    if samples == 2 and key.extrasamples and not request.mask:
        samples = 1  # grey and alpha
    palette = None if request.mask else _palette(opened.tiff, key)
    if palette is not None:
        palette = with_grey_annotations(palette, request.name)
    inverted = request.mask and _white_is_zero(opened.tiff, key)
    dtype = key.dtype
    if palette is not None:
        dtype, samples = palette.dtype, 3
    check_pixels(Pixels((height, width), dtype, samples), request)
    if offset is None and page.is_final:
        offset = page.dataoffsets[0]
    source: Any = Segments(opened, page, request) if offset is None else opened.mapped(key, offset)
    chunk = source.chunk if offset is None else None

    def region(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        values = np.moveaxis(source[:, top:bottom, left:right], 0, 2).reshape(bottom - top, right - left, -1)
        if palette is not None:
            return palette[values[..., 0].astype(np.uint16)]  # one bit is read as truth values
        if inverted:
            return values[..., 0] == 0
        return values[..., :samples] if samples > 1 else values[..., 0]

    mapped = offset is not None and palette is None and not inverted
    if mapped:
        dtype = source.dtype
    return plane_of(Pixels((height, width), dtype, samples, chunk), region, request, mapped)


def _white_is_zero(tiff: tifffile.TiffFile, page: Any) -> bool:
    """Tell whether a page has one bit, of which 0 is white; then what is seen counts, as in Pillow.

    tifffile writes truth values so, but means true by 1.
    """
    if page.bitspersample != 1 or page.photometric != tifffile.PHOTOMETRIC.MINISWHITE:
        return False
    software = tiff.pages.first.tags.get("Software")
    return software is None or not str(software.value).startswith("tifffile")


def _palette(tiff: tifffile.TiffFile, page: Any) -> np.ndarray | None:
    """Return the colours (values, 3) that the pixels stand for, None where they are intensities."""
    if page.photometric != tifffile.PHOTOMETRIC.PALETTE or tiff.is_imagej:  # it colours intensities
        return None
    colours = np.asarray(page.colormap).T >> 8
    if (colours == (np.arange(len(colours)) * 256 // len(colours))[:, None]).all():
        return None
    return colours.astype(np.uint8)
