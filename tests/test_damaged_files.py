"""Damaged files and absurd headers: one clear error each, at once, and no memory for what a header claims."""

import json
import os
import struct
import sys
import time
import tracemalloc
import zlib
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr

from benchmarks.damage import damaged_copy
from benchmarks.fuzz_readers import FAILURES, fuzz, outcome
from benchmarks.sound_files import pattern, write_sound_files
from benchmarks.vendor_files import dm_bytes, ser_bytes
from emfm.errors import EMError
from emfm.io import reading
from emfm.io.reading import read_micrograph


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured and limited as Linux does it")
def test_damaged_files_of_every_format_never_crash_hang_or_fill_the_memory():
    pytest.importorskip("rsciio")
    result = fuzz(252, seed=20)
    assert result["failures"] == []
    assert sum(result["outcomes"].values()) == 252
    assert result["outcomes"]["refused"] > 60 and result["outcomes"]["read"] > 60
    assert set(result["by_suffix"]) >= {".png", ".jpg", ".tif", ".npy", ".mrc", ".h5", ".zarr", ".dm4", ".ser", ".emd"}
    assert result["largest_growth_mib"] < 512


def test_the_damage_follows_from_the_seed(tmp_path):
    pytest.importorskip("rsciio")
    (tmp_path / "sound").mkdir()
    for number, sound in enumerate(write_sound_files(tmp_path / "sound")):
        if sound.is_file():
            for copy in "ab":
                damaged_copy(sound, tmp_path / f"{copy}{sound.suffix}", np.random.default_rng([3, number]))
            assert (tmp_path / f"a{sound.suffix}").read_bytes() == (tmp_path / f"b{sound.suffix}").read_bytes()


def test_the_sound_files_are_read_and_what_fails_counts_as_failed(tmp_path, monkeypatch):
    pytest.importorskip("rsciio")
    sound = write_sound_files(tmp_path)
    assert {path.name: outcome(path) for path in sound} == {path.name: ("read", "") for path in sound}
    readers = {reading.READERS[path.suffix] for path in sound}
    assert readers == set(reading.READERS.values()), "a format without a sound file"
    for error, found in (
        (MemoryError(), "memory"),
        (KeyError("x"), "other exception"),
        (EMError("an error without the name of its file"), "unclear error"),
    ):

        def broken(path, index=None, error=error):
            raise error

        monkeypatch.setattr("emfm.io.reading.read_micrograph", broken)
        assert outcome(tmp_path / "deep.png")[0] == found
        assert found in FAILURES


