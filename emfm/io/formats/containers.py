"""Containers of named arrays, read lazily: HDF5 through h5py, Zarr (2 and 3) through zarr.

OME-Zarr: the finest level of the first multiscale image, with axes and scale (OME-NGFF 0.1 to 0.5).
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from emfm.errors import EMError, UnsupportedFileError, nearest
from emfm.io.formats.planes import WHOLE_BYTES, Planes, Request, check_claim, nanometres, pixel_side, planes_of_array

# Objects of an HDF5 file that are looked at, and names that an error lists.
MOST_OBJECTS, MOST_LISTED = 10_000, 12
# Codecs that only compute. Others of numcodecs, "pickle" above all, run what a file tells them to.
SAFE_CODECS = {
    *("blosc", "zlib", "gzip", "bz2", "lzma", "zstd", "lz4", "shuffle", "delta", "bytes", "endian", "transpose"),
    *("sharding_indexed", "crc32c", "crc32", "adler32", "fletcher32", "jenkins_lookup3", "fixedscaleoffset"),
    *("quantize", "bitround", "packbits", "astype", "zfpy", "pcodec"),
}


def open_hdf5(path: Path, request: Request) -> Planes:
    """Open the image of an HDF5 file: the only one in it, or the one that `request.dataset` names.

    The pixel size comes from the attribute `element_size_um` (z, y, x in micrometres; as ilastik,
    napari and plant-seg write it).
    """
    import h5py

    file = h5py.File(path, "r")  # closed when the last object of it is gone
    dataset = _hdf5_dataset(file, request)
    if dataset.external:
        raise EMError(f"{request.name}: '{dataset.name}' keeps its values in other files, which is not supported")
    _check_filters(dataset, request)
    if not dataset.is_virtual:  # its pixels lie in other files
        chunk = math.prod(dataset.chunks or (1,)) * dataset.dtype.itemsize
        check_claim(chunk, dataset.id.get_storage_size(), request)
    sides = np.asarray(dataset.attrs.get("element_size_um", ())).ravel()
    pixel_size, distance = None, None
    if sides.size >= 2 and sides.dtype.kind in "iuf":
        distance = nanometres(sides[-3], "um") if sides.size == 3 else None
        pixel_size = pixel_side(nanometres(sides[-1], "um"), nanometres(sides[-2], "um"), request.name)
    return planes_of_array(dataset, None, pixel_size, request, distance)


def _check_filters(dataset: Any, request: Request) -> None:
    """Raise an error if the pixels are compressed in a way that this HDF5 library lacks."""
    import h5py

    filters = dataset.id.get_create_plist()
    for number in range(filters.get_nfilters()):
        code, _, _, name = filters.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            known = name.decode(errors="replace").split(";")[0] or f"filter {code}"
            raise UnsupportedFileError(
                f"{request.name}: '{dataset.name}' is compressed with {known}, which this HDF5 library lacks: "
                "save it with gzip"
            )


def _hdf5_dataset(file: Any, request: Request) -> Any:
    import h5py

    if request.dataset is None:
        names = _images(file)
        if len(names) == 1:
            return file[names[0]]
        if not names:
            raise EMError(f"{request.name} holds no image: no dataset of numbers with two or more axes")
        listed = _listed([f"{name} {file[name].shape} {file[name].dtype}" for name in names])
        choice = f"choose one with --dataset {names[0]}, in Python dataset='{names[0]}'"
        raise EMError(f"{request.name} holds {len(names)} datasets: {listed}; {request.advice(choice)}")
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


def open_zarr(path: Path, request: Request) -> Planes:
    """Open the image of a Zarr folder: the only one, or the one that `request.dataset` names."""
    import zarr
    from zarr.storage import LocalStore

    root = zarr.open(LocalStore(path, read_only=True), mode="r")
    array, multiscale, level = _zarr_array(root, request)
    _check_codecs(array, request)
    chunk = math.prod(array.chunks) * array.dtype.itemsize
    if chunk > WHOLE_BYTES:
        sizes = [file.stat().st_size for file in (path / array.path).rglob("*") if file.is_file()]
        check_claim(chunk, max(sizes, default=0), request)
    axes, pixel_size, distance = _ome(array, multiscale, level, request) if multiscale else (None, None, None)
    return planes_of_array(array, axes, pixel_size, request, distance)


def _zarr_array(root: Any, request: Request) -> tuple[Any, dict | None, str]:
    """Return the array, the multiscale image that it is a level of, and the level's name there."""
    import zarr

    node, parent, name = root, None, ""
    if request.dataset is not None:
        wanted = request.dataset.strip("/")
        parent_name, _, name = wanted.rpartition("/")
        try:
            node = root[wanted]
            parent = root[parent_name] if parent_name else root
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise EMError(f"{request.name} has no dataset '{request.dataset}'; it holds {_members(root)}") from error
    while isinstance(node, zarr.Group) and not _multiscales(node):
        images = [child for _, child in node.members() if not isinstance(child, zarr.Array) or child.ndim >= 2]
        if "bioformats2raw.layout" in node.attrs:  # has a group for metadata, too
            images = [child for child in images if isinstance(child, zarr.Group) and _multiscales(child)]
        if len(images) != 1:
            hint = f"; {request.advice('choose one with --dataset, in Python dataset=')}" if images else ""
            raise EMError(f"{request.name} holds {len(images)} images: {_members(node)}{hint}")
        node = images[0]
    if isinstance(node, zarr.Array):
        found = _multiscales(parent) if isinstance(parent, zarr.Group) else []
        return node, (found[0] if found else None), name
    multiscale = _multiscales(node)[0]
    finest = str(multiscale["datasets"][0]["path"])
    array = node[finest]
    if not isinstance(array, zarr.Array):
        raise request.damaged(f"its level '{finest}' is no array")
    return array, multiscale, finest


