"""Images that stay in their file: every region has the array's values, in bounded memory."""

import threading
import time

import h5py
import mrcfile
import numpy as np
import psutil
import pytest
import tifffile
import zarr

from benchmarks.sound_files import pattern
from emfm.errors import EMError
from emfm.io import large_images
from emfm.io.formats import planes
from emfm.io.large_images import LazyImage, block_shape
from emfm.io.reading import read_micrograph
from emfm.processing import EMImageProcessor


@pytest.fixture
def small_limits(monkeypatch):
    """Images over 1 KiB stay in their file, blocks have 2 KiB and 8 KiB of them are kept."""
    monkeypatch.setattr(planes, "WHOLE_BYTES", 1 << 10)
    monkeypatch.setattr(large_images, "BLOCK_BYTES", 2 << 10)
    monkeypatch.setattr(large_images, "CACHE_BYTES", 8 << 10)


LAZY = {
    "deflate.tif": lambda path, image: tifffile.imwrite(path, image, compression="zlib", rowsperstrip=4),
    "tiled.tif": lambda path, image: tifffile.imwrite(path, image, compression="lzw", tile=(32, 48)),
    "big_endian.tif": lambda path, image: tifffile.imwrite(path, image, byteorder=">"),
    "big_endian.npy": lambda path, image: np.save(path, image.astype(">u2")),
    "chunked.h5": lambda path, image: h5py.File(path, "w").create_dataset("raw", data=image, chunks=(16, 16)),
    "chunked.zarr": lambda path, image: zarr.create_array(path, data=image, chunks=(16, 32)),
    "grey.tif": lambda path, image: tifffile.imwrite(path, np.dstack([image] * 3), photometric="rgb"),
}


@pytest.mark.parametrize("name", LAZY)
def test_any_region_of_an_image_that_stays_in_its_file_equals_that_of_the_array(tmp_path, small_limits, name):
    image = pattern("uint16", (130, 170))
    LAZY[name](tmp_path / name, image)
    lazy = read_micrograph(tmp_path / name).image
    assert isinstance(lazy, LazyImage)
    assert (lazy.shape, lazy.dtype, lazy.ndim, lazy.size) == (image.shape, image.dtype, 2, image.size)
    np.testing.assert_array_equal(np.asarray(lazy), image)
    rng = np.random.default_rng(0)
    for _ in range(60):
        top, left = rng.integers(-140, 140), rng.integers(-180, 180)
        region = slice(top, top + rng.integers(1, 90), rng.integers(1, 9)), slice(left, None, rng.integers(1, 40))
        found = lazy[region]
        assert found.dtype == image.dtype and found.dtype.isnative
        np.testing.assert_array_equal(found, image[region])
    np.testing.assert_array_equal(lazy[17:40], image[17:40])
    assert lazy.nbytes == image.nbytes
    kept_bytes = lazy._decoded.cache_info().currsize * np.prod(lazy._block) * image.itemsize
    assert 0 < kept_bytes <= large_images.CACHE_BYTES


@pytest.mark.parametrize("name", ["plain.tif", "image.npy", "image.mrc"])
def test_uncompressed_images_are_memory_mapped(tmp_path, small_limits, name):
    image = pattern("uint16", (130, 170))
    if name.endswith("mrc"):
        with mrcfile.new(tmp_path / name) as file:
            file.set_data(image)
    else:
        {"plain.tif": tifffile.imwrite, "image.npy": np.save}[name](tmp_path / name, image)
    found = read_micrograph(tmp_path / name).image
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("region", [3, (slice(3), 4), (slice(None, None, -1),), (slice(3),) * 3, np.array([1])])
def test_a_lazy_image_takes_slices_with_positive_steps_and_says_so(region):
    lazy = LazyImage((9, 9), np.dtype("uint8"), (3, 3), lambda *box: np.zeros((box[1] - box[0], box[3] - box[2]), "u1"))
    with pytest.raises(IndexError, match="slices"):
        lazy[region]


def test_a_block_is_read_once_for_neighbouring_regions(monkeypatch):
    monkeypatch.setattr(large_images, "BLOCK_BYTES", 16 * 16 * 2)
    image, boxes = pattern("uint16", (64, 64)), []

    def read(top, bottom, left, right):
        boxes.append((top, bottom, left, right))
        return image[top:bottom, left:right]

    lazy = LazyImage(image.shape, image.dtype, (16, 16), read)
    assert lazy._block == (16, 16)
    for left in range(0, 60, 5):
        np.testing.assert_array_equal(lazy[3:20, left : left + 9], image[3:20, left : left + 9])
    assert len(boxes) == len(set(boxes)) == 8


def test_blocks_are_whole_chunks_of_about_a_mebibyte():
    assert block_shape((80_000, 240_000), (1, 240_000), 2) == (2, 240_000)
    assert block_shape((80_000, 240_000), (256, 256), 2) == (512, 1024)
    assert block_shape((80_000, 240_000), (4096, 4096), 2) == (4096, 4096)
    assert block_shape((100, 90), (32, 32), 1) == (100, 90)


