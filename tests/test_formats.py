"""Every format, written by its own library: dtypes, pixel sizes, axes."""

import importlib.util

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr

from benchmarks.sound_files import pattern, write_emd, write_levels
from benchmarks.vendor_files import dm_bytes, ser_bytes
from emfm.errors import EMError
from emfm.io.reading import list_micrographs, read_micrograph
from emfm.io.writing import write_image

INTEGERS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
EVERY_DTYPE = ("bool", *INTEGERS, "float16", "float32", "float64")
ORDERS = ("<", ">")
needs_rosettasciio = pytest.mark.skipif(not importlib.util.find_spec("rsciio"), reason="emfm[em] is not installed")


def assert_read(path, image, pixel_size=None, axes="YX", **options):
    micrograph = read_micrograph(path, **options)
    assert micrograph.image.dtype == image.dtype.newbyteorder("=")
    assert micrograph.image.dtype.isnative
    np.testing.assert_array_equal(micrograph.image, image)
    assert micrograph.pixel_size == (pixel_size and pytest.approx(pixel_size, rel=1e-6))
    assert micrograph.axes == axes
    return micrograph


def in_order(dtype: str, order: str) -> np.ndarray:
    image = pattern(dtype)
    return image.astype(image.dtype.newbyteorder(order))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", EVERY_DTYPE)
def test_tiff_keeps_every_dtype_in_both_byte_orders(tmp_path, dtype, order):
    path, image = tmp_path / "image.tif", pattern(dtype)
    tifffile.imwrite(path, image, byteorder=order, resolution=(4e7, 4e7), resolutionunit="CENTIMETER")
    assert_read(path, image, 0.25)


def test_packed_12_bit_tiff_is_read_without_loss(tmp_path):
    image = pattern("uint16") >> 4
    tifffile.imwrite(tmp_path / "camera.tif", image, bitspersample=12)
    assert_read(tmp_path / "camera.tif", image)


@pytest.mark.parametrize("shape", [(70, 90, 3), (70, 90, 2), (70, 90, 4)])
def test_a_16_bit_png_in_colour_or_with_alpha_is_refused_before_bits_are_lost(tmp_path, shape):
    imagecodecs = pytest.importorskip("imagecodecs")
    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(np.full(shape, 300, np.uint16)))
    with pytest.raises(EMError, match=r"deep\.png: a 16-bit PNG"):
        read_micrograph(tmp_path / "deep.png", colour="luminance")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize(
    "options",
    [
        {"compression": "lzw", "rowsperstrip": 16},
        {"compression": "zstd"},
        {"compression": "packbits", "rowsperstrip": 7},
        {"compression": "lzma"},
        {"compression": "zlib", "tile": (32, 48)},
        {"compression": "zlib", "predictor": True, "byteorder": ">"},
        {"tile": (16, 32), "bigtiff": True},
        {"rowsperstrip": 8, "byteorder": ">", "bigtiff": True},
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()),
)
def test_tiff_is_the_same_however_it_is_stored(tmp_path, dtype, options):
    image = pattern(dtype)
    tifffile.imwrite(tmp_path / "image.tif", image, **options)
    assert_read(tmp_path / "image.tif", image)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", EVERY_DTYPE)
def test_npy_keeps_every_dtype_in_both_byte_orders_and_memory_layouts(tmp_path, dtype, order):
    image = in_order(dtype, order)
    np.save(tmp_path / "c.npy", image)
    np.save(tmp_path / "f.npy", np.asfortranarray(image))
    assert_read(tmp_path / "c.npy", image)
    assert_read(tmp_path / "f.npy", image)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float16", "float32"])
def test_mrc_keeps_its_dtypes_and_the_pixel_size_in_both_byte_orders(tmp_path, dtype, order):
    path = tmp_path / "image.mrc"
    with mrcfile.new(path) as file:
        file.set_data(in_order(dtype, order))
        file.voxel_size = 2.5
    assert_read(path, pattern(dtype), 0.25)


