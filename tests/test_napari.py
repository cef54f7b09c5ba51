"""The widgets inside of napari, with an offscreen Qt and without a canvas; skipped where napari is not installed."""

import os
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
import torch

import emfm
from emfm.io.writing import write_image

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("npe2", reason="needs emfm[napari]")
pytest.importorskip("napari", reason="needs emfm[napari]")
# without a binding of Qt, or without a library that it needs, such as libEGL
widgets = pytest.importorskip("qtpy.QtWidgets", reason="needs a binding of Qt", exc_type=Exception)
from napari.components import ViewerModel  # noqa: E402
from napari.layers import Image, Labels  # noqa: E402

from emfm.config import EMFoundationConfig  # noqa: E402
from emfm.finetuning.strokes import StrokeSegmenter  # noqa: E402
from emfm.napari.labelling import LabelWidget  # noqa: E402
from emfm.napari.predicting import PredictWidget  # noqa: E402
from emfm.napari.reader import read  # noqa: E402
from emfm.tasks import TASKS  # noqa: E402

MANIFEST = Path(emfm.__file__).parent / "napari" / "napari.yaml"
SMALL = "unet2-rf44"


@pytest.fixture(scope="module")
def application():
    """The application of Qt, which there is once."""
    return widgets.QApplication.instance() or widgets.QApplication([])


@pytest.fixture
def viewer(application):
    """A viewer without a window."""
    return ViewerModel()


@pytest.fixture
def micrograph(tmp_path):
    """A micrograph of 64 x 80 pixels of 2 nm with a bright disc, as a file."""
    rows, columns = np.mgrid[:64, :80]
    disc = np.hypot(rows - 30, columns - 40) < 15
    noise = np.random.default_rng(0).normal(0, 8, disc.shape)
    write_image(tmp_path / "disc.tif", (80 + 90 * disc + noise).astype(np.uint8), 2.0)
    return tmp_path / "disc.tif"


def opened(viewer, path):
    """Return the layer that a file becomes."""
    ((data, settings, _),) = read(str(path))
    return viewer.add_image(data, **settings)


