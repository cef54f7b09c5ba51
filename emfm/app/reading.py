"""Reading a stranger's upload in its own process, with limits on memory, time and pixels."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from emfm.errors import EMError
from emfm.io.guarded import Guarded
from emfm.io.reading import FileChoice, Micrograph, open_stack

MEMORY = 4 * 2**30  # bytes of address space
SECONDS = 120
MAX_PIXELS = 150_000_000  # about 12k x 12k


def read_upload(path: str | Path, folder: Path) -> Micrograph:
    """Read an uploaded file, and leave its pixels as `micrograph.npy` in a folder of its own.

    Raises:
        EMError: no micrograph can be read within the limits; the user may see the message.
    """
    path, pixels = Path(path), folder / "micrograph.npy"
    pixel_size, bar = _guarded(save_pixels, path, pixels=str(pixels))
    image = np.load(pixels, mmap_mode="r", allow_pickle=False)
    return Micrograph(image, pixel_size, path.name, data_bar=bar)


def check_upload(path: str | Path) -> None:
    """Read an uploaded file in a process of its own, every pixel of it, and keep nothing.

    Raises:
        EMError: no micrograph can be read within the limits; the user may see the message.
    """
    _guarded(count_pixels, Path(path))


def _guarded(work: Callable[..., Any], path: Path, **more: str) -> Any:
    """Return what a function makes of a file; one upload cannot change how others are read."""
    with closing(Guarded(work)) as process:
        try:
            return process.ask(path.name, MEMORY, SECONDS, path=str(path), **more)
        except EMError as error:
            raise EMError(str(error).replace(str(path), path.name)) from error


def save_pixels(path: str, pixels: str) -> tuple[float | None, int]:
    """Read a file in the guarded process and write its pixels as NPY.

    Returns:
        Pixel size in nm, and rows of the data bar.

    Raises:
        EMError: the file cannot be read, or has too many pixels.
    """
    micrograph = _within_limits(path)
    np.save(pixels, micrograph.array)
    return micrograph.pixel_size, micrograph.data_bar


def count_pixels(path: str) -> int:
    """Read a file in the guarded process, whole; an EMError if that cannot be."""
    return int(_within_limits(path).array.size)


def _within_limits(path: str) -> Micrograph:
    slices = open_stack(path, FileChoice())
    if len(slices) > 1:
        raise EMError(f"{path}: a stack of {len(slices)} slices; this page takes single images: save a slice as a file")
    micrograph = slices[0]
    if micrograph.image.size > MAX_PIXELS:
        height, width = micrograph.image.shape
        raise EMError(
            f"{path}: {height} x {width} pixels; this page takes uploads of up to "
            f"{MAX_PIXELS / 1e6:.0f} million: use emfm on your own machine"
        )
    return micrograph