def test_mrc_bytes_of_imod_are_unsigned_unless_its_flag_says_otherwise(tmp_path):
    path, image = tmp_path / "image.st", pattern("uint8")
    for flags, expected in ((0, image), (1, image.view(np.int8))):
        with mrcfile.new(path, overwrite=True) as file:
            file.set_data(image.view(np.int8))
        content = bytearray(path.read_bytes())
        content[152:160] = np.array([1146047817, flags], "<i4").tobytes()
        path.write_bytes(content)
        assert_read(path, expected)


def test_an_mrc_file_older_than_the_name_in_its_header_is_read_if_its_size_is_right(tmp_path):
    path = tmp_path / "old.mrc"
    with mrcfile.new(path) as file:
        file.set_data(pattern("int16"))
    content = bytearray(path.read_bytes())
    content[208:212] = bytes(4)
    path.write_bytes(content)
    assert_read(path, pattern("int16"))
    path.write_bytes(content + b"more")
    with pytest.raises(EMError, match=r"old\.mrc: the file is damaged"):
        read_micrograph(path)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", EVERY_DTYPE)
def test_hdf5_keeps_every_dtype_in_both_byte_orders_and_the_pixel_size(tmp_path, dtype, order):
    path = tmp_path / "image.h5"
    with h5py.File(path, "w") as file:
        file["raw"] = in_order(dtype, order)
        file["raw"].attrs["element_size_um"] = [0.03, 0.002, 0.002]
    assert_read(path, pattern(dtype), 2.0)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("dtype", EVERY_DTYPE)
def test_zarr_keeps_every_dtype(tmp_path, dtype, version):
    image = pattern(dtype)
    zarr.create_array(tmp_path / "image.zarr", data=image, chunks=(32, 48), zarr_format=version)
    assert_read(tmp_path / "image.zarr", image)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_big_endian_zarr_comes_out_in_native_order(tmp_path, dtype, version):
    image = in_order(dtype, ">")
    path = tmp_path / "image.zarr"
    if version == 2:
        zarr.create_array(path, data=image, zarr_format=2)
    else:
        codec = zarr.codecs.BytesCodec(endian="big")
        zarr.create_array(path, data=pattern(dtype), zarr_format=3, serializer=codec)
    assert_read(path, image)


def test_sharded_zarr_is_read(tmp_path):
    zarr.create_array(tmp_path / "image.zarr", data=pattern("uint16"), chunks=(16, 16), shards=(64, 64))
    assert_read(tmp_path / "image.zarr", pattern("uint16"))


@needs_rosettasciio
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64"])
def test_dm_files_keep_their_dtypes_and_calibration_in_both_byte_orders(tmp_path, dtype, version, order):
    path = tmp_path / f"image.dm{version}"
    path.write_bytes(dm_bytes(pattern(dtype), 0.25, "nm", version, order))
    assert_read(path, pattern(dtype), 0.25)


@needs_rosettasciio
@pytest.mark.parametrize(("unit", "nanometres"), [("nm", 0.5), ("µm", 500.0), ("1/nm", None), ("", None)])
def test_the_pixel_size_of_a_dm_file_follows_its_unit(tmp_path, unit, nanometres):
    path = tmp_path / "image.dm4"
    path.write_bytes(dm_bytes(pattern("int16"), 0.5, unit))
    assert_read(path, pattern("int16"), nanometres)


@needs_rosettasciio
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64"])
def test_ser_files_keep_their_dtypes_calibration_and_orientation(tmp_path, dtype):
    path = tmp_path / "image.ser"
    path.write_bytes(ser_bytes(pattern(dtype)[None], 0.25))
    assert_read(path, pattern(dtype), 0.25)


