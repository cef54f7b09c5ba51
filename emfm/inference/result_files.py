"""Results that are written block by block: TIFF, NPY and OME-Zarr files of any size, none ever seen half-written."""

import fcntl
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.lib.format import open_memmap

CLASSIC_TIFF_BYTES = 2**32 - 2**25  # larger ones become BigTIFF
ZARR_CHUNK = 1024


class ResultFile:
    """A result on its way: created under another name, filled by one or several processes, then put in its place.

    Args:
        path: where it will stand; the suffix chooses the format.
        shape: (H, W).
        dtype: of the values; booleans become 0 and 1 as uint8 in a TIFF.
        pixel_size: nm per pixel, None where it is not known; an NPY cannot hold it.
    """

    def __init__(self, path: Path, shape: tuple[int, int], dtype: Any, pixel_size: float | None):
        self.path, self.shape, self.pixel_size = path, shape, pixel_size
        self.format = path.suffix[1:]
        self.partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        self.dtype = np.dtype(dtype).newbyteorder("=")
        if self.format == "tif" and self.dtype.kind == "b":
            self.dtype = np.dtype(np.uint8)
        self._array: Any = None
        self._file, self._offset = -1, 0

    def create(self) -> None:
        """Lay the file out, empty, and open it; a partial one that a stopped run left is replaced."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.discard()
        if self.format == "tif":
            big = int(np.prod(self.shape)) * self.dtype.itemsize > CLASSIC_TIFF_BYTES
            kind = dict(shape=self.shape, dtype=self.dtype, photometric="minisblack", metadata=None)
            if self.pixel_size is not None:
                kind |= dict(resolution=(1e7 / self.pixel_size,) * 2, resolutionunit="CENTIMETER")
            tifffile.imwrite(self.partial, bigtiff=big, **kind)
        elif self.format == "npy":
            open_memmap(self.partial, mode="w+", dtype=self.dtype, shape=self.shape)
        else:
            self._create_zarr()
        self.open()

    def _create_zarr(self) -> None:
        import zarr

        step = self.pixel_size or 1.0
        axes = [{"name": name, "type": "space"} | ({"unit": "nanometer"} if self.pixel_size else {}) for name in "yx"]
        level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [step, step]}]}
        ome = {"version": "0.5", "multiscales": [{"name": self.path.stem, "axes": axes, "datasets": [level]}]}
        group = zarr.create_group(self.partial, attributes={"ome": ome})
        chunks = tuple(min(ZARR_CHUNK, side) for side in self.shape)
        group.create_array("0", shape=self.shape, dtype=self.dtype, chunks=chunks, dimension_names=("y", "x"))

    def open(self) -> None:
        """Open what `create` made, also in another process."""
        if self.format == "zarr":
            import zarr

            self._array = zarr.open_array(self.partial / "0", mode="r+")
            return
        if self.format == "tif":
            with tifffile.TiffFile(self.partial) as tiff:
                self._offset = tiff.pages.first.dataoffsets[0]
        else:
            self._offset = open_memmap(self.partial, mode="r").offset
        self._file = os.open(self.partial, os.O_WRONLY)

    def write(self, row: int, column: int, block: np.ndarray) -> None:
        """Write a block (h, w) with its first pixel at a row and column."""
        if self.format == "zarr":
            with self._alone():
                self._array[row : row + block.shape[0], column : column + block.shape[1]] = block
            return
        # rows go to the file directly: a memory map of it would count as the process's memory
        block = np.ascontiguousarray(block, dtype=self.dtype)
        for number, line in enumerate(block):
            place = self._offset + ((row + number) * self.shape[1] + column) * self.dtype.itemsize
            _write_all(self._file, memoryview(line).cast("B"), place)

    @contextmanager
    def _alone(self):
        """Keep other processes out while chunks, which they may share, are read, changed and written."""
        handle = os.open(self.partial / ".lock", os.O_WRONLY | os.O_CREAT)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def close(self) -> None:
        """Stop writing in this process."""
        if self._file >= 0:
            os.close(self._file)
        self._file, self._array = -1, None

    def finish(self) -> None:
        """Put the result in its place, where all have closed it."""
        self.close()
        if self.format == "zarr":
            (self.partial / ".lock").unlink(missing_ok=True)
        _remove(self.path)
        self.partial.replace(self.path)

    def discard(self) -> None:
        """Remove what was written, if anything was."""
        self.close()
        _remove(self.partial)


def _write_all(file: int, content: memoryview, place: int) -> None:
    while content:
        written = os.pwrite(file, content, place)
        content, place = content[written:], place + written


def _remove(path: Path) -> None:
    if path.is_dir() and path.suffix == ".zarr":
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def open_result(path: Path) -> Any:
    """Return the array (H, W) of a finished result, read as far as it is used."""
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r")
    if path.suffix == ".tif":
        return tifffile.memmap(path, mode="r")
    import zarr

    return zarr.open_array(path / "0", mode="r")
