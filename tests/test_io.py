import pickle
import stat
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from emfm.errors import EMError
from emfm.files import write_atomically, write_text
from emfm.io.reading import SUFFIXES, list_micrographs, read_micrograph
from emfm.io.writing import write_image

INTEGERS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
EVERY_DTYPE = ("bool", *INTEGERS, "float16", "float32", "float64")


def random_image(dtype: str = "uint8", shape: tuple[int, ...] = (9, 14)) -> np.ndarray:
    rng = np.random.default_rng(0)
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 100, shape).astype(dtype)
    return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", EVERY_DTYPE)
@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_tiff_and_npy_return_every_dtype_as_it_was_written(tmp_path, suffix, dtype):
    path, image = tmp_path / f"image{suffix}", random_image(dtype)
    if suffix == ".npy":
        np.save(path, image)
    else:
        tifffile.imwrite(path, image)
    micrograph = read_micrograph(path)
    assert_same(micrograph.image, image)
    assert (micrograph.name, micrograph.pixel_size) == (path.name, None)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16"])
def test_png_returns_every_dtype_as_it_was_written(tmp_path, dtype):
    image = random_image(dtype)
    Image.fromarray(image).save(tmp_path / "image.png")
    assert_same(read_micrograph(tmp_path / "image.png").image, image)


@pytest.mark.parametrize("dtype", EVERY_DTYPE)
def test_write_image_keeps_every_dtype_in_tiff(tmp_path, dtype):
    image = random_image(dtype)
    write_image(tmp_path / "image.tiff", image)
    assert_same(tifffile.imread(tmp_path / "image.tiff"), image)
    assert_same(read_micrograph(str(tmp_path / "image.tiff")).image, image)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16"])
def test_write_image_keeps_its_dtypes_in_png(tmp_path, dtype):
    image = random_image(dtype)
    write_image(tmp_path / "image.png", image)
    with Image.open(tmp_path / "image.png") as picture:
        assert_same(np.asarray(picture), image)


def test_write_image_writes_colour_pictures(tmp_path):
    image = random_image("uint8", (9, 14, 3))
    write_image(tmp_path / "overlay.png", image)
    with Image.open(tmp_path / "overlay.png") as picture:
        assert_same(np.asarray(picture), image)


@pytest.mark.parametrize("compression", ["zlib", "adobe_deflate"])
def test_a_compressed_big_endian_tiff_has_the_same_values(tmp_path, compression):
    image = random_image("uint16")
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, image.astype(">u2"), byteorder=">", compression=compression, predictor=True)
    np.testing.assert_array_equal(read_micrograph(path).image, image)


def test_jpeg_returns_the_values_that_its_decoder_gives(tmp_path):
    image = np.repeat(np.repeat(random_image(shape=(3, 4)), 16, axis=0), 16, axis=1)
    for name in ("image.jpg", "image.JPEG"):
        Image.fromarray(image).save(tmp_path / name, quality=95)
        with Image.open(tmp_path / name) as picture:
            assert_same(read_micrograph(tmp_path / name).image, np.asarray(picture))
        assert np.abs(read_micrograph(tmp_path / name).image.astype(int) - image).max() < 20


@pytest.mark.parametrize(
    ("mode", "suffix"), [("RGB", ".png"), ("RGBA", ".png"), ("P", ".png"), ("RGB", ".tif"), ("RGBA", ".tif")]
)
def test_grey_stored_as_colour_is_read_as_grey(tmp_path, mode, suffix):
    image = random_image()
    Image.fromarray(image).convert(mode).save(tmp_path / f"image{suffix}")
    assert_same(read_micrograph(tmp_path / f"image{suffix}").image, image)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_colour_image_is_refused_with_the_name_of_its_file(tmp_path, mode):
    Image.fromarray(random_image("uint8", (9, 14, 3))).convert(mode).save(tmp_path / "picture.png")
    with pytest.raises(EMError, match=r"picture\.png: a colour image.*greyscale"):
        read_micrograph(tmp_path / "picture.png")


def test_colour_in_tiff_and_npy_is_refused_with_the_name_of_the_file(tmp_path):
    colour = random_image("uint8", (9, 14, 3))
    tifffile.imwrite(tmp_path / "picture.tif", colour, photometric="rgb")
    np.save(tmp_path / "picture.npy", colour)
    for name in ("picture.tif", "picture.npy"):
        with pytest.raises(EMError, match=f"{name}: a colour image"):
            read_micrograph(tmp_path / name)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_a_cmyk_picture_is_never_read_as_an_empty_micrograph(tmp_path, suffix):
    """Ink colours have equal channels where the picture is grey: all of it stands in the fourth one."""
    path = tmp_path / f"print{suffix}"
    Image.fromarray(random_image(shape=(32, 32))).convert("CMYK").save(path)
    with pytest.raises(EMError, match=path.name):
        read_micrograph(path)