def _multiscales(group: Any) -> list[dict]:
    attributes = dict(group.attrs)
    return attributes.get("ome", attributes).get("multiscales") or []  # 0.5 puts them under "ome"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return (", ".join(names[:MOST_LISTED]) or "nothing") + more


def _members(node: Any) -> str:
    import zarr

    if isinstance(node, zarr.Array):
        return "one array"
    named = []
    for name, child in node.members():
        named.append(f"{name} {child.shape} {child.dtype}" if isinstance(child, zarr.Array) else f"{name}/")
    return _listed(sorted(named))


def _ome(array: Any, multiscale: dict, level: str, request: Request) -> tuple[str | None, float | None, float | None]:
    """Return axes, pixel size and distance of slices of a level of an OME-Zarr image."""
    letters, units = "", []
    for entry in multiscale.get("axes") or []:
        name = str(entry.get("name", "Q") if isinstance(entry, dict) else entry)
        letters += name[:1].upper() or "Q"
        units.append(entry.get("unit") if isinstance(entry, dict) else None)
    if len(letters) != array.ndim or letters.count("X") != 1 or letters.count("Y") != 1:
        return None, None, None
    scales = []
    of_level = [entry for entry in multiscale["datasets"] if str(entry["path"]) == level]
    for holder in (*of_level, multiscale):
        for transformation in holder.get("coordinateTransformations") or []:
            if transformation.get("type") == "scale" and len(transformation.get("scale", ())) == array.ndim:
                scales.append([float(side) for side in transformation["scale"]])
    sides = np.prod(scales, axis=0) if scales else [None] * array.ndim
    lengths = [nanometres(side, unit) for side, unit in zip(sides, units, strict=True)]
    x, y = (lengths[letters.index(axis)] for axis in "XY")
    distance = lengths[letters.index("Z")] if letters.count("Z") == 1 else None
    return letters.replace("S", "Q"), pixel_side(x, y, request.name), distance


def _check_codecs(array: Any, request: Request) -> None:
    """Raise an error if the chunks pass through a codec that is not known to be harmless."""
    metadata = array.metadata.to_dict()
    waiting: list[Any] = [metadata.get(key) for key in ("codecs", "filters", "compressor")]
    unknown = set()
    while waiting:
        content = waiting.pop()
        if isinstance(content, (list, tuple)):
            waiting += content
        elif isinstance(content, dict):
            for name in (content.get("id"), content.get("name")):
                if isinstance(name, str) and name.removeprefix("numcodecs.") not in SAFE_CODECS:
                    unknown.add(name)
            waiting += content.get("configuration", {}).values()  # codecs inside of shards
    if unknown:
        codecs = ", ".join(sorted(unknown))
        raise EMError(f"{request.name}: its chunks are encoded with {codecs}, which is not read for safety")
