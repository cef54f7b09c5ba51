"""Stacks, colour, containers with several images, and images that stay in their file."""

import threading
import time

import h5py
import mrcfile
import numpy as np
import psutil
import pytest
import tifffile
import zarr
from PIL import Image

from benchmarks.sound_files import pattern
from benchmarks.vendor_files import dm_bytes, ser_bytes
from emfm.data import lazy_image
from emfm.data.formats import planes
from emfm.data.io import decode_micrograph, read_micrograph, read_stack
from emfm.data.lazy_image import LazyImage, block_shape
from emfm.errors import EMError

STACK = np.stack([pattern("uint16", (40, 50)) + number for number in range(5)])


def write_tiff(path, **options):
    tifffile.imwrite(path, STACK, **{"photometric": "minisblack", **options})


def write_frames(path):
    with tifffile.TiffWriter(path) as writer:
        for frame in STACK:
            writer.write(frame)


def write_mrc(path):
    with mrcfile.new(path) as file:
        file.set_data(STACK)
        file.voxel_size = 2.5


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=STACK, chunks=(1, 32, 32), compression="gzip")


WRITERS = {
    "plain.tif": (write_tiff, "QYX"),
    "imagej.tif": (lambda path: write_tiff(path, imagej=True, metadata={"axes": "ZYX"}), "ZYX"),
    "ome.tif": (lambda path: write_tiff(path, ome=True, metadata={"axes": "TYX"}), "TYX"),
    "deflate.tif": (lambda path: write_tiff(path, compression="zlib"), "QYX"),
    "bare.tif": (lambda path: write_tiff(path, metadata=None), "IYX"),
    "frames.tif": (write_frames, "IYX"),
    "stack.npy": (lambda path: np.save(path, STACK), "QYX"),
    "stack.mrc": (write_mrc, "ZYX"),
    "stack.h5": (write_hdf5, "QYX"),
    "stack.zarr": (lambda path: zarr.create_array(path, data=STACK, chunks=(2, 32, 32)), "QYX"),
    "stack.dm4": (lambda path: path.write_bytes(dm_bytes(STACK, 0.25)), "ZYX"),
    "stack.ser": (lambda path: path.write_bytes(ser_bytes(STACK, 0.25)), "QYX"),
}


@pytest.fixture(params=WRITERS)
def stack(request, tmp_path):
    if request.param.endswith((".dm4", ".ser")):
        pytest.importorskip("rsciio")
    write, axes = WRITERS[request.param]
    write(tmp_path / request.param)
    return tmp_path / request.param, axes


def test_a_stack_gives_the_slice_that_is_asked_for(stack):
    path, axes = stack
    for index in (0, 3, -1):
        micrograph = read_micrograph(path, index=index)
        np.testing.assert_array_equal(micrograph.image, STACK[index])
        assert (micrograph.axes, micrograph.index) == (axes, index % 5)
        assert micrograph.image.dtype == np.uint16


def test_a_stack_without_an_index_is_refused_with_the_number_of_slices_and_the_fix(stack):
    path, axes = stack
    message = rf"{path.name}: a stack of shape \(5, 40, 50\), axes {axes}, with 5 slices; .*index=0 to 4 \(--index\)"
    with pytest.raises(EMError, match=message):
        read_micrograph(path)


@pytest.mark.parametrize("index", [5, -6, 100])
def test_an_index_beyond_the_stack_is_refused_with_what_there_is(tmp_path, index):
    np.save(tmp_path / "stack.npy", STACK)
    with pytest.raises(EMError, match=rf"stack\.npy: index is {index}; expected 0 to 4, or -5 to -1"):
        read_micrograph(tmp_path / "stack.npy", index=index)


def test_a_stack_is_gone_through_slice_by_slice(stack):
    slices = list(read_stack(stack[0]))
    assert [micrograph.index for micrograph in slices] == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(np.stack([micrograph.image for micrograph in slices]), STACK)


def test_one_image_is_a_stack_of_one_without_index(tmp_path):
    np.save(tmp_path / "image.npy", STACK[0])
    (only,) = read_stack(tmp_path / "image.npy")
    np.testing.assert_array_equal(only.image, STACK[0])
    assert only.index is None
    assert read_micrograph(tmp_path / "image.npy", index=-1).index is None