@pytest.mark.parametrize(
    "options", [{}, {"imagej": True}, {"ome": True}, {"metadata": None}, {"bigtiff": True, "compression": "zlib"}]
)
def test_a_tiff_stack_is_refused_with_its_shape(tmp_path, options):
    tifffile.imwrite(tmp_path / "stack.tif", random_image("uint8", (5, 9, 14)), photometric="minisblack", **options)
    with pytest.raises(EMError, match=r"stack\.tif.*stack of shape \(5, 9, 14\)"):
        read_micrograph(tmp_path / "stack.tif")


def test_a_tiff_stack_written_frame_by_frame_is_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "frames.tif") as writer:
        for frame in random_image("uint8", (5, 9, 14)):
            writer.write(frame)
    with pytest.raises(EMError, match=r"frames\.tif.*stack"):
        read_micrograph(tmp_path / "frames.tif")


def test_a_tiff_stack_written_by_pil_is_refused(tmp_path):
    first, *others = (Image.fromarray(frame) for frame in random_image("uint8", (5, 9, 14)))
    first.save(tmp_path / "frames.tif", save_all=True, append_images=others)
    with pytest.raises(EMError, match=r"frames\.tif.*stack"):
        read_micrograph(tmp_path / "frames.tif")


@pytest.mark.parametrize("shape", [(9,), (0, 5), (), (3, 0, 5)])
def test_an_npy_file_that_is_not_one_image_is_refused_with_its_shape(tmp_path, shape):
    np.save(tmp_path / "array.npy", np.zeros(shape, np.uint8))
    with pytest.raises(EMError, match=r"array\.npy: shape"):
        read_micrograph(tmp_path / "array.npy")


@pytest.mark.parametrize("shape", [(1, 9, 14), (9, 14, 1), (1, 1, 9, 14)])
def test_axes_of_length_one_are_dropped(tmp_path, shape):
    image = random_image("float32")
    np.save(tmp_path / "array.npy", image.reshape(shape))
    assert_same(read_micrograph(tmp_path / "array.npy").image, image)


def test_an_npy_file_of_complex_numbers_is_refused_with_its_dtype(tmp_path):
    np.save(tmp_path / "wave.npy", np.ones((4, 4), np.complex64))
    with pytest.raises(EMError, match=r"wave\.npy: dtype complex64"):
        read_micrograph(tmp_path / "wave.npy")


class Intruder:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("content", ["an object array", "a bare pickle"])
def test_an_npy_file_with_pickled_objects_is_refused_and_not_run(tmp_path, content):
    path, intruder = tmp_path / "objects.npy", Intruder(tmp_path / "ran")
    if content == "an object array":
        np.save(path, np.array([[intruder]], object), allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(intruder))
    with pytest.raises(EMError, match=r"objects\.npy: the file is damaged"):
        read_micrograph(path)
    assert not (tmp_path / "ran").exists()


def encoded(tmp_path: Path, kind: str) -> tuple[Path, bytes]:
    """Return a path to write damaged content to, and the bytes of a sound file of the kind."""
    image = random_image(shape=(64, 64))
    path = tmp_path / f"damaged.{kind.split('-')[0]}"
    if path.suffix == ".npy":
        np.save(path, image)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, image, compression="zlib" if kind.endswith("zlib") else None)
    else:
        Image.fromarray(image).save(path)
    return path, path.read_bytes()


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "tif-zlib", "npy"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9])
def test_a_truncated_file_is_refused_with_its_name(tmp_path, kind, share):
    path, content = encoded(tmp_path, kind)
    path.write_bytes(content[: int(share * len(content))])
    why = f"damaged or not a {path.suffix[1:].upper()} image" if share else "empty"
    with pytest.raises(EMError, match=f"{path.name}: the file is {why}"):
        read_micrograph(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_other_content_is_refused_with_its_name(tmp_path, suffix):
    path = tmp_path / f"notes{suffix}"
    notes = path if suffix != ".zarr" else path / "zarr.json"
    notes.parent.mkdir(exist_ok=True)
    notes.write_bytes(b"these are notes, not an image " * 20)
    with pytest.raises(EMError, match=f"{path.name}: the file is damaged or not a"):
        read_micrograph(path)


def test_a_missing_file_a_folder_and_an_unknown_suffix_are_refused_with_the_path(tmp_path):
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "image.gif").write_bytes(b"")
    for name, message in (
        ("missing.tif", r"there is no file .*missing\.tif"),
        ("folder.tif", r"folder\.tif is a folder; expected a file"),
        ("image.gif", r"image\.gif: cannot read '\.gif' files; supported: \.png"),
    ):
        with pytest.raises(EMError, match=message):
            read_micrograph(tmp_path / name)


