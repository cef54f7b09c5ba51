"""Stacks, colour, and containers with several images."""

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from benchmarks.sound_files import pattern
from benchmarks.vendor_files import dm_bytes, ser_bytes
from emfm.errors import EMError
from emfm.io.reading import decode_micrograph, read_micrograph, read_stack

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
    with pytest.raises(EMError, match=r"index is 3; expected 0: it holds one image"):
        read_micrograph(tmp_path / "image.npy", index=3)


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


def test_the_bytes_of_a_stack_are_refused_and_those_of_an_image_become_an_array(tmp_path):
    tifffile.imwrite(tmp_path / "i.tif", STACK[0], imagej=True, resolution=(4, 4), metadata={"unit": "nm"})
    micrograph = decode_micrograph((tmp_path / "i.tif").read_bytes(), "row 3")
    np.testing.assert_array_equal(micrograph.image, STACK[0])
    assert (micrograph.pixel_size, micrograph.name, micrograph.image.flags.writeable) == (0.25, "row 3", True)
    write_tiff(tmp_path / "s.tif")
    with pytest.raises(EMError, match=r"row 4: a stack of shape \(5, 40, 50\)"):
        decode_micrograph((tmp_path / "s.tif").read_bytes(), "row 4")