@needs_rosettasciio
@pytest.mark.parametrize("dtype", [*INTEGERS, "float32", "float64"])
def test_emd_files_written_by_rosettasciio_keep_their_dtypes_and_calibration(tmp_path, dtype):
    from rsciio.emd import file_writer

    write_emd(file_writer, tmp_path / "image.emd", pattern(dtype), 0.25)
    assert_read(tmp_path / "image.emd", pattern(dtype), 0.25)


@pytest.mark.parametrize("suffix", [".dm3", ".dm4", ".ser", ".emd"])
def test_without_rosettasciio_the_error_says_how_to_install_it(tmp_path, monkeypatch, suffix):
    import sys

    for module in [name for name in sys.modules if name.split(".")[0] == "rsciio"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "rsciio", None)
    path = tmp_path / f"image{suffix}"
    path.write_bytes(b"anything")
    with pytest.raises(EMError, match=rf"image\{suffix}: .* rosettasciio, .* pip install 'emfm\[em\]'"):
        read_micrograph(path)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_images_are_refused_with_their_dtype(tmp_path, dtype):
    wave = np.ones((8, 9), dtype)
    np.save(tmp_path / "wave.npy", wave)
    tifffile.imwrite(tmp_path / "wave.tif", wave)
    zarr.create_array(tmp_path / "wave.zarr", data=wave)
    with mrcfile.new(tmp_path / "wave.mrc") as file:
        file.set_data(wave.astype("complex64"))
    for path in list_micrographs(tmp_path):
        with pytest.raises(EMError, match=f"{path.name}: dtype complex"):
            read_micrograph(path)


