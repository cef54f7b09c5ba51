"""DM3, DM4, SER and EMD through rosettasciio, which is optional: `pip install 'emfm[em]'`.

rosettasciio believes what a file claims, so it reads in a process of its own, with limits. The
pixels of DM files are then mapped; those of SER and EMD files come through a temporary file.
"""

import importlib.util
import os
import tempfile
import uuid
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from emfm.errors import EMError
from emfm.io.formats.planes import WHOLE_BYTES, Planes, Request, check_claim, nanometres, pixel_side, planes_of_array
from emfm.io.guarded import Guarded

# rosettasciio's module for each suffix.
MODULES = {".dm3": "digitalmicrograph", ".dm4": "digitalmicrograph", ".ser": "tia", ".emd": "emd"}
# What reading may take. Some files are read whole, so large ones may take more.
MEMORY, MEMORY_PER_BYTE = 2 * 2**30, 4
SECONDS, BYTES_PER_SECOND = 30, 20_000_000
COPIED_BYTES = 16 << 20  # at a time

Signal = dict[str, Any]  # of rosettasciio: "data", "axes", "metadata" and "original_metadata"
Sides = tuple[float | None, float | None, float | None]  # along x, y and z
_left: list[Path] = []  # temporary files that could not be removed yet


def open_vendor(path: Path, request: Request) -> Planes:
    """Open a file of an electron microscope's own software, with its calibration."""
    if importlib.util.find_spec("rsciio") is None:
        raise EMError(
            f"{request.name}: {request.kind} files are read by rosettasciio, which is not "
            "installed: pip install 'emfm[em]'"
        )
    size = path.stat().st_size
    scratch = Path(_scratch_folder(os.getpid()).name) / f"{uuid.uuid4().hex}.npy"
    files = {"path": str(path.absolute()), "scratch": str(scratch)}
    memory, seconds = MEMORY + MEMORY_PER_BYTE * size, SECONDS + size / BYTES_PER_SECOND
    try:
        found = _GUARDED.ask(request.name, memory, seconds, **files, request=asdict(request))
        if found["offset"] is not None:
            array = np.memmap(path, np.dtype(found["dtype"]), "r", found["offset"], tuple(found["shape"]))
        else:
            large = scratch.stat().st_size > WHOLE_BYTES
            array = np.load(scratch, mmap_mode="r" if large else None, allow_pickle=False)
    finally:
        _remove(scratch)
    x, y, z = found["sides"]
    return planes_of_array(array, found["axes"], pixel_side(x, y, request.name), request, z)


@cache
def _scratch_folder(process: int) -> tempfile.TemporaryDirectory:
    """Return the folder of a process's temporary files; it goes when the process ends."""
    return tempfile.TemporaryDirectory(prefix="emfm-", ignore_cleanup_errors=True)


def _remove(scratch: Path) -> None:
    """Remove a temporary file; one that Windows keeps, as it is mapped, goes with a later one."""
    _left.append(scratch)
    for path in list(_left):
        with suppress(OSError, ValueError):
            path.unlink(missing_ok=True)
            _left.remove(path)


def describe(path: str, scratch: str, request: dict[str, Any]) -> dict[str, Any]:
    """Read a file in the guarded process; an error says that it is damaged or holds no image.

    Args:
        path: the file.
        scratch: where the image is left as NPY if its pixels do not lie in the file as they are.
        request: fields of the `Request`.

    Returns:
        `axes`, one letter each; `sides`, nm a pixel along x, y and z; `shape` and `dtype`;
        `offset`, the byte of the file where the pixels begin, None if they are in the scratch file.
    """
    asked, file = Request(**request), Path(path)
    module = MODULES[file.suffix.lower()]
    try:
        reader = importlib.import_module(f"rsciio.{module}")
        signal = _signal(_read(reader, file, module), asked)
        axes, sides = _axes(signal)
        data = signal["data"]
        if data.dtype.names:  # red, green, blue and alpha
            data, axes = np.stack([data[name] for name in data.dtype.names], axis=-1), f"{axes}S"
        offset, dtype, size = None, np.dtype(data.dtype), file.stat().st_size
        if module == "digitalmicrograph" and "S" not in str(axes):
            stored = signal["original_metadata"]["ImageList"]["TagGroup0"]["ImageData"]["Data"]
            offset = int(stored["offset"])
            # rosettasciio takes all pixels of DM files for little-endian
            dtype = dtype.newbyteorder("<" if stored["endian"] == "little" else ">")
            if offset + data.nbytes > size:
                raise asked.damaged(f"an image of {data.shape} pixels in {size} bytes")
        check_claim(data.nbytes, size, asked)
        # refuses what is no micrograph
        planes_of_array(np.broadcast_to(np.zeros((), data.dtype), data.shape), axes, None, asked)
        if offset is None:
            _copy(data, Path(scratch))
    except (EMError, MemoryError):
        raise
    except ImportError as error:
        missing = f"{error.name} is not installed: pip install 'emfm[em]'"
        raise EMError(f"{asked.name}: this kind of {asked.kind} file needs more than there is: {missing}") from error
    except Exception as error:  # on damage it raises whatever its parser meets
        raise asked.damaged(error) from error
    shape = [int(length) for length in data.shape]
    return {"axes": axes, "sides": sides, "shape": shape, "dtype": dtype.str, "offset": offset}


