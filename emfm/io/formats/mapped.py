"""MRC and its kin (MRCS, MAP, REC, ST; header read by mrcfile) and NPY, memory-mapped.

Format: Cheng et al. 2015, MRC2014, J. Struct. Biol. 192, 146.
"""

import math
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np

from emfm.io.formats.planes import Planes, Request, pixel_side, planes_of_array

HEADER_BYTES = 1024
# IMOD marks its files at byte 152; bit 0 of the flags behind it says that bytes are signed.
_IMOD_STAMP, _IMOD_OFFSET = 1146047817, 152


def open_npy(path: Path, request: Request) -> Planes:
    """Map an NPY file; pickled objects are refused."""
    with np.errstate(over="ignore"):  # a size that overflows is not the file's
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    if not isinstance(array, np.memmap):
        raise request.damaged("it holds other content than one array")
    return planes_of_array(array, None, None, request)


def open_mrc(path: Path, request: Request) -> Planes:
    """Map an MRC file; rows come in the file's order, slices along its third axis."""
    array, header = map_mrc(path, request)
    shape = array.shape
    pixel_size = pixel_side(_side(header, "x"), _side(header, "y"), request.name)
    distance = _side(header, "z") if len(shape) == 3 and int(header.mz) > 1 else None
    return planes_of_array(array, "NZYX"[-len(shape) :], pixel_size, request, distance)


def map_mrc(path: Path, request: Request, mode: Literal["r", "r+"] = "r") -> tuple[np.memmap, Any]:
    """Return the array of an MRC file, memory-mapped, and its header."""
    from mrcfile import utils

    header, start = _header(path, request)
    dtype = utils.data_dtype_from_header(header)
    stamp, flags = np.frombuffer(header.tobytes(), header.nx.dtype, 2, _IMOD_OFFSET)
    if dtype == np.int8 and stamp == _IMOD_STAMP and not flags & 1:
        dtype = np.dtype(np.uint8)
    shape = tuple(int(length) for length in utils.data_shape_from_header(header))
    expected = start + math.prod(shape) * dtype.itemsize
    found = path.stat().st_size
    without_name = bytes(header.map)[:3] != b"MAP"  # of software before the year 2000
    if min(shape) < 1 or found < expected or (without_name and found != expected):
        raise request.damaged(f"its header stands for {shape} {dtype} in {expected} bytes, it has {found}")
    return np.memmap(path, dtype, mode, start, shape), header


def _header(path: Path, request: Request) -> tuple[Any, int]:
    """Return mrcfile's header, and where the pixels start."""
    from mrcfile.mrcinterpreter import MrcInterpreter

    with path.open("rb") as file:
        content = bytearray(file.read(HEADER_BYTES))
    if len(content) < HEADER_BYTES:
        raise request.damaged(f"{len(content)} bytes; the header alone has {HEADER_BYTES}")
    extended = bytes(content[92:96])
    content[92:96] = bytes(4)  # mrcfile would make room for as many bytes as the header claims
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of is checked here
        header = MrcInterpreter(BytesIO(content), permissive=True, header_only=True).header
    return header, HEADER_BYTES + max(int(np.frombuffer(extended, header.nx.dtype)[0]), 0)


def _side(header: Any, axis: str) -> float | None:
    """Return nm a pixel: the cell's length in Angstrom by its number of intervals."""
    intervals = int(header[f"m{axis}"])
    return float(header.cella[axis]) / intervals / 10 if intervals > 0 else None
