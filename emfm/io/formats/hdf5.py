"""HDF5, read lazily through h5py."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from emfm.errors import EMError, nearest
from emfm.io.formats.planes import Planes, Request, check_claim, nanometres, pixel_side, planes_of_array

# Objects that are looked at, and names that an error lists.
MOST_OBJECTS, MOST_LISTED = 10_000, 12


def open_hdf5(path: Path, request: Request) -> Planes:
    """Open the image of an HDF5 file: the only one in it, or the one that `request.dataset` names.

    The pixel size comes from the attribute `element_size_um` (z, y, x in micrometres; the convention of ilastik, napari
    and plant-seg).
    """
    import h5py

    file = h5py.File(path, "r")  # closed when the last object of it is gone
    dataset = _dataset(file, request)
    if dataset.external:
        raise EMError(f"{request.name}: '{dataset.name}' keeps its values in other files, which is not supported")
    if not dataset.is_virtual:  # its pixels lie in other files
        chunk = math.prod(dataset.chunks or (1,)) * dataset.dtype.itemsize
        check_claim(chunk, dataset.id.get_storage_size(), request)
    sides = np.asarray(dataset.attrs.get("element_size_um", ())).ravel()
    pixel_size = None
    if sides.size >= 2 and sides.dtype.kind in "iuf":
        pixel_size = pixel_side(nanometres(sides[-1], "um"), nanometres(sides[-2], "um"), request.name)
    return planes_of_array(dataset, None, pixel_size, request)


def _dataset(file: Any, request: Request) -> Any:
    import h5py

    if request.dataset is None:
        names = _images(file)
        if len(names) == 1:
            return file[names[0]]
        if not names:
            raise EMError(f"{request.name} holds no image: no dataset of numbers with two or more axes")
        listed = ", ".join(f"{name} {file[name].shape} {file[name].dtype}" for name in names[:MOST_LISTED])
        more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
        raise EMError(
            f"{request.name} holds {len(names)} datasets: {listed}{more}; choose one with dataset='{names[0]}' or "
            f"{request.name}::{names[0]}"
        )
    found = file.get(request.dataset)
    if not isinstance(found, h5py.Dataset):
        raise EMError(f"{request.name} has no dataset '{request.dataset}'; {nearest(request.dataset, _images(file))}")
    return found


def _images(file: Any) -> list[str]:
    """Return the names of the datasets that may be images."""
    import h5py

    names, seen = [], 0

    def visit(name: str, item: Any) -> bool | None:
        nonlocal seen
        seen += 1
        if isinstance(item, h5py.Dataset) and item.ndim >= 2 and item.dtype.kind in "biuf":
            names.append(name)
        return True if seen >= MOST_OBJECTS else None

    file.visititems(visit)
    return names
