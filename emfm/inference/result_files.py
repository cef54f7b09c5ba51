"""Results written block by block: TIFF, MRC, NPY, OME-Zarr of any size, never seen half-written."""

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import tifffile
from filelock import FileLock
from numpy.lib.format import open_memmap

from emfm.inference.processes import Processes
from emfm.io.formats.mapped import map_mrc
from emfm.io.formats.planes import Request
from emfm.io.writing import mrc_dtype, mrc_header, resolution_tags

ZARR_CHUNK = 1024
LOCK = ".lock"  # in a partial Zarr image


class ResultFile:
    """A result on its way: filled under another name by all processes, then put in its place.

    Args:
        path: where it will stand; the suffix chooses the format.
        shape: (H, W), or (Z, H, W) of a volume.
        dtype: of the values; booleans become 0 and 1 as uint8 in a TIFF, and 8 bits 16 in an MRC.
        pixel_size: nm per pixel, None where it is not known; an NPY cannot hold it.
        slice_distance: nm from a slice of a volume to the next, likewise.

    Raises:
        EMError: the format holds no such values.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        dtype: Any,
        pixel_size: float | None,
        slice_distance: float | None = None,
    ):
        self.path, self.shape, self.pixel_size, self.slice_distance = path, shape, pixel_size, slice_distance
        self.format = path.suffix[1:]
        self.partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        self.dtype = np.dtype(dtype).newbyteorder("=")
        if self.format == "tif" and self.dtype.kind == "b":
            self.dtype = np.dtype(np.uint8)
        if self.format == "mrc":
            self.dtype = mrc_dtype(self.dtype)
        self._array: Any = None  # of a Zarr image
        self._file: BinaryIO | None = None
        self._offset = 0

    def _create(self) -> None:
        """Lay the file out, empty; a partial one that a stopped run left is replaced."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _remove(self.partial)
        if self.format == "tif":
            axes: dict[str, Any] | None = {"axes": "ZYX"} if len(self.shape) == 3 else None
            if axes and self.slice_distance:
                axes |= {"spacing": self.slice_distance, "unit": "nm"}
            kind = dict(photometric="minisblack", metadata=axes, **resolution_tags(self.pixel_size))
            tifffile.imwrite(self.partial, shape=self.shape, dtype=self.dtype, **kind)
        elif self.format == "npy":
            open_memmap(self.partial, mode="w+", dtype=self.dtype, shape=self.shape)
        elif self.format == "mrc":
            header = mrc_header(self.shape, self.dtype, (self.pixel_size, self.pixel_size, self.slice_distance))
            with self.partial.open("wb") as file:
                file.write(header)
                file.truncate(len(header) + math.prod(self.shape) * self.dtype.itemsize)
        else:
            self._create_zarr()

    def _create_zarr(self) -> None:
        import zarr

        step = self.pixel_size or 1.0
        names = "zyx"[-len(self.shape) :]
        known = {"z": self.slice_distance, "y": self.pixel_size, "x": self.pixel_size}
        axes = [{"name": name, "type": "space", **({"unit": "nanometer"} if known[name] else {})} for name in names]
        scale = [self.slice_distance or 1.0] * (len(names) - 2) + [step, step]
        level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        ome = {"version": "0.5", "multiscales": [{"name": self.path.stem, "axes": axes, "datasets": [level]}]}
        group = zarr.create_group(self.partial, attributes={"ome": ome})
        chunks = (1,) * (len(names) - 2) + tuple(min(ZARR_CHUNK, side) for side in self.shape[-2:])
        group.create_array("0", shape=self.shape, dtype=self.dtype, chunks=chunks, dimension_names=tuple(names))

    def _open(self) -> None:
        """Open what the first process laid out."""
        array = open_result(self.partial, "r+")
        if self.format == "zarr":
            self._array = array
        else:
            self._offset, self._file = array.offset, self.partial.open("r+b")

    def write(self, row: int, column: int, block: np.ndarray) -> None:
        """Write a block (h, w) with its first pixel at a row and column.

        Rows of a volume are counted through all slices; a block lies in one of them.
        """
        rows, columns = block.shape
        if self.format == "zarr":
            with FileLock(self.partial / LOCK):  # processes may share a chunk
                if len(self.shape) == 3:
                    number, row = divmod(row, self.shape[1])
                    self._array[number, row : row + rows, column : column + columns] = block
                else:
                    self._array[row : row + rows, column : column + columns] = block
            return
        assert self._file is not None
        # rows go to the file directly: a memory map of it would count as the process's memory
        block = np.ascontiguousarray(block, dtype=self.dtype)
        for number, line in enumerate(block):
            place = (row + number) * self.shape[-1] + column
            self._file.seek(self._offset + place * self.dtype.itemsize)
            self._file.write(line.data)

    @contextmanager
    def filling(self, processes: Processes) -> Iterator[None]:
        """Create the file, let all processes fill it, put it in its place; on failure remove it."""
        first = processes.rank == 0
        try:
            processes.together(lambda: self._create() if first else None)
            processes.together(self._open)
            yield
            processes.together(self._close)
            processes.together(lambda: self._put_in_place() if first else None)
        except BaseException:
            self._close()
            if first:
                _remove(self.partial)
            raise

    def read(self) -> Any:
        """Return the array (H, W) of the finished result, read as far as it is used."""
        return open_result(self.path)

    @contextmanager
    def between(self, shape: tuple[int, int], dtype: np.dtype, processes: Processes) -> Iterator["ResultFile"]:
        """Yield a file of another size beside this one, to make this one of; it is removed then."""
        file = ResultFile(
            self.path.with_name(f".{self.path.stem.lstrip('.')}.{'maps' if shape == self.shape else 'between'}.npy"),
            shape,
            dtype,
            None,
        )
        try:
            yield file
            processes.gather(None)  # all have read it
        finally:
            if processes.rank == 0:
                _remove(file.path)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._array = None, None

    def _put_in_place(self) -> None:
        if self.format == "zarr":
            (self.partial / LOCK).unlink(missing_ok=True)
        _remove(self.path)
        self.partial.replace(self.path)


def _remove(path: Path) -> None:
    if path.is_dir() and path.suffix == ".zarr":
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def open_result(path: Path, mode: Literal["r", "r+"] = "r") -> Any:
    """Return the array (H, W) of a finished result, read as far as it is used."""
    if path.suffix == ".npy":
        return np.load(path, mmap_mode=mode)
    if path.suffix == ".tif":
        return tifffile.memmap(path, mode=mode)
    if path.suffix == ".mrc":
        return map_mrc(path, Request(str(path), "MRC"), mode)[0]
    import zarr

    return zarr.open_array(path / "0", mode=mode)