def _copy(data: Any, scratch: Path) -> None:
    """Write an array, perhaps a lazy one, as NPY, part by part."""
    header = {"descr": data.dtype.str, "fortran_order": False, "shape": tuple(int(length) for length in data.shape)}
    step = max(1, COPIED_BYTES // max(1, data.nbytes // data.shape[0]))
    with scratch.open("wb") as file:
        np.lib.format.write_array_header_2_0(file, header)
        for start in range(0, data.shape[0], step):
            np.ascontiguousarray(data[start : start + step], data.dtype).tofile(file)


def _signal(signals: list[Signal], request: Request) -> Signal:
    """Return the only image of a file, or the one with the title or number of `request.dataset`."""
    images = [signal for signal in signals if _axes(signal)[0]]
    if not images:
        raise EMError(f"{request.name} holds no image, only {len(signals)} signals of other kinds")
    if request.dataset is None and len(images) == 1:
        return images[0]
    listed = []
    for number, signal in enumerate(images):
        title = str(signal.get("metadata", {}).get("General", {}).get("title", ""))
        if request.dataset in (title, str(number)):
            return signal
        listed.append(f"{number} '{title}' {signal['data'].shape}")
    given = f"no image '{request.dataset}'" if request.dataset is not None else f"{len(images)} images"
    choice = request.advice("choose one with --dataset, in Python dataset=, its number or title")
    raise EMError(f"{request.name} holds {given}: {', '.join(listed)}; {choice}")


def _read(reader: Any, path: Path, module: str) -> list[Signal]:
    """Read a file without its pixels where rosettasciio can: of SER files and colour it cannot."""
    if module == "tia":
        return reader.file_reader(path)
    try:
        return reader.file_reader(path, lazy=True)
    except (ValueError, NotImplementedError):
        return reader.file_reader(path)


def _axes(signal: Signal) -> tuple[str | None, Sides]:
    """Return the axes' letters as the array has them, None for no image, and nm a pixel (x, y, z).

    Axes that are called x and y, or R_x and R_y, are rows and columns; those of a signal come
    before those of its places. Without names the two axes of a signal count, in the file's order.
    """
    axes = sorted(signal["axes"], key=lambda axis: axis.get("index_in_array", 0))
    names = [str(axis.get("name", "")).strip().lower() for axis in axes]
    plane = [number for number, axis in enumerate(axes) if axis.get("navigate") is False]
    if len(plane) != 2:  # a spectrum at each place is a stack of maps
        plane = [number for number, name in enumerate(names) if name in ("x", "y")]
    if len(axes) != len(signal["data"].shape) or len(plane) != 2:
        return None, (None, None, None)
    letters = ["Z" if name in ("z", "depth") else "Q" for name in names]
    if sorted(names[number][-1:] for number in plane) == ["x", "y"]:
        for number in plane:
            letters[number] = names[number][-1].upper()
    else:
        # rosettasciio turns the axes round of such a file, an EMD file of Berkeley's kind
        letters[plane[0]], letters[plane[1]] = "X", "Y"
    x, y, z = (_length(axes[letters.index(letter)]) if letters.count(letter) == 1 else None for letter in "XYZ")
    return "".join(letters), (x, y, z)


def _length(axis: dict[str, Any]) -> float | None:
    return nanometres(axis.get("scale"), axis.get("units"))


_GUARDED = Guarded(describe)  # starts when it is first asked