def test_threads_may_share_a_lazy_image(tmp_path, small_limits):
    image = pattern("uint16", (130, 170))
    LAZY["tiled.tif"](tmp_path / "tiled.tif", image)
    lazy, wrong = read_micrograph(tmp_path / "tiled.tif").image, []

    def look(seed):
        rng = np.random.default_rng(seed)
        for _ in range(40):
            top, left = rng.integers(0, 100, 2)
            if not (lazy[top : top + 30, left : left + 60] == image[top : top + 30, left : left + 60]).all():
                wrong.append((top, left))

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_colour_in_a_region_of_a_large_image_is_found_when_it_is_read(tmp_path, small_limits):
    image = np.dstack([pattern("uint8", (130, 170))] * 3)
    image[100, 100, 0] ^= 8
    tifffile.imwrite(tmp_path / "spot.tif", image, photometric="rgb")
    lazy = read_micrograph(tmp_path / "spot.tif").image
    np.testing.assert_array_equal(lazy[:4], image[:4, :, 0])
    with pytest.raises(EMError, match=r"spot\.tif: a colour image"):
        lazy[90:110]


def test_damage_inside_a_large_image_is_an_error_with_the_file_s_name_when_it_is_read(tmp_path, small_limits):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, pattern("uint16", (130, 170)), compression="zlib", rowsperstrip=4)
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages.first.dataoffsets[20]
    content = bytearray(path.read_bytes())
    content[offset : offset + 8] = b"\xff" * 8
    path.write_bytes(content)
    lazy = read_micrograph(path).image
    with pytest.raises(EMError, match=r"image\.tif: the file is damaged"):
        lazy[80:90]


@pytest.mark.parametrize("name", ["deflate.tif", "chunked.h5"])
def test_files_are_closed_when_their_images_are_gone(tmp_path, small_limits, name):
    LAZY[name](tmp_path / name, pattern("uint16", (130, 170)))
    path = str(tmp_path / name)
    image = read_micrograph(path).image
    assert path in [file.path for file in psutil.Process().open_files()]
    image[:3]
    del image
    assert path not in [file.path for file in psutil.Process().open_files()]


def test_a_thousand_small_files_stay_not_open(tmp_path):
    np.save(tmp_path / "image.npy", pattern("uint16"))
    tifffile.imwrite(tmp_path / "image.tif", pattern("uint16"))
    before = psutil.Process().num_fds()
    kept = [read_micrograph(tmp_path / name) for name in ("image.npy", "image.tif") * 20]
    assert psutil.Process().num_fds() <= before + 2
    assert all(type(micrograph.image) is np.ndarray for micrograph in kept)


def test_a_region_of_a_huge_compressed_tiff_costs_neither_its_time_nor_its_memory(tmp_path):
    path, side = tmp_path / "mosaic.tif", 12_000
    tile = np.arange(512 * 512, dtype=np.uint16).reshape(512, 512)
    count = -(-side // 512)
    shape = (side, side)
    tifffile.imwrite(
        path, (tile for _ in range(count * count)), shape=shape, dtype="uint16", tile=(512, 512), compression="zstd"
    )
    before, started = psutil.Process().memory_info().rss, time.process_time()
    image = read_micrograph(path).image
    np.testing.assert_array_equal(image[10_240:10_752, 11_776:], tile[:, :224])
    assert time.process_time() - started < 2
    assert psutil.Process().memory_info().rss - before < 60 << 20


def test_a_corner_of_a_sparse_mosaic_of_80k_by_240k_pixels_costs_next_to_nothing(tmp_path):
    shape = (80_000, 240_000)
    array = zarr.create_array(tmp_path / "a.zarr", shape=shape, dtype="uint16", chunks=(2048, 2048))
    array[40_000, 120_000:120_010] = 7
    mapped = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", ">u2", shape)
    mapped[40_000, 120_000:120_010] = 7
    del mapped
    before, started = psutil.Process().memory_info().rss, time.process_time()
    for name in ("a.zarr", "a.npy"):
        image = read_micrograph(tmp_path / name).image
        assert isinstance(image, LazyImage) and image.shape == shape
        assert int(image[39_990:40_502, 119_990:120_502].sum()) == 70
    assert time.process_time() - started < 2
    assert psutil.Process().memory_info().rss - before < 256 << 20  # of 38 GB


def test_the_processor_measures_a_lazy_image_as_it_does_the_array(tmp_path, small_limits):
    image = pattern("float32", (130, 170))
    tifffile.imwrite(tmp_path / "image.tif", image, compression="zlib", rowsperstrip=4)
    lazy = read_micrograph(tmp_path / "image.tif").image
    assert isinstance(lazy, LazyImage)
    assert EMImageProcessor().statistics(lazy) == EMImageProcessor().statistics(image)
