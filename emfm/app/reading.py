"""Reading a stranger's upload in its own process, with limits on memory, time and pixels."""

from contextlib import closing
from pathlib import Path

import numpy as np

from emfm.errors import EMError
from emfm.io.guarded import Guarded
from emfm.io.reading import Micrograph, read_micrograph

MEMORY = 4 * 2**30  # bytes of address space
SECONDS = 120
MAX_PIXELS = 150_000_000  # about 12k x 12k


def read_upload(path: str | Path, folder: Path) -> Micrograph:
    """Read an uploaded file, and leave its pixels as `micrograph.npy` in a folder of its own.

    Raises:
        EMError: no micrograph can be read within the limits; the user may see the message.
    """
    path, pixels = Path(path), folder / "micrograph.npy"
    with closing(Guarded(save_pixels)) as process:  # one upload cannot change how others are read
        try:
            pixel_size, bar = process.ask(path.name, MEMORY, SECONDS, path=str(path), pixels=str(pixels))
        except EMError as error:
            raise EMError(str(error).replace(str(path), path.name)) from error
    image = np.load(pixels, mmap_mode="r", allow_pickle=False)
    return Micrograph(image, pixel_size, path.name, data_bar=bar)


def save_pixels(path: str, pixels: str) -> tuple[float | None, int]:
    """Read a file in the guarded process and write its pixels as NPY.

    Returns:
        Pixel size in nm, and rows of the data bar.

    Raises:
        EMError: the file cannot be read, or has too many pixels.
    """
    micrograph = read_micrograph(path)
    if micrograph.image.size > MAX_PIXELS:
        height, width = micrograph.image.shape
        raise EMError(
            f"{path}: {height} x {width} pixels; this page takes up to "
            f"{MAX_PIXELS / 1e6:.0f} million: use emfm predict on your own machine"
        )
    np.save(pixels, np.asarray(micrograph.image))
    return micrograph.pixel_size, micrograph.data_bar