def until_done(background, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while background.running:
        widgets.QApplication.processEvents()
        time.sleep(0.01)
        assert time.monotonic() < end, background.text
    widgets.QApplication.processEvents()


def saved(task: str, folder: Path, **fields) -> Path:
    """Save a network with random weights."""
    torch.manual_seed(0)
    TASKS[task](EMFoundationConfig.from_name(SMALL, **fields)).save_pretrained(folder)
    return folder


def predicted(viewer, model) -> Image | Labels:
    """Return the layer that the widget adds."""
    widget = PredictWidget(viewer)
    widget.model.name = str(model)
    widget.predict()
    until_done(widget.background)
    return viewer.layers[-1]


def test_classes_become_a_layer_of_labels_equal_to_those_of_predict(viewer, micrograph, tmp_path):
    model = saved("segmentation", tmp_path / "model", id2label={0: "background", 1: "disc"})
    image = opened(viewer, micrograph)
    labels = predicted(viewer, model)
    np.testing.assert_array_equal(labels.data, emfm.predict(model, micrograph).output)
    assert isinstance(labels, Labels) and set(np.unique(labels.data)) == {0, 1}
    np.testing.assert_allclose(labels.scale, [2, 2])
    assert labels.units == image.units and str(labels.units[0]) == "nanometer"
    assert list(labels.features["class"]) == ["background", "disc"]
    np.testing.assert_allclose(labels.get_color(1)[:3], np.array([230, 159, 0]) / 255, atol=1e-6)


def test_a_restoration_becomes_an_image_of_finer_pixels(viewer, micrograph, tmp_path):
    model = saved("super-resolution", tmp_path / "model", scale=2)
    opened(viewer, micrograph)
    restored = predicted(viewer, model)
    assert isinstance(restored, Image)
    np.testing.assert_array_equal(restored.data, emfm.predict(model, micrograph).output)
    np.testing.assert_allclose(restored.scale, [1, 1])
    np.testing.assert_allclose(restored.extent.world, viewer.layers[0].extent.world + [[0.0] * 2] * 2, atol=1)


def test_objects_and_every_slice_of_a_stack(viewer, micrograph, tmp_path):
    model = saved("instances", tmp_path / "model")
    image = emfm.read_micrograph(micrograph).image
    viewer.add_image(np.stack([image, image[::-1], image[:, ::-1]]), scale=(5, 2, 2), units=("pixel", "nm", "nm"))
    widget = PredictWidget(viewer)
    widget.model.name = str(model)
    viewer.dims.set_current_step(0, 1)
    widget.predict()
    until_done(widget.background)
    one = viewer.layers[-1]
    np.testing.assert_array_equal(one.data[0], emfm.predict(model, np.ascontiguousarray(image[::-1])).output)
    np.testing.assert_allclose(one.translate, [5, 0, 0])
    widget.every_slice.setChecked(True)
    widget.predict()
    until_done(widget.background)
    assert viewer.layers[-1].data.shape == (3, 64, 80)
    np.testing.assert_array_equal(viewer.layers[-1].data[1], one.data[0])
    np.testing.assert_allclose(viewer.layers[-1].scale, [5, 2, 2])


def test_what_a_user_can_mend_is_a_notification_of_one_line(viewer, micrograph, monkeypatch):
    widget = PredictWidget(viewer)
    told = []
    monkeypatch.setattr("emfm.napari.parts.show_error", told.append)
    widget.predict()
    opened(viewer, micrograph)
    widget.model.name = "no-such-model"
    widget.predict()
    until_done(widget.background)
    assert told[0] == "there is no image layer: open a micrograph first"
    assert told[1].startswith("there is no model 'no-such-model'") and "\n" not in told[1]
    assert len(viewer.layers) == 1 and widget.button.isEnabled()


def stroked(viewer, micrograph, **chosen) -> LabelWidget:
    """Return the widget, with strokes on disc and background."""
    opened(viewer, micrograph)
    widget = LabelWidget(viewer)
    widget.model.name = chosen.get("model", "unet4-rf200")
    widget.classes.setText("background, disc")
    widget.new_strokes()
    widget.strokes.value.data[5, 5:60] = 1
    widget.strokes.value.data[30, 30:50] = 2
    return widget


def test_a_segmentation_from_strokes_is_that_of_the_segmenter(viewer, micrograph):
    widget = stroked(viewer, micrograph)
    strokes = widget.strokes.value
    np.testing.assert_allclose(strokes.scale, [2, 2])
    widget.segment()
    until_done(widget.segmenting)
    segmenter = StrokeSegmenter("unet4-rf200", ["background", "disc"])
    image = emfm.read_micrograph(micrograph).image
    segmenter.fit({"disc": image}, {"disc": strokes.data.astype(np.int16) - 1})
    classes, probability = segmenter.segment("disc")
    found = viewer.layers["disc segmentation"]
    np.testing.assert_array_equal(found.data, classes + 1)
    np.testing.assert_array_equal(viewer.layers["disc sureness"].data, probability.max(axis=0))
    np.testing.assert_allclose(found.scale, [2, 2])
    assert found.data[30, 40] == 2 and found.data[5, 5] == 1
    assert widget.strokes.value is strokes
    widget.segment()  # again: the layer is replaced
    until_done(widget.segmenting)
    assert [layer.name for layer in viewer.layers].count("disc segmentation") == 1


def test_training_leaves_a_model_folder_and_can_be_stopped(viewer, micrograph, tmp_path):
    widget = stroked(viewer, micrograph, model=SMALL)
    widget.folder.setText(str(tmp_path / "session"))
    widget.steps.setValue(100_000)
    widget.train()
    end = time.monotonic() + 120
    while widget.training._bar.value() < 2 and time.monotonic() < end:
        widgets.QApplication.processEvents()
        time.sleep(0.01)
    widget.training.stop()
    until_done(widget.training)
    model = tmp_path / "session" / "training-1" / "model"
    assert widget.model.name == str(model) and "saved as" in widget.training.text
    trained = emfm.EMForSemanticSegmentation.from_pretrained(model)
    assert trained.classes == {0: "background", 1: "disc"}
    assert emfm.predict(model, micrograph).output.shape == (64, 80)


def test_npe2_finds_no_fault():
    named = [entry.name for entry in entry_points(group="napari.manifest")]
    subjects = [str(MANIFEST)] + (["emfm"] if "emfm" in named else [])
    for subject in subjects:
        done = subprocess.run([sys.executable, "-m", "npe2", "validate", subject], capture_output=True, text=True)
        assert done.returncode == 0 and "valid!" in done.stdout, done.stdout + done.stderr
