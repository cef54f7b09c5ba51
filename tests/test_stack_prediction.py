"""Whole stacks, predicted into one volume: values, formats, stopping and going on."""

import json

import numpy as np
import pytest
import tifffile
import torch
import zarr
from test_cli import emfm  # noqa: F401  (a fixture)

from emfm import EMError, EMForDenoising, EMForSemanticSegmentation, EMFoundationConfig, predict
from emfm.inference import stacks
from emfm.inference.arguments import PredictArguments
from emfm.inference.files import predict_files
from emfm.inference.predict import Flow


def stack(count=5, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 250, (count, 48, 64)).astype(dtype)


def segmenter():
    torch.manual_seed(0)
    config = EMFoundationConfig.from_name("unet2-rf44", id2label={0: "background", 1: "particle"})
    return EMForSemanticSegmentation(config).eval()


@pytest.fixture
def given(tmp_path):
    path = tmp_path / "v.tif"
    tifffile.imwrite(
        path, stack(), photometric="minisblack", resolution=(1e7 / 4, 1e7 / 4), resolutionunit="CENTIMETER"
    )
    return path


@pytest.mark.parametrize("form", ["tif", "npy", "zarr"])
def test_a_stack_becomes_one_volume_of_the_results_of_its_slices(form, given, tmp_path):
    model = segmenter()
    (entry,) = predict_files(model, [given], tmp_path / "out", PredictArguments(index="all", format=form))
    target = tmp_path / "out" / f"v.{form}"
    assert entry["output"] == str(target) and not entry["skipped"]
    read = {"tif": tifffile.imread, "npy": np.load, "zarr": lambda path: zarr.open_array(path / "0")[:]}[form]
    volume = read(target)
    assert volume.shape == (5, 48, 64) and volume.dtype == np.uint8
    for number, image in enumerate(stack()):
        np.testing.assert_array_equal(volume[number], predict(model, image).output)
    record = json.loads((tmp_path / "out" / f"v.{form}.json").read_text())
    assert record["shape"] == [5, 48, 64] and record["pixel_size"] == pytest.approx(4.0)
    assert (tmp_path / "out" / "v_overlay.png").is_file() and not (tmp_path / "out" / "v_measurements.csv").exists()
    assert not list((tmp_path / "out").glob(".*"))
    (again,) = predict_files(model, [given], tmp_path / "out", PredictArguments(index="all", format=form))
    assert again["skipped"]


def test_a_restored_volume_keeps_units_and_dtype(tmp_path):
    torch.manual_seed(0)
    model = EMForDenoising(EMFoundationConfig.from_name("unet2-rf44", residual=True)).eval()
    tifffile.imwrite(tmp_path / "v.tif", stack(dtype=np.uint16) * 100, photometric="minisblack")
    predict_files(model, [tmp_path / "v.tif"], tmp_path / "out", PredictArguments(index="all"))
    volume = tifffile.imread(tmp_path / "out" / "v.tif")
    assert volume.dtype == np.uint16 and volume.shape == (5, 48, 64)
    assert np.abs(volume.astype(float) - stack().astype(float) * 100).max() <= 1  # an untrained one returns its input


def test_a_stopped_run_goes_on_with_the_next_slice_and_ends_with_the_same_bytes(given, tmp_path, monkeypatch):
    model, whole = segmenter(), tmp_path / "whole"
    predict_files(model, [given], whole, PredictArguments(index="all"))
    run, done = Flow.run, []

    def stops(self, micrograph, result):
        if micrograph.index == 3:
            raise KeyboardInterrupt
        run(self, micrograph, result)

    monkeypatch.setattr(Flow, "run", stops)
    with pytest.raises(KeyboardInterrupt):
        predict_files(model, [given], tmp_path / "out", PredictArguments(index="all"))
    assert not (tmp_path / "out" / "v.tif").exists()

    def counts(self, micrograph, result):
        done.append(micrograph.index)
        run(self, micrograph, result)

    monkeypatch.setattr(Flow, "run", counts)
    predict_files(model, [given], tmp_path / "out", PredictArguments(index="all"))
    assert done == [3, 4]
    assert (tmp_path / "out" / "v.tif").read_bytes() == (whole / "v.tif").read_bytes()


def test_slices_of_another_model_are_not_used(given, tmp_path, monkeypatch):
    run = Flow.run
    monkeypatch.setattr(stacks.Stack, "_finish", lambda *rest: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        predict_files(segmenter(), [given], tmp_path / "out", PredictArguments(index="all"))
    monkeypatch.undo()
    other, done = segmenter(), []
    other.class_head.bias.data += torch.tensor([0.0, 5.0])
    monkeypatch.setattr(Flow, "run", lambda self, given, result: done.append(given.index) or run(self, given, result))
    predict_files(other, [given], tmp_path / "out", PredictArguments(index="all"))
    assert done == [0, 1, 2, 3, 4]


def test_index_all_from_the_command_line_and_wrong_ones(given, tmp_path, emfm):  # noqa: F811
    code, _, err = emfm("predict", given, "--model", "unet2-rf44", "--output", tmp_path / "out", "--index", "all")
    assert code == 0, err
    assert tifffile.imread(tmp_path / "out" / "v.tif").shape == (5, 48, 64)
    code, _, err = emfm("predict", given, "--model", "unet2-rf44", "--output", tmp_path / "out", "--index", "every")
    assert code == 2 and "index is 'every'; expected the number of a slice, or all" in err
    assert PredictArguments(index=3).slice == 3 and PredictArguments(index="-1").slice == -1
    with pytest.raises(EMError, match="expected the number"):
        PredictArguments(index="1.5")


def test_a_single_image_is_a_volume_of_one_slice(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", stack()[0])
    predict_files(segmenter(), [tmp_path / "a.tif"], tmp_path / "out", PredictArguments(index="all"))
    assert np.squeeze(tifffile.imread(tmp_path / "out" / "a.tif")).shape == (48, 64)
