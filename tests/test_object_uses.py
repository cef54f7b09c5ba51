"""Objects are the same whatever the tile and the number of processes, and in every way to use a model."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import yaml
from PIL import Image
from processes import share
from transformers import AutoModelForInstanceSegmentation, pipeline

import emfm.auto  # noqa: F401  (registers the pipelines)
from emfm import EMError, EMFoundationConfig, predict
from emfm.app.runs import Runner
from emfm.cli import main
from emfm.inference.result_files import open_result
from emfm.io.reading import read_micrograph
from emfm.tasks.instances import EMForInstanceSegmentation

KINDS = {0: "rod", 1: "sphere"}


def waves(shape=(600, 700)):
    rows, columns = np.indices(shape)
    noise = np.random.default_rng(0).normal(0, 0.05, shape)
    return (100 * (np.sin(rows / 7) * np.sin(columns / 9 + rows / 90) + noise)).astype(np.float32)


def bumpy_model(image, **fields):
    """A model of random weights whose head takes what one feature has above its median for objects."""
    torch.manual_seed(0)
    model = EMForInstanceSegmentation(EMFoundationConfig.from_name("unet2-rf44", **fields)).eval()
    values = model.processor.normalize(image, model.processor.statistics(image))
    with torch.no_grad():
        feature, other = model.features(torch.from_numpy(values)[None, None])[0][0, :2]
        middle, spread = float(feature.median()), float(feature.std())
        model.object_head.weight.zero_()
        model.object_head.bias.zero_()
        model.object_head.weight[:3, 0] = torch.tensor([10.0, -8.0, 1.0]).view(3, 1, 1) / spread
        model.object_head.bias[:3] = torch.tensor([-10 * middle, 8 * middle, -middle]) / spread + torch.tensor(
            [0, 2.0, 0.2]
        )
        if fields:
            model.object_head.weight[3, 1] = 1.0
            model.object_head.bias[3] = -other.median()
    return model


@pytest.fixture(scope="module")
def image():
    return waves()


@pytest.fixture(scope="module")
def model(image):
    return bumpy_model(image, id2label=KINDS)


@pytest.fixture(scope="module")
def whole(model, image):
    return predict(model, image, tile=1024)


@pytest.mark.parametrize("tile", [256, 512])
def test_ids_and_classes_are_the_same_whatever_the_tile(model, image, whole, tile):
    assert len(np.unique(whole.output)) > 50
    tiled = predict(model, image, tile=tile)
    np.testing.assert_array_equal(tiled.output, whole.output)
    np.testing.assert_array_equal(tiled.object_classes.of, whole.object_classes.of)


def call_emfm(*arguments: str) -> None:
    sys.argv[1:] = arguments
    main()


@pytest.mark.parametrize("form", ["tif", "zarr"])
def test_two_processes_agree_with_one(model, image, whole, form, tmp_path):
    model.save_pretrained(tmp_path / "model")
    np.save(tmp_path / "a.npy", image)
    command = ["predict", "--tile", "256", "--format", form, "--outlines", "--model", str(tmp_path / "model")]
    done = share(call_emfm, *command, "--output", str(tmp_path / "out"), str(tmp_path / "a.npy"), seconds=600)
    assert [process.returncode for process in done] == [0, 0], done[0].stderr[-3000:]
    ids = np.asarray(open_result(tmp_path / "out" / f"a.{form}"))
    assert ids.dtype == np.uint32
    np.testing.assert_array_equal(ids, whole.output)
    summary = json.loads((tmp_path / "out" / "a_summary.json").read_text())
    there = [number for number in np.unique(ids) if number]
    assert summary["objects"] == len(there)
    counted = {label: sum(whole.object_classes.name(number) == label for number in there) for label in KINDS.values()}
    assert {label: found["objects"] for label, found in summary["classes"].items()} == counted
    assert not list((tmp_path / "out").glob(".*"))


def test_a_result_in_zarr_is_read_back_as_the_numbers(model, whole, image, tmp_path):
    from emfm.inference.arguments import PredictArguments
    from emfm.inference.files import predict_files

    tifffile.imwrite(tmp_path / "a.tif", image, resolution=(1e7 / 2, 1e7 / 2), resolutionunit="CENTIMETER")
    (entry,) = predict_files(model, [tmp_path / "a.tif"], tmp_path, PredictArguments(format="zarr"))
    found = read_micrograph(entry["output"])
    np.testing.assert_array_equal(found.image, whole.output)
    assert found.image.dtype == np.uint32 and found.pixel_size == pytest.approx(2)


def test_the_pipeline_gives_a_mask_for_each_object_with_its_class(model, image, whole, tmp_path):
    model.save_pretrained(tmp_path / "model")
    segmenter = pipeline("image-segmentation", model=str(tmp_path / "model"))
    assert type(segmenter.model) is EMForInstanceSegmentation
    found = segmenter(image, subtask="instance")
    ids = np.zeros(image.shape, np.uint32)
    for part in found:
        ids[np.asarray(part["mask"]) == 255] = part["id"]
        assert part["label"] == whole.object_classes.name(part["id"]) and part["score"] is None
    np.testing.assert_array_equal(ids, whole.output)
    with pytest.raises(EMError, match="subtask is 'semantic'; EMForInstanceSegmentation does 'instance'"):
        segmenter(image, subtask="semantic")
    assert type(AutoModelForInstanceSegmentation.from_pretrained(tmp_path / "model")) is EMForInstanceSegmentation


def test_masks_that_would_fill_the_memory_are_refused_with_a_way_out(model, image, monkeypatch, tmp_path):
    model.save_pretrained(tmp_path / "model")
    monkeypatch.setattr("emfm.inference.pipelines.MOST_BYTES", 10**6)
    with pytest.raises(EMError, match=r"objects would take .* GiB; emfm\.predict\(model, image\)\.output holds"):
        pipeline("image-segmentation", model=str(tmp_path / "model"))(image)


def test_the_page_tells_how_many_objects_there_are(model, image, whole, tmp_path):
    model.save_pretrained(tmp_path / "model")
    Image.fromarray(((image + 150) / 300 * 255).astype(np.uint8)).save(tmp_path / "a.png")
    pictures, files, message = Runner({"mine": str(tmp_path / "model")})("mine", str(tmp_path / "a.png"), 0.5)
    names = [Path(file).name for file in files]
    assert {"a.tif", "a_objects.csv", "a_sizes.png"} <= set(names) and pictures[1].shape == (600, 700, 3)
    assert "| all |" in message and "| rod |" in message and "median diameter (nm)" in message


def test_the_exported_network_gives_the_maps_and_the_card_says_what_to_do_with_them(model, tmp_path):
    pytest.importorskip("bioimageio.spec")
    onnxruntime = pytest.importorskip("onnxruntime")
    from emfm.export.bioimageio_package import export_package

    model.save_pretrained(tmp_path / "model")
    assert export_package(tmp_path / "model", tmp_path / "package") < 1e-4
    description = yaml.safe_load((tmp_path / "package" / "rdf.yaml").read_text())
    channels = next(axis for axis in description["outputs"][0]["axes"] if axis["type"] == "channel")
    assert channels["channel_names"] == ["foreground", "boundary", "distance", "rod", "sphere"]
    text = (tmp_path / "package" / "README.md").read_text()
    assert "watershed" in text and "from these middles objects grow" in text
    given = np.load(tmp_path / "package" / "test_input.npy")[0, 0]
    values = model.processor.normalize(given, model.processor.statistics(given))[None, None]
    session = onnxruntime.InferenceSession(tmp_path / "package" / "weights.onnx")
    (found,) = session.run(None, {"image": values.astype(np.float32)})
    np.testing.assert_allclose(found, np.load(tmp_path / "package" / "test_output.npy"), atol=1e-4)
    assert found.min() >= 0 and found.max() <= 1