@pytest.mark.parametrize(
    ("unit", "nanometres"),
    [("um", 500.0), ("micron", 500.0), ("\\u00b5m", 500.0), ("nm", 0.5), ("pixel", None), ("inch", None)],
)
def test_the_pixel_size_follows_the_unit_of_an_imagej_tiff(tmp_path, unit, nanometres):
    path = tmp_path / "j.tif"
    tifffile.imwrite(path, random_image("uint16"), imagej=True, resolution=(2, 2), metadata={"unit": unit})
    assert read_micrograph(path).pixel_size == pytest.approx(nanometres)


def test_an_imagej_tiff_without_a_unit_has_no_pixel_size(tmp_path):
    tifffile.imwrite(tmp_path / "j.tif", random_image("uint16"), imagej=True, resolution=(2, 2))
    assert read_micrograph(tmp_path / "j.tif").pixel_size is None


@pytest.mark.parametrize(
    ("per_unit", "unit", "nanometres"),
    [
        (2e7, "CENTIMETER", 0.5),
        (4e6, "CENTIMETER", 2.5),
        (2.54e7, "INCH", 1.0),
        (2e7, "NONE", None),
        (0, "CENTIMETER", None),
    ],
)
def test_the_pixel_size_follows_the_resolution_of_a_tiff(tmp_path, per_unit, unit, nanometres):
    resolution = (per_unit, per_unit) if per_unit else ((0, 1), (0, 1))
    tifffile.imwrite(tmp_path / "image.tif", random_image(), resolution=resolution, resolutionunit=unit)
    assert read_micrograph(tmp_path / "image.tif").pixel_size == pytest.approx(nanometres)


@pytest.mark.parametrize("dpi", [72, 96, 300, 600, 1200])
def test_the_resolution_of_a_printer_is_not_a_pixel_size(tmp_path, dpi):
    tifffile.imwrite(tmp_path / "image.tif", random_image(), resolution=(dpi, dpi), resolutionunit="INCH")
    assert read_micrograph(tmp_path / "image.tif").pixel_size is None


@pytest.mark.parametrize("pixel_size", [0.0123, 0.35, 1.0, 37.5, 1234.5])
def test_write_image_keeps_the_pixel_size_in_tiff(tmp_path, pixel_size):
    image = random_image("float32")
    write_image(tmp_path / "image.tif", image, pixel_size)
    micrograph = read_micrograph(tmp_path / "image.tif")
    assert micrograph.pixel_size == pytest.approx(pixel_size, rel=1e-6)
    assert_same(micrograph.image, image)


def test_micrographs_are_listed_by_path_in_subfolders_too_and_other_files_are_not(tmp_path):
    names = ["b.PNG", "a.tif", "sub/c.npy", "sub/deeper/d.jpeg", "z.tiff"]
    for name in [*names, "notes.txt", "sub/table.csv"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert list_micrographs(tmp_path) == sorted(tmp_path / name for name in names)


def test_a_missing_folder_and_one_without_images_are_refused_with_their_path(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    with pytest.raises(EMError, match=r"there is no folder .*nowhere"):
        list_micrographs(tmp_path / "nowhere")
    with pytest.raises(EMError, match=r"empty holds no image; looked for \.png"):
        list_micrographs(str(tmp_path / "empty"))


@pytest.mark.parametrize("existing", [None, "old"])
def test_a_write_that_fails_leaves_the_folder_as_it_was(tmp_path, existing):
    path = tmp_path / "result.txt"
    if existing:
        path.write_text(existing)

    def half(temporary: Path) -> None:
        temporary.write_text("half of the")
        raise OSError("the disk is full")

    with pytest.raises(EMError, match=r"cannot write \S*result.txt: the disk is full"):
        write_atomically(path, half)
    left = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert left == ({"result.txt": existing} if existing else {})


def test_the_old_file_stands_until_the_new_one_is_complete(tmp_path):
    path, seen = tmp_path / "result.txt", []
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        seen.append((temporary.parent, temporary.suffix, path.read_text()))

    write_atomically(path, write)
    assert seen == [(tmp_path, ".txt", "old")]
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"result.txt": "new"}


def test_text_is_written_as_utf8_readable_by_others_with_missing_folders_created(tmp_path):
    path = tmp_path / "a" / "b" / "card.md"
    write_text(path, "Größe: 5 µm\n")
    assert path.read_bytes() == "Größe: 5 µm\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("dtype", ["float32", "int64", "float64"])
def test_an_image_that_png_cannot_hold_is_refused_and_leaves_no_file(tmp_path, dtype):
    with pytest.raises((EMError, OSError, TypeError)):
        write_image(tmp_path / "image.png", random_image(dtype))
    assert list(tmp_path.iterdir()) == []