@pytest.mark.parametrize(
    ("attributes", "nanometres"),
    [
        ({"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "nm"}, 0.5),
        ({"PhysicalSizeX": 0.002, "PhysicalSizeXUnit": "µm"}, 2.0),
        ({"PhysicalSizeX": 0.002, "PhysicalSizeY": 0.002}, 2.0),
        ({"PhysicalSizeX": 2.5, "PhysicalSizeXUnit": "Å", "PhysicalSizeY": 2.5, "PhysicalSizeYUnit": "Å"}, 0.25),
        ({"PhysicalSizeX": 3, "PhysicalSizeXUnit": "pixel"}, None),
        ({}, None),
    ],
)
def test_the_pixel_size_of_an_ome_tiff_is_that_of_its_xml(tmp_path, attributes, nanometres):
    path = tmp_path / "image.ome.tif"
    tifffile.imwrite(path, pattern("uint16"), ome=True, metadata={"axes": "YX", **attributes})
    assert_read(path, pattern("uint16"), nanometres)


def test_the_pixel_size_of_a_thermo_fisher_sem_is_that_of_its_scan(tmp_path):
    text = "[Beam]\r\nHV=5000\r\n[Scan]\r\nPixelWidth=3.5e-09\r\nPixelHeight=3.5e-09\r\n"
    tifffile.imwrite(
        tmp_path / "sem.tif", pattern("uint8"), extratags=[(34682, 2, None, text, True)], resolution=(72, 72)
    )
    assert_read(tmp_path / "sem.tif", pattern("uint8"), 3.5)


@pytest.mark.parametrize(("shown", "nanometres"), [("12.5 nm", 12.5), ("1.25 µm", 1250.0), ("300 pm", 0.3)])
def test_the_pixel_size_of_a_zeiss_sem_is_the_named_value_in_its_unit(tmp_path, shown, nanometres):
    text = f"0\r\n0\r\n0\r\n1e-9\r\nAP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = {shown}\r\nAP_WD\r\nWD = 4.1 mm\r\n"
    content = text.encode("cp1252")
    tifffile.imwrite(tmp_path / "sem.tif", pattern("uint8"), extratags=[(34118, 7, len(content), content, True)])
    assert_read(tmp_path / "sem.tif", pattern("uint8"), nanometres)


@pytest.mark.parametrize("version", [2, 3])
def test_ome_zarr_gives_its_finest_level_with_axes_and_pixel_size(tmp_path, version):
    image = pattern("uint16")
    group = zarr.open_group(tmp_path / "image.ome.zarr", mode="w", zarr_format=version)
    write_levels(group, image, 0.25)
    if version == 3:  # OME-NGFF 0.5 puts all below "ome"
        group.attrs.put({"ome": {"version": "0.5", **group.attrs.asdict()}})
    assert_read(tmp_path / "image.ome.zarr", image, 0.25)
    assert_read(tmp_path / "image.ome.zarr", image[::2, ::2], 0.5, dataset="1")
    assert_read(f"{tmp_path / 'image.ome.zarr'}::1", image[::2, ::2], 0.5)


def test_a_folder_written_by_bioformats2raw_is_read_through_its_only_image(tmp_path):
    group = zarr.open_group(tmp_path / "image.zarr", mode="w", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    write_levels(group.create_group("0"), pattern("uint8"), 4.0)
    group.create_group("OME")
    assert_read(tmp_path / "image.zarr", pattern("uint8"), 4.0)


@pytest.mark.parametrize("suffix", [".tif", ".mrc", ".h5"])
def test_pixels_that_are_not_square_warn_and_count_as_squares_of_the_same_area(tmp_path, caplog, suffix):
    path = tmp_path / f"image{suffix}"
    image = pattern("uint16")
    if suffix == ".tif":
        tifffile.imwrite(path, image, resolution=(1e7 / 2, 1e7 / 8), resolutionunit="CENTIMETER")
    elif suffix == ".mrc":
        with mrcfile.new(path) as file:
            file.set_data(image)
            file.voxel_size = (20, 80, 1)
    else:
        with h5py.File(path, "w") as file:
            file["raw"] = image
            file["raw"].attrs["element_size_um"] = [1, 0.008, 0.002]
    assert_read(path, image, 4.0)
    assert f"{path}: pixels of 2 x 8 nm are not square" in caplog.text


def test_pixels_that_differ_by_less_than_a_percent_are_square(tmp_path, caplog):
    tifffile.imwrite(
        tmp_path / "image.tif", pattern("uint8"), resolution=(1e7 / 2, 1e7 / 2.01), resolutionunit="CENTIMETER"
    )
    assert_read(tmp_path / "image.tif", pattern("uint8"), 2.0)
    assert caplog.text == ""


def test_a_pixel_size_of_nothing_or_infinity_is_none(tmp_path):
    for number, side in enumerate((0.0, -1.0, np.inf, np.nan)):
        path = tmp_path / f"{number}.h5"
        with h5py.File(path, "w") as file:
            file["raw"] = pattern("uint8")
            file["raw"].attrs["element_size_um"] = [side, side, side]
        assert_read(path, pattern("uint8"), None)


def test_every_format_is_listed_and_a_zarr_folder_counts_as_one_image(tmp_path):
    (tmp_path / "deep").mkdir()
    names = ["a.mrc", "b.h5", "c.dm4", "deep/d.SER", "e.emd", "f.mrcs"]
    for name in [*names, "notes.txt"]:
        (tmp_path / name).touch()
    write_levels(zarr.open_group(tmp_path / "deep" / "g.ome.zarr", mode="w"), pattern("uint8"))
    (tmp_path / "deep" / "g.ome.zarr" / "thumbnail.png").touch()
    assert list_micrographs(tmp_path) == sorted(tmp_path / name for name in [*names, "deep/g.ome.zarr"])


@pytest.mark.parametrize("dtype", EVERY_DTYPE)
def test_what_was_read_from_any_format_is_written_with_its_dtype_and_pixel_size(tmp_path, dtype):
    with h5py.File(tmp_path / "image.h5", "w") as file:
        file["raw"] = pattern(dtype)
        file["raw"].attrs["element_size_um"] = [0.001, 0.00125, 0.00125]
    micrograph = read_micrograph(tmp_path / "image.h5")
    write_image(tmp_path / "result.tif", micrograph.array, micrograph.pixel_size)
    assert_read(tmp_path / "result.tif", pattern(dtype), 1.25)
