"""Writing images: TIFF with the pixel size, MRC headers, PNG for what people look at."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from emfm.errors import EMError
from emfm.files import write_atomically

# The modes of MRC2014 by dtype. It has no unsigned bytes: they are written as uint16.
MRC_MODES = {"int8": 0, "int16": 1, "float32": 2, "uint16": 6, "float16": 12}
MRC_VERSION = 20141


def resolution_tags(pixel_size: float | None) -> dict[str, Any]:
    """Return what tells tifffile a pixel size in nm, which is pixels per centimetre in the file."""
    if pixel_size is None:
        return {}
    return {"resolution": (1e7 / pixel_size, 1e7 / pixel_size), "resolutionunit": "CENTIMETER"}


def mrc_dtype(dtype: Any) -> np.dtype:
    """Return the dtype of an MRC file that holds values of a dtype.

    Raises:
        EMError: MRC holds no such values.
    """
    dtype = np.dtype(dtype)
    if dtype.kind == "b" or dtype == np.uint8:
        return np.dtype(np.uint16)
    if dtype.name not in MRC_MODES:
        raise EMError(f"an MRC file holds no {dtype.name}: choose --format tif or zarr")
    return dtype.newbyteorder("=")


def mrc_header(shape: tuple[int, ...], dtype: np.dtype, sides: tuple[float | None, ...]) -> bytes:
    """Return the header of an MRC file, the same for the same arguments.

    Args:
        shape: (H, W), or (Z, H, W) of a volume.
        dtype: one of `mrc_dtype`.
        sides: of a voxel along x, y and z in nm; None, not known, is 0 in the file.
    """
    from mrcfile.dtypes import HEADER_DTYPE
    from mrcfile.utils import machine_stamp_from_byte_order

    header = np.zeros((), HEADER_DTYPE).view(np.recarray)
    lengths = (*shape[::-1], 1)[:3]
    for axis, length, side in zip("xyz", lengths, sides, strict=True):
        header[f"n{axis}"] = header[f"m{axis}"] = length
        header.cella[axis] = 10 * length * (side or 0)  # in Angstrom
    header.mode, header.ispg, header.nversion = MRC_MODES[dtype.name], int(len(shape) == 3), MRC_VERSION
    header.cellb.alpha = header.cellb.beta = header.cellb.gamma = 90
    header.mapc, header.mapr, header.maps = 1, 2, 3
    # the largest below the smallest: the format's way to say that they are not known
    header.dmin, header.dmax, header.dmean, header.rms = 0, -1, -2, -1
    header.map, header.machst = b"MAP ", machine_stamp_from_byte_order("=")
    header.nlabl, header.label[0] = 1, b"emfm"
    return header.tobytes()


def write_image(path: str | Path, image: np.ndarray, pixel_size: float | None = None) -> None:
    """Write a 2-D or RGB array: TIFF of any dtype with pixel size (nm), or PNG of up to 16 bits."""
    path = Path(path)

    def write(temporary: Path) -> None:
        if path.suffix.lower() in (".tif", ".tiff"):
            tifffile.imwrite(temporary, image, **resolution_tags(pixel_size))
        else:
            Image.fromarray(image).save(temporary)

    write_atomically(path, write)
