"""Files become layers for napari as `read_micrograph` reads them; napari itself is not needed for that."""

import json
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import zarr

import emfm
from emfm.errors import EMError
from emfm.io.reading import SUFFIXES, read_micrograph, read_stack
from emfm.io.writing import write_image
from emfm.napari import reader
from emfm.napari.layers import DATA_BAR, Source, class_settings, image_layer, pixel_size_of
from emfm.napari.reader import Stack, get_reader
from emfm.napari.strokes import class_names, painted, write_labelled_folder

MANIFEST = Path(emfm.__file__).parent / "napari" / "napari.yaml"
ROOT = Path(__file__).parent.parent


def layer_of(path: Path):
    """Return the data and the settings of the one layer that a file becomes."""
    ((data, settings, kind),) = get_reader(str(path))(str(path))
    assert kind == "image"
    return data, settings


def layer(data: np.ndarray, **settings) -> SimpleNamespace:
    """Return what the plugin asks of a layer of napari."""
    of_layer = {"name": "layer", "rgb": False, "multiscale": False, "metadata": {}, "axis_labels": ("y", "x")}
    of_layer |= {"scale": np.ones(data.ndim), "translate": np.zeros(data.ndim), "units": ("pixel",) * data.ndim}
    return SimpleNamespace(**{"data": data, **of_layer, **settings})


@pytest.fixture
def stack(tmp_path):
    """A TIFF stack of 3 slices with pixels of 0.5 nm."""
    path = tmp_path / "stack.tif"
    values = np.arange(3 * 7 * 9, dtype=np.uint16).reshape(3, 7, 9)
    tifffile.imwrite(path, values, imagej=True, resolution=(2000, 2000), metadata={"unit": "um", "axes": "ZYX"})
    return path


def test_an_image_has_its_pixel_size_as_scale_in_nanometres(tmp_path):
    path = tmp_path / "a.tif"
    write_image(path, np.arange(12, dtype=np.uint16).reshape(3, 4), 2.5)
    data, settings = layer_of(path)
    np.testing.assert_array_equal(data, read_micrograph(path).image)
    assert data.dtype == np.uint16 and settings["name"] == "a"
    assert settings["scale"] == pytest.approx((2.5, 2.5)) and settings["units"] == ("nm", "nm")


def test_without_a_pixel_size_there_is_no_scale(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.eye(4, dtype=np.float32))
    data, settings = layer_of(path)
    np.testing.assert_array_equal(data, np.eye(4))
    assert "scale" not in settings and "units" not in settings


def test_a_stack_is_one_layer_with_its_slices_first(stack):
    data, settings = layer_of(stack)
    np.testing.assert_array_equal(data, [part.image for part in read_stack(stack)])
    assert settings["scale"] == pytest.approx((1, 0.5, 0.5)) and settings["units"] == ("pixel", "nm", "nm")
    assert settings["axis_labels"] == ("z", "y", "x")


def test_a_large_stack_is_read_slice_by_slice(stack, monkeypatch):
    whole, _ = layer_of(stack)
    monkeypatch.setattr(reader, "STACK_BYTES", 100)
    data, _ = layer_of(stack)
    assert isinstance(data, Stack) and data.shape == whole.shape and data.dtype == whole.dtype
    for index in (1, -1, (0, slice(2, 5)), (slice(1, 3), ..., 3), (..., slice(None, None, 2)), ()):
        np.testing.assert_array_equal(data[index], whole[index], err_msg=str(index))
    np.testing.assert_array_equal(np.asarray(data), whole)


def test_a_large_image_comes_with_smaller_copies_of_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "WHOLE_PIXELS", 500)
    path, image = tmp_path / "a.npy", np.arange(40 * 30, dtype=np.uint16).reshape(40, 30)
    np.save(path, image)
    data, settings = layer_of(path)
    assert settings["multiscale"] and [level.shape for level in data] == [(40, 30), (10, 8), (3, 2)]
    np.testing.assert_array_equal(data[1], image[::4, ::4])


def test_zarr_folders_and_several_files_are_read_and_other_formats_left_alone(tmp_path):
    zarr.save_array(tmp_path / "a.zarr", np.eye(5, dtype=np.uint8))
    np.save(tmp_path / "b.npy", np.ones((2, 3)))
    paths = [str(tmp_path / "a.zarr"), str(tmp_path / "b.npy")]
    first, second = get_reader(paths)(paths)
    np.testing.assert_array_equal(first[0], np.eye(5))
    assert second[0].shape == (2, 3) and second[1]["name"] == "b"
    assert get_reader("a.txt") is None and get_reader(str(tmp_path)) is None


