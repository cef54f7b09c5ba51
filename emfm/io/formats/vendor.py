"""DM3, DM4, SER and EMD through rosettasciio, which is optional: `pip install 'emfm[em]'`."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from emfm.errors import EMError
from emfm.io.formats.planes import Planes, Request, nanometres, pixel_side, planes_of_array
from emfm.io.formats.vendor_structure import check_dm, check_emd, check_ser

# rosettasciio's module for each suffix, and what is checked before it reads.
MODULES: dict[str, tuple[str, Callable[[Path], bool]]] = {
    ".dm3": ("digitalmicrograph", check_dm),
    ".dm4": ("digitalmicrograph", check_dm),
    ".ser": ("tia", check_ser),
    ".emd": ("emd", check_emd),
}


def open_vendor(path: Path, request: Request) -> Planes:
    """Open a file of an electron microscope's own software lazily, with its calibration."""
    module, check = MODULES[path.suffix.lower()]
    try:
        reader = importlib.import_module(f"rsciio.{module}")
    except ImportError as error:
        raise EMError(
            f"{request.name}: {request.kind} files are read by rosettasciio, which is not installed: "
            "pip install 'emfm[em]'"
        ) from error
    try:
        big_endian = check(path)
        # of a SER file rosettasciio reads everything in any case
        signal = _signal(reader.file_reader(str(path), lazy=module != "tia"), request)
        axes, sides = _axes(signal)
        # rosettasciio takes all pixels of DM files for little-endian
        data = signal["data"].map_blocks(np.ndarray.byteswap) if big_endian else signal["data"]
        return planes_of_array(data, axes, pixel_side(*sides, request.name), request)
    except EMError:
        raise
    except Exception as error:  # on damage it raises whatever its parser meets
        raise request.damaged(error) from error


def _signal(signals: list[dict[str, Any]], request: Request) -> dict[str, Any]:
    """Return the only image of a file, or the one with the title or number of `request.dataset`."""
    images = [signal for signal in signals if {"X", "Y"} <= set(_axes(signal)[0] or "")]
    titles = [str(signal.get("metadata", {}).get("General", {}).get("title", "")) for signal in images]
    if request.dataset is not None:
        for number, (signal, title) in enumerate(zip(images, titles, strict=True)):
            if request.dataset in (title, str(number)):
                return signal
    elif len(images) == 1:
        return images[0]
    listed = ", ".join(
        f"{number} '{title}' {signal['data'].shape}"
        for number, (signal, title) in enumerate(zip(images, titles, strict=True))
    )
    if not images:
        raise EMError(f"{request.name} holds no image, only {len(signals)} signals of other kinds")
    given = f"no image '{request.dataset}'" if request.dataset is not None else f"{len(images)} images"
    raise EMError(f"{request.name} holds {given}: {listed}; choose one with dataset= its number or title")


def _axes(signal: dict[str, Any]) -> tuple[str | None, tuple[float | None, float | None]]:
    """Return the axes' letters in the array's order, and nm a pixel along x and y."""
    axes = sorted(signal["axes"], key=lambda axis: axis.get("index_in_array", 0))
    if len(axes) != len(signal["data"].shape):
        return None, (None, None)
    names = [str(axis.get("name", "")).strip().lower() for axis in axes]
    letters = ["XY"["xy".index(name)] if name in ("x", "y") else "Q" for name in names]
    if letters.count("X") != 1 or letters.count("Y") != 1:
        return None, (None, None)
    letters = ["Z" if name in ("z", "depth") else letter for name, letter in zip(names, letters, strict=True)]
    by_letter = dict(zip(letters, axes, strict=True))
    sides = [nanometres(by_letter[axis].get("scale"), by_letter[axis].get("units")) for axis in "XY"]
    return "".join(letters), (sides[0], sides[1])
