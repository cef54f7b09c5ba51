"""NPY, memory-mapped."""

from pathlib import Path

import numpy as np

from emfm.errors import EMError
from emfm.io.formats.planes import Planes, Request, planes_of_array


def open_npy(path: Path, request: Request) -> Planes:
    """Map an NPY file; pickled objects are refused."""
    try:
        with np.errstate(over="ignore"):  # a size that overflows is not the file's
            array = np.load(path, allow_pickle=False, mmap_mode="r")
    # damaged headers, which are Python literals, raise many kinds
    except Exception as error:
        raise request.damaged(error) from error
    if not isinstance(array, np.memmap):
        raise request.damaged("it holds other content than one array")
    if array.dtype.kind not in "biuf":
        raise EMError(f"{request.name}: dtype {array.dtype}; expected boolean, integer or floating point")
    return planes_of_array(array, None, None, request)