def test_a_damaged_file_is_one_line(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + bytes(20))
    with pytest.raises(EMError, match=r"a.tif: the file is damaged") as caught:
        get_reader(str(path))(str(path))
    assert "\n" not in str(caught.value)


def test_the_manifest_names_every_suffix_and_lies_where_the_package_says():
    text = MANIFEST.read_text("utf-8")
    assert [line.strip() for line in text.splitlines() if '"*.' in line] == [f'- "*{suffix}"' for suffix in SUFFIXES]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["entry-points"]["napari.manifest"] == {"emfm": "emfm.napari:napari.yaml"}
    assert "napari/napari.yaml" in project["tool"]["setuptools"]["package-data"]["emfm"]


def test_a_layers_pixel_size_is_known_where_its_unit_is_a_length():
    image = np.zeros((2, 2))
    assert pixel_size_of(layer(image, scale=np.array([0.5, 0.5]), units=("micrometer", "micrometer"))) == 500
    assert pixel_size_of(layer(image, scale=np.array([3.0, 3.0]))) is None


def test_the_result_of_a_slice_lies_where_the_slice_does():
    image = layer(np.zeros((4, 6, 8)), scale=np.array([5.0, 2.0, 2.0]), translate=np.array([1.0, 10.0, 20.0]))
    settings = Source.of(image, (3,)).settings("finer", finer=2)
    np.testing.assert_allclose(settings["scale"], [5, 1, 1])
    # half a large pixel before its middle begins the first small one, whose own half is a quarter
    np.testing.assert_allclose(settings["translate"], [16, 9.5, 19.5])
    assert Source.of(image, (3,)).joined([np.ones((12, 16))]).shape == (1, 12, 16)
    assert Source.of(image, None).joined([np.ones((6, 8))] * 4).shape == (4, 6, 8)


def test_a_layer_in_colour_is_refused():
    with pytest.raises(EMError, match="'layer' is in colour"):
        Source.of(layer(np.zeros((2, 2, 3)), rgb=True), None)


def test_classes_have_names_and_colours():
    look = class_settings({0: "background", 1: "particle"})
    assert look["features"] == {"index": [0, 1], "class": ["background", "particle"]}
    assert look["colormap"][0][3] == 0 and look["colormap"][1][3] == 1 and look["colormap"][None][3] == 0
    np.testing.assert_allclose(look["colormap"][1][:3], np.array([230, 159, 0]) / 255)
    assert class_settings({0: "background", 1: "a"}, first=1, background=True)["colormap"][1][3] == 1


def test_strokes_become_a_labelled_folder_that_emfm_reads(tmp_path):
    data, settings, _ = image_layer(np.arange(48, dtype=np.uint16).reshape(6, 8), "a", 2.0, data_bar=1)
    assert settings["metadata"][DATA_BAR] == 1
    strokes = np.zeros((6, 8), np.uint8)
    strokes[0], strokes[2], strokes[5] = 1, 2, 2  # the last row is the data bar
    image = layer(data, **settings)
    (one,) = painted(image, layer(strokes), ["background", "disc"])
    np.testing.assert_array_equal(one.labels[:, 0], [0, -1, 1, -1, -1])
    write_labelled_folder(tmp_path / "labels", [one], ["background", "disc"])
    found = emfm.load_em_dataset(tmp_path / "labels", "train")
    np.testing.assert_array_equal(found.images[0], data[:5])
    np.testing.assert_array_equal(found.truth(0)[:, 0], [0, -100, 1, -100, -100])
    assert found.id2label == {0: "background", 1: "disc"}
    assert json.loads((tmp_path / "labels" / "labels.json").read_text("utf-8"))["0"] == "ignore"


def test_strokes_of_another_shape_or_class_are_refused():
    image = layer(np.zeros((6, 8)))
    with pytest.raises(EMError, match="of the image's own shape"):
        painted(image, layer(np.ones((5, 8), np.uint8)), ["a", "b"])
    with pytest.raises(EMError, match="holds label 3; expected 1 to 2"):
        painted(image, layer(np.full((6, 8), 3, np.uint8)), ["a", "b"])


@pytest.mark.parametrize("text", ["", "one", "a, A", "a, ignore", "a,,b"])
def test_class_names_are_two_or_more_each_once(text):
    with pytest.raises(EMError):
        class_names(text)
