"""Small sound micrographs of every format and variant, for tests and for damaging; all hold the same pattern."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import mrcfile
import numpy as np
import tifffile
import zarr
from PIL import Image

from benchmarks.vendor_files import dm_bytes, ser_bytes

TIFFS: dict[str, dict[str, Any]] = {
    "plain": {},
    "big_endian": {"byteorder": ">"},
    "bigtiff": {"bigtiff": True},
    "deflate": {"compression": "zlib", "predictor": True, "rowsperstrip": 16},
    "lzw": {"compression": "lzw", "rowsperstrip": 16},
    "zstd": {"compression": "zstd"},
    "packbits": {"compression": "packbits"},
    "tiled": {"tile": (32, 32)},
    "tiled_deflate": {"tile": (32, 32), "compression": "zlib"},
    "imagej": {"imagej": True, "resolution": (4, 4), "metadata": {"unit": "nm"}},
    "ome": {"ome": True, "metadata": {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "nm"}},
}


def pattern(dtype: str, shape: tuple[int, ...] = (70, 90)) -> np.ndarray:
    """Return a smooth pattern with noise that uses the range of a dtype."""
    values = np.sin(np.indices(shape).sum(0) / 9) + np.random.default_rng(0).normal(0, 0.1, shape)
    if np.dtype(dtype).kind == "f":
        return (100 * values).astype(dtype)
    if dtype == "bool":
        return values > 0
    limits = np.iinfo(dtype)
    middle, half = (float(limits.max) + float(limits.min)) / 2, (float(limits.max) - float(limits.min)) / 2
    return (middle + half * np.clip(values, -1.1, 1.1) / 1.2).astype(dtype)


def write_sound_files(folder: Path) -> list[Path]:
    """Write one file, or Zarr folder, of every kind into a folder."""
    return [*_pictures(folder), *_tiffs(folder), *_arrays(folder), *_containers(folder), *_vendors(folder)]


def _pictures(folder: Path) -> Iterator[Path]:
    grey = pattern("uint8")
    pictures = {"grey.png": grey, "deep.png": pattern("uint16"), "mask.png": pattern("bool"), "grey.jpg": grey}
    pictures["colour.png"] = pictures["colour.jpg"] = np.dstack([grey] * 3)
    for name, image in pictures.items():
        Image.fromarray(image).save(folder / name)
        yield folder / name
    Image.fromarray(grey).convert("P").save(folder / "palette.png")
    Image.fromarray(grey).save(folder / "progressive.jpg", progressive=True)
    yield from (folder / "palette.png", folder / "progressive.jpg")


def _tiffs(folder: Path) -> Iterator[Path]:
    for name, options in TIFFS.items():
        path = folder / f"{name}.tif"
        tifffile.imwrite(path, pattern("uint16"), **{"photometric": "minisblack", **options})
        yield path
    stack = pattern("uint8", (4, 40, 50))
    tifffile.imwrite(folder / "stack.tif", stack, photometric="minisblack")
    tifffile.imwrite(folder / "stack_imagej.tif", stack, imagej=True)
    tifffile.imwrite(folder / "stack_ome.tif", stack, ome=True, compression="zlib", photometric="minisblack")
    tifffile.imwrite(folder / "rgb.tif", np.dstack([pattern("uint8")] * 3), photometric="rgb")
    tifffile.imwrite(folder / "jpeg.tif", pattern("uint8", (96, 96)), compression="jpeg", tile=(48, 48))
    tifffile.imwrite(folder / "float.tif", pattern("float32"), compression="zlib", predictor=3)
    yield from (folder / f"{name}.tif" for name in ("stack", "stack_imagej", "stack_ome", "rgb", "jpeg", "float"))


def _arrays(folder: Path) -> Iterator[Path]:
    arrays = {"u2": pattern("uint16"), "f4": pattern("float32"), "big": pattern("uint16").astype(">u2")}
    arrays |= {"fortran": np.asfortranarray(pattern("int16")), "stack": pattern("uint8", (4, 40, 50))}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
        yield folder / f"{name}.npy"
    for name, array in {"image": pattern("float32"), "deep": pattern("uint16"), "stack": arrays["stack"]}.items():
        with mrcfile.new(folder / f"{name}.mrc", array.astype("int8") if name == "stack" else array) as file:
            file.voxel_size = 2.5  # Angstrom
        yield folder / f"{name}.mrc"


def _containers(folder: Path) -> Iterator[Path]:
    for name, options in {"contiguous": {}, "chunked": {"chunks": (32, 32), "compression": "gzip"}}.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.create_dataset("volume/raw", data=pattern("uint16"), **options)
            file["volume/raw"].attrs["element_size_um"] = (0.03, 0.00025, 0.00025)
        yield folder / f"{name}.h5"
    for version in (2, 3):
        array = zarr.create_array(
            folder / f"v{version}.zarr", shape=(70, 90), dtype="uint16", chunks=(32, 32), zarr_format=version
        )
        array[:] = pattern("uint16")
        yield folder / f"v{version}.zarr"
    group = zarr.open_group(folder / "image.ome.zarr", mode="w", zarr_format=2)
    write_levels(group, pattern("uint16"))
    yield folder / "image.ome.zarr"


def write_levels(group: Any, image: np.ndarray, pixel_size: float = 0.25) -> None:
    """Write an OME-Zarr 0.4 image with two levels, pixel size in nm."""
    for level, step in enumerate((1, 2)):
        part = image[::step, ::step]
        group.create_array(str(level), data=part, chunks=(32, 32))
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "yx"]
    levels = [
        {
            "path": str(level),
            "coordinateTransformations": [{"type": "scale", "scale": [pixel_size * step] * 2}],
        }
        for level, step in enumerate((1, 2))
    ]
    group.attrs["multiscales"] = json.loads(json.dumps([{"version": "0.4", "axes": axes, "datasets": levels}]))


def _vendors(folder: Path) -> Iterator[Path]:
    from rsciio.emd import file_writer

    for version in (3, 4):
        path = folder / f"image.dm{version}"
        path.write_bytes(dm_bytes(pattern("uint16"), 0.25, version=version))
        yield path
    (folder / "series.ser").write_bytes(ser_bytes(pattern("uint16", (3, 40, 50)), 0.25))
    yield folder / "series.ser"
    write_emd(file_writer, folder / "image.emd", pattern("uint16"))
    yield folder / "image.emd"


def write_emd(file_writer: Any, path: Path, image: np.ndarray, pixel_size: float = 0.25) -> None:
    """Write an EMD file (of NCEM's kind) through rosettasciio, pixel size in nm."""
    axes = [
        dict(name=name, size=size, scale=pixel_size, offset=0.0, units="nm", navigate=False, index_in_array=number)
        for number, (name, size) in enumerate(zip("zyx"[-image.ndim :], image.shape, strict=True))
    ]
    signal = dict(data=image, axes=axes, metadata={"General": {"title": "image"}, "Signal": {}}, original_metadata={})
    file_writer(str(path), signal | {"package": "emfm", "package_version": "1"})