def assert_refused_at_once(path, message="the file is damaged"):
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(EMError, match=rf"{path.name}: {message}") as caught:
            read_micrograph(path)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 5
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("width", "height"), [(2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (300_000, 300_000), (0, 5)])
def test_a_png_of_a_giant_size_with_a_right_checksum_is_refused(tmp_path, width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(bytes(100))
    parts = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, pixels)]
    (tmp_path / "giant.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    assert_refused_at_once(tmp_path / "giant.png")


def test_a_png_chunk_of_a_giant_length_takes_no_memory(tmp_path):
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + struct.pack(">IIBBBBB", 9, 9, 8, 0, 0, 0, 0)
    content += struct.pack(">I", zlib.crc32(content[12:])) + struct.pack(">I", 2**31 - 1) + b"IDAT" + bytes(50)
    (tmp_path / "chunk.png").write_bytes(content)
    assert_refused_at_once(tmp_path / "chunk.png")


@pytest.mark.parametrize("shape", [(2**40, 2**40), (2**32, 2**32), (2**62, 4), (-1, 5), (10**30, 1), (70, 91)])
def test_an_npy_header_of_another_size_than_the_file_is_refused(tmp_path, shape):
    header = repr({"descr": "<u2", "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    content = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + bytes(2 * 70 * 90)
    (tmp_path / "absurd.npy").write_bytes(content)
    assert_refused_at_once(tmp_path / "absurd.npy")


@pytest.mark.parametrize(
    ("field", "value"),
    [(0, 2**31 - 1), (0, -5), (0, 0), (4, 2**30), (8, 2**31 - 1), (8, -1), (12, 77), (92, 2**31 - 1), (92, 2**27)],
)
def test_an_mrc_header_that_the_file_cannot_hold_is_refused(tmp_path, field, value):
    path = tmp_path / "absurd.mrc"
    with mrcfile.new(path) as file:
        file.set_data(pattern("int16"))
    content = bytearray(path.read_bytes())
    content[field : field + 4] = struct.pack("<i", value)
    path.write_bytes(content)
    assert_refused_at_once(path)


def tiff_with(path, tag, value, **options):
    """Write a TIFF file and put another number into one of its tags."""
    tifffile.imwrite(path, pattern("uint16"), **options)
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages.first.tags[tag].offset
    content = bytearray(path.read_bytes())
    kind = struct.unpack_from("<H", content, place + 2)[0]
    content[place + 8 : place + 12] = struct.pack("<I", value) if kind == 4 else struct.pack("<HH", value, 0)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("ImageWidth", 2**31 - 1),
        ("ImageLength", 2**32 - 1),
        ("ImageWidth", 0),
        ("StripOffsets", 2**32 - 1),
        ("StripByteCounts", 2**31),
        ("BitsPerSample", 65_535),
        ("SamplesPerPixel", 65_535),
        ("Compression", 60_000),
    ],
)
@pytest.mark.parametrize("compression", ["lzw", "zlib"])
def test_an_absurd_number_in_a_tiff_tag_is_refused(tmp_path, tag, value, compression):
    path = tmp_path / "absurd.tif"
    tiff_with(path, tag, value, compression=compression, rowsperstrip=70, metadata=None)
    assert_refused_at_once(path, "")


def test_tiff_directories_in_a_circle_are_refused(tmp_path):
    path = tmp_path / "circle.tif"
    with tifffile.TiffWriter(path) as writer:
        for _ in range(130):
            writer.write(pattern("uint8", (9, 9)), metadata=None)
    with tifffile.TiffFile(path) as tiff:
        last, third = tiff.pages[129].offset, tiff.pages[3].offset
    content = bytearray(path.read_bytes())
    count = struct.unpack_from("<H", content, last)[0]
    content[last + 2 + 12 * count : last + 6 + 12 * count] = struct.pack("<I", third)
    path.write_bytes(content)
    assert_refused_at_once(path, r"the file is damaged .*circle")


def test_a_jpeg_tile_of_another_size_than_its_place_takes_no_memory(tmp_path):
    path = tmp_path / "tile.tif"
    tifffile.imwrite(path, pattern("uint8", (96, 96)), compression="jpeg", tile=(48, 48))
    content = bytearray(path.read_bytes())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert_refused_at_once(path)


def test_pixels_that_an_uncompressed_tiff_does_not_have_are_refused(tmp_path):
    for tag, value in (("ImageWidth", 90_000), ("ImageLength", 71), ("StripOffsets", 500)):
        tiff_with(tmp_path / "absurd.tif", tag, value, rowsperstrip=70, metadata=None)
        assert_refused_at_once(tmp_path / "absurd.tif")


@pytest.mark.parametrize("chunks", [None, (64, 64), (40_000, 40_000)])
def test_an_hdf5_dataset_that_claims_far_more_than_it_holds_is_refused(tmp_path, chunks):
    path = tmp_path / "giant.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", (2**31, 2**31), "uint16", chunks=chunks)
    assert_refused_at_once(path)


@pytest.mark.parametrize(("field", "value"), [("shape", [2**40, 2**40]), ("chunks", [2**20, 2**20])])
def test_a_zarr_array_that_claims_far_more_than_it_holds_is_refused(tmp_path, field, value):
    path = tmp_path / "giant.zarr"
    zarr.create_array(path, data=pattern("uint16"), zarr_format=2)
    metadata = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps({**metadata, field: value}))
    assert_refused_at_once(path)


def test_labels_that_are_background_for_the_most_part_are_not_taken_for_damage(tmp_path):
    labels = zarr.create_array(tmp_path / "labels.zarr", shape=(40_000, 40_000), chunks=(512, 512), dtype="uint8")
    labels[600:700, 600:700] = 3
    image = read_micrograph(tmp_path / "labels.zarr").image
    assert image.shape == (40_000, 40_000)
    assert int(image[590:710, 590:710].sum()) == 3 * 100 * 100
    assert not image[39_000:, 39_000:].any()