def test_several_axes_count_through_all_slices_the_last_fastest(tmp_path):
    volume = np.arange(2 * 3 * 6 * 7, dtype=np.uint16).reshape(2, 3, 6, 7)
    tifffile.imwrite(tmp_path / "h.tif", volume, imagej=True, metadata={"axes": "TCYX"})
    zarr.create_array(tmp_path / "h.zarr", data=volume)
    for name, axes in (("h.tif", "TCYX"), ("h.zarr", "QQYX")):
        micrograph = read_micrograph(tmp_path / name, index=4)
        np.testing.assert_array_equal(micrograph.image, volume[1, 1])
        assert micrograph.axes == axes


def test_a_narrow_slice_of_an_mrc_volume_is_no_colour_image(tmp_path):
    with mrcfile.new(tmp_path / "narrow.mrc") as file:
        file.set_data(np.arange(60, dtype=np.int16).reshape(4, 5, 3))
    assert read_micrograph(tmp_path / "narrow.mrc", index=1).image.shape == (5, 3)


def colour_image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def colour_files(folder):
    image = colour_image()
    Image.fromarray(image).save(folder / "a.png")
    tifffile.imwrite(folder / "b.tif", image, photometric="rgb")
    tifffile.imwrite(folder / "c.tif", image.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    tifffile.imwrite(folder / "d.tif", image, photometric="rgb", compression="zlib", tile=(16, 16))
    np.save(folder / "e.npy", image)
    return sorted(folder.iterdir())


@pytest.mark.parametrize(
    ("rule", "weights"), [("luminance", (0.299, 0.587, 0.114)), ("mean", (1 / 3,) * 3), ("green", (0, 1, 0))]
)
def test_colour_is_refused_by_default_and_converted_by_a_named_rule(tmp_path, rule, weights):
    expected = np.rint(colour_image() @ np.array(weights)).astype(np.uint8)
    for path in colour_files(tmp_path):
        with pytest.raises(EMError, match=rf"{path.name}: a colour image.*colour='luminance'"):
            read_micrograph(path)
        np.testing.assert_array_equal(read_micrograph(path, colour=rule).image, expected)


def test_a_rule_that_is_none_is_refused_with_those_there_are(tmp_path):
    np.save(tmp_path / "image.npy", STACK[0])
    with pytest.raises(EMError, match="colour is 'grey'; expected luminance, mean, red, green, blue"):
        read_micrograph(tmp_path / "image.npy", colour="grey")


def test_grey_with_alpha_is_grey(tmp_path):
    grey = pattern("uint8")
    Image.fromarray(grey).convert("LA").save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_micrograph(tmp_path / "a.png").image, grey)
    tifffile.imwrite(tmp_path / "a.tif", np.dstack([grey, grey // 2]), photometric="minisblack", extrasamples=[2])
    np.testing.assert_array_equal(read_micrograph(tmp_path / "a.tif").image, grey)


def test_a_palette_of_colours_is_no_micrograph_but_imagej_colours_what_was_measured(tmp_path):
    image, palette = pattern("uint8"), np.random.default_rng(0).integers(0, 2**16, (3, 256), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "p.tif", image, photometric="palette", colormap=palette)
    with pytest.raises(EMError, match=r"p\.tif: a colour image"):
        read_micrograph(tmp_path / "p.tif")
    shown = (palette >> 8).T[image]
    expected = np.rint(shown @ np.array((0.299, 0.587, 0.114))).astype(np.uint8)
    np.testing.assert_array_equal(read_micrograph(tmp_path / "p.tif", colour="luminance").image, expected)
    ramp = np.stack([np.arange(256, dtype=np.uint16) * 257] * 3)
    tifffile.imwrite(tmp_path / "grey.tif", image, photometric="palette", colormap=ramp)
    np.testing.assert_array_equal(read_micrograph(tmp_path / "grey.tif").image, image)
    tifffile.imwrite(tmp_path / "fire.tif", image, imagej=True, colormap=palette)
    np.testing.assert_array_equal(read_micrograph(tmp_path / "fire.tif").image, image)


def several(path):
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["volumes/raw"] = STACK
            file["volumes/labels"] = STACK[0] > 9
            file["table"] = np.arange(3)
    else:
        group = zarr.open_group(path, mode="w")
        group.create_array("raw", data=STACK)
        group.create_array("labels", data=STACK[0] > 9)


@pytest.mark.parametrize(("name", "inside"), [("c.h5", "volumes/"), ("c.zarr", "")])
def test_a_container_of_several_images_is_refused_with_their_names_and_gives_the_one_named(tmp_path, name, inside):
    path = tmp_path / name
    several(path)
    with pytest.raises(EMError, match=rf"{name} holds 2.*labels \(40, 50\) bool.*raw \(5, 40, 50\) uint16.*dataset="):
        read_micrograph(path)
    np.testing.assert_array_equal(read_micrograph(path, dataset=f"{inside}labels").image, STACK[0] > 9)
    np.testing.assert_array_equal(read_micrograph(f"{path}::{inside}raw", index=2).image, STACK[2])
    with pytest.raises(EMError, match=rf"{name} has no dataset '{inside}row'.*{inside}raw"):
        read_micrograph(f"{path}::{inside}row")


def test_a_dataset_of_a_format_that_has_none_and_one_given_twice_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", STACK[0])
    with pytest.raises(EMError, match=r"a\.npy: '\.npy' files hold no named datasets, got dataset='raw'"):
        read_micrograph(tmp_path / "a.npy", dataset="raw")
    with pytest.raises(EMError, match="give it once"):
        read_micrograph(tmp_path / "a.h5::raw", dataset="raw")


def test_zarr_chunks_that_run_what_a_file_tells_them_to_are_refused_and_not_run(tmp_path):
    import pickle

    path = tmp_path / "evil.zarr"
    array = zarr.create_array(path, shape=(8, 8), chunks=(8, 8), dtype="uint8", zarr_format=2, compressors=None)
    array[:] = 1
    metadata = (path / ".zarray").read_text().replace('"compressor": null', '"compressor": {"id": "pickle"}')
    (path / ".zarray").write_text(metadata)
    marker = tmp_path / "ran"
    program = b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR."
    (path / "0.0").write_bytes(program)
    with pytest.raises(EMError, match=r"evil\.zarr: .*pickle"):
        read_micrograph(path)
    assert not marker.exists()
    pickle.loads(program)  # it would have run
    assert marker.exists()


def test_a_zarr_codec_that_is_not_known_to_be_harmless_is_refused_by_its_name(tmp_path):
    path = tmp_path / "odd.zarr"
    zarr.create_array(path, data=STACK[0], zarr_format=2, compressors=None)
    metadata = (path / ".zarray").read_text().replace('"compressor": null', '"compressor": {"id": "base64"}')
    (path / ".zarray").write_text(metadata)
    with pytest.raises(EMError, match=r"odd\.zarr: its chunks are encoded with base64, which is not read for safety"):
        read_micrograph(path)


def test_hdf5_values_that_lie_in_other_files_are_refused(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(64))
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file.create_dataset("raw", (8, 8), "uint8", external=[(str(tmp_path / "secret"), 0, 64)])
    with pytest.raises(EMError, match=r"outside\.h5: 'raw' keeps its values in other files|outside\.h5: '/raw' keeps"):
        read_micrograph(tmp_path / "outside.h5")


@pytest.fixture
def small_limits(monkeypatch):
    """Images over 1 KiB stay in their file, blocks have 2 KiB and 8 KiB of them are kept."""
    monkeypatch.setattr(planes, "WHOLE_BYTES", 1 << 10)
    monkeypatch.setattr(lazy_image, "BLOCK_BYTES", 2 << 10)
    monkeypatch.setattr(lazy_image, "CACHE_BYTES", 8 << 10)


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
    assert lazy._kept_bytes <= lazy_image.CACHE_BYTES


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


def test_a_block_is_read_once_for_neighbouring_regions():
    image, boxes = pattern("uint16", (64, 64)), []

    def read(top, bottom, left, right):
        boxes.append((top, bottom, left, right))
        return image[top:bottom, left:right]

    lazy = LazyImage(image.shape, image.dtype, (16, 16), read)
    lazy._block = (16, 16)
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
    np.save(tmp_path / "image.npy", STACK[0])
    tifffile.imwrite(tmp_path / "image.tif", STACK[0])
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


def test_the_bytes_of_a_stack_are_refused_and_those_of_an_image_become_an_array(tmp_path):
    tifffile.imwrite(tmp_path / "i.tif", STACK[0], imagej=True, resolution=(4, 4), metadata={"unit": "nm"})
    micrograph = decode_micrograph((tmp_path / "i.tif").read_bytes(), "row 3")
    np.testing.assert_array_equal(micrograph.image, STACK[0])
    assert (micrograph.pixel_size, micrograph.name, micrograph.image.flags.writeable) == (0.25, "row 3", True)
    write_tiff(tmp_path / "s.tif")
    with pytest.raises(EMError, match=r"row 4: a stack of shape \(5, 40, 50\)"):
        decode_micrograph((tmp_path / "s.tif").read_bytes(), "row 4")