def test_dm_pixels_under_another_name_are_given_up_when_their_time_is_over(tmp_path, monkeypatch):
    """rosettasciio would make a Python number of each, which takes the more time the larger the file is."""
    pytest.importorskip("rsciio.digitalmicrograph")
    path = tmp_path / "image.dm4"
    content = dm_bytes(np.zeros((4500, 4500), np.uint8), 0.25)
    path.write_bytes(content.replace(b"\0\4Data\0", b"\0\4Tada\0", 1))
    monkeypatch.setattr("emfm.io.formats.vendor.SECONDS", 1)
    monkeypatch.setattr("emfm.io.formats.vendor.BYTES_PER_SECOND", path.stat().st_size)
    started = time.monotonic()
    assert_refused_at_once(path, r"reading took more than 2 s and was stopped")
    assert time.monotonic() - started < 10
    path.write_bytes(dm_bytes(pattern("uint16"), 0.25))
    monkeypatch.undo()
    np.testing.assert_array_equal(read_micrograph(path).image, pattern("uint16"))  # another process reads on


def test_a_file_that_fills_the_memory_is_given_up_when_its_share_is_used(tmp_path, monkeypatch):
    pytest.importorskip("resource")
    pytest.importorskip("rsciio.tia")
    path = tmp_path / "image.ser"
    path.write_bytes(ser_bytes(np.zeros((1, 4000, 4000), np.uint8), 0.25))
    monkeypatch.setattr("emfm.io.formats.vendor.MEMORY", 3 * 2**28)
    monkeypatch.setattr("emfm.io.formats.vendor.MEMORY_PER_BYTE", -40)
    assert_refused_at_once(path, r"the file is damaged, or unpacks to more than 0 GiB")
    monkeypatch.undo()
    assert read_micrograph(path).image.shape == (4000, 4000)


def test_no_temporary_file_is_left_of_images_that_came_through_one(tmp_path, monkeypatch):
    pytest.importorskip("rsciio.tia")
    from emfm.io.formats import planes, vendor

    monkeypatch.setattr(planes, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(vendor, "WHOLE_BYTES", 1000)
    path = tmp_path / "image.ser"
    path.write_bytes(ser_bytes(pattern("uint16", (2, 20, 30)), 0.25))
    image = read_micrograph(path, index=1).image
    assert isinstance(image, np.memmap)
    np.testing.assert_array_equal(image, pattern("uint16", (2, 20, 30))[1])
    assert os.name == "nt" or not list(Path(vendor._scratch_folder(os.getpid()).name).iterdir())


@pytest.mark.parametrize("length", [2**62, -1, -(2**40)])
def test_a_dm_array_longer_than_the_file_or_of_negative_length_is_refused(tmp_path, length):
    pytest.importorskip("rsciio.digitalmicrograph")
    path = tmp_path / "image.dm4"
    content = dm_bytes(pattern("uint16"), 0.25)
    place = content.index(struct.pack(">qqq", 20, 4, 70 * 90))
    path.write_bytes(content[: place + 16] + struct.pack(">q", length) + content[place + 24 :])
    assert_refused_at_once(path)


@pytest.mark.parametrize("version", [3, 4])
def test_dm_dimensions_larger_than_the_file_are_refused(tmp_path, version):
    pytest.importorskip("rsciio.digitalmicrograph")
    path = tmp_path / f"image.dm{version}"
    content = dm_bytes(pattern("uint16"), 0.25, version=version)
    place = content.index(b"Dimensions")
    number = content.index(struct.pack("<I", 90), place)
    path.write_bytes(content[:number] + struct.pack("<I", 2**31) + content[number + 4 :])
    assert_refused_at_once(path, r"the file is damaged .*an image of")


@pytest.mark.parametrize(("place", "value"), [(18, 2**32 - 1), (22, 2**31), (26, 2**20)])
def test_a_ser_header_that_the_file_cannot_hold_is_refused(tmp_path, place, value):
    pytest.importorskip("rsciio.tia")
    path = tmp_path / "image.ser"
    content = bytearray(ser_bytes(pattern("uint16", (2, 20, 30)), 0.25))
    content[place : place + 4] = struct.pack("<I", value)
    path.write_bytes(content)
    assert_refused_at_once(path)


def test_an_emd_file_with_a_giant_dataset_is_refused(tmp_path):
    pytest.importorskip("rsciio.emd")
    path = tmp_path / "giant.emd"
    with h5py.File(path, "w") as file:
        group = file.create_group("signals/image")
        group.attrs["emd_group_type"] = 1
        group.create_dataset("data", (2**20, 2**20), "uint16")
    assert_refused_at_once(path)
