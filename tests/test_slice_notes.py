"""What is told of every slice of a stack: confidence, domain, uncertainty, and classes of objects."""

import csv
import json

import numpy as np
import pytest
import tifffile
import torch
from test_domain import grains
from test_orthoplanes import VOLUME, maps_along, model_of, segmenter, write

from emfm import EMForDenoising, EMForInstanceSegmentation, EMForSemanticSegmentation, predict
from emfm.inference.arguments import PredictArguments
from emfm.inference.domain import domain_of, place_of
from emfm.inference.files import predict_files
from emfm.inference.predict import Flow
from emfm.processing import EMImageProcessor

KINDS = {0: "bright", 1: "dark"}


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def everything(folder):
    """Return the bytes of all files of a folder by their names."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_each_slice_has_the_confidence_of_a_single_image_and_the_record_that_of_all(tmp_path):
    model = segmenter()
    stated = PredictArguments(index="all", confidence=0.6)
    (entry,) = predict_files(model, [write(tmp_path / "v.tif", VOLUME[:4])], tmp_path / "out", stated)
    rows = rows_of(tmp_path / "out" / "v_slices.csv")
    assert [row["slice"] for row in rows] == ["0", "1", "2", "3"]
    below, sure = [], []
    for image, row in zip(VOLUME, rows, strict=False):
        alone = tmp_path / "alone"
        tifffile.imwrite(tmp_path / "a.tif", image)
        one = predict_files(model, [tmp_path / "a.tif"], alone, PredictArguments(confidence=0.6, overwrite=True))[0]
        found = one["confidence"]
        assert float(row["share_below"]) == pytest.approx(found["share_below"], abs=1e-5)
        assert float(row["mean_confidence"]) == pytest.approx(found["mean"], abs=1e-5)
        shares = tifffile.imread(one["output"]) == 1
        assert float(row["share_particle"]) == pytest.approx(shares.mean(), abs=1e-5)
        below.append(found["share_below"])
        sure.append(found["mean"])
    whole = entry["confidence"]
    assert whole["stated"] == 0.6 and 0 < whole["share_below"] < 1
    assert whole["share_below"] == pytest.approx(np.mean(below), abs=1e-5)
    assert whole["mean"] == pytest.approx(np.mean(sure), abs=1e-5)
    assert "distance" not in rows[0] and "mean_uncertainty" not in rows[0] and "domain" not in entry


@pytest.mark.parametrize("planes", [False, True])
def test_slices_unlike_the_training_are_named_once_and_the_table_says_of_each(planes, tmp_path, caplog):
    model = model_of(EMForDenoising)
    model.domain = domain_of(model, [grains(seed, side=128) for seed in range(5)])
    volume = np.stack([grains(seed, noise=2.0 if seed in (11, 12) else 0.1, side=128) for seed in range(10, 14)])
    stated = PredictArguments(index="all", orthoplanes=planes)
    (entry,) = predict_files(model, [write(tmp_path / "v.tif", volume)], tmp_path / "out", stated)
    rows = rows_of(tmp_path / "out" / "v_slices.csv")
    places = [place_of(model, image, model.domain) for image in volume]
    assert [row["inside"] for row in rows] == ["yes", "no", "no", "yes"]
    for row, place in zip(rows, places, strict=True):
        assert float(row["distance"]) == pytest.approx(place.distance, rel=0.02)
        assert row["unlike"] == " ".join(place.unlike)
    farthest = max((1, 2), key=lambda number: places[number].distance)
    told = entry["domain"]
    assert (told["inside"], told["slice"], told["slices_outside"]) == (False, farthest, [1, 2])
    warned = [record.message for record in caplog.records if "unlike the micrographs" in record.message]
    assert len(warned) == 1 and "2 of 4 slices (1, 2) are unlike" in warned[0] and f"slice {farthest} the" in warned[0]
    assert "share_below" not in rows[0]  # of a restoration nobody knows how sure it is


def test_a_restored_stack_of_which_nothing_is_known_has_no_table(tmp_path):
    (entry,) = predict_files(
        model_of(EMForDenoising), [write(tmp_path / "v.tif")], tmp_path / "out", PredictArguments(index="all")
    )
    assert "error" not in entry and not (tmp_path / "out" / "v_slices.csv").exists()


@pytest.mark.parametrize("kind", [EMForSemanticSegmentation, EMForDenoising])
def test_the_uncertainty_of_a_stack_is_that_of_its_slices(kind, tmp_path):
    model = segmenter() if kind is EMForSemanticSegmentation else model_of(kind)
    path = write(tmp_path / "v.tif", VOLUME[:3])
    stated = PredictArguments(index="all", uncertainty=True)
    predict_files(model, [path], tmp_path / "out", stated)
    volume = tifffile.imread(tmp_path / "out" / "v_uncertainty.tif")
    assert volume.shape == (3, 24, 28) and volume.dtype == np.float32
    rows = rows_of(tmp_path / "out" / "v_slices.csv")
    for image, unsure, row in zip(VOLUME, volume, rows, strict=False):
        np.testing.assert_allclose(unsure, predict(model, image, uncertainty=True).uncertainty, atol=1e-4)
        assert float(row["mean_uncertainty"]) == pytest.approx(unsure.mean(), rel=1e-4)
    record = json.loads((tmp_path / "out" / "v.tif.json").read_text())
    assert record["uncertainty"]["mean"] == pytest.approx(volume.mean(), rel=1e-4)
    assert record["shown"]["uncertainty"] == "v_uncertainty.tif" and (tmp_path / "out" / "v_unsure.png").is_file()
    assert predict_files(model, [path], tmp_path / "out", stated)[0]["skipped"]


def test_planes_are_unsure_where_the_three_directions_disagree(tmp_path):
    stated = PredictArguments(index="all", orthoplanes=True, uncertainty=True, confidence=0.6)
    volume = VOLUME.astype(np.float32)
    model = model_of(EMForDenoising)
    predict_files(model, [write(tmp_path / "r.tif", volume)], tmp_path / "out", stated)
    expected = np.std([maps_along(model, volume, axis)[:, 0] for axis in range(3)], axis=0)
    np.testing.assert_allclose(tifffile.imread(tmp_path / "out" / "r_uncertainty.tif"), expected, atol=0.5)
    model = segmenter()
    (entry,) = predict_files(model, [write(tmp_path / "v.tif")], tmp_path / "classes", stated)
    mean = sum(maps_along(model, VOLUME, axis) for axis in range(3)) / 3
    entropy = -(mean * np.log(mean)).sum(axis=1) / np.log(2)
    np.testing.assert_allclose(tifffile.imread(tmp_path / "classes" / "v_uncertainty.tif"), entropy, atol=0.01)
    assert entry["confidence"]["mean"] == pytest.approx(mean.max(axis=1).mean(), abs=1e-3)


def test_a_stopped_run_with_all_that_is_told_ends_with_the_same_bytes(tmp_path, monkeypatch):
    model, run = class_reader(), Flow.run
    path = write(tmp_path / "v.tif", two_kinds())
    stated = PredictArguments(index="all", uncertainty=True)
    predict_files(model, [path], tmp_path / "whole", stated)

    def stops(self, micrograph, result):
        if micrograph.index == 2:
            raise KeyboardInterrupt
        return run(self, micrograph, result)

    monkeypatch.setattr(Flow, "run", stops)
    with pytest.raises(KeyboardInterrupt):
        predict_files(model, [path], tmp_path / "out", stated)
    monkeypatch.undo()
    predict_files(model, [path], tmp_path / "out", stated)
    assert everything(tmp_path / "out") == everything(tmp_path / "whole")


class ClassReader(EMForInstanceSegmentation):
    """Takes what is bright for an object, and the brightest for one of the first class."""

    @torch.no_grad()
    def maps(self, pixel_values):
        inside, bright = (pixel_values > -0.5).float(), (pixel_values > 0.6).float()
        return torch.cat([inside, torch.zeros_like(inside), inside, bright, 1 - bright], dim=1)


def class_reader():
    model = model_of(ClassReader, id2label=KINDS)
    model.processor = EMImageProcessor(0, 100)
    return model


def two_kinds():
    """A volume with two objects: most voxels of the first are bright, though it is dark in two of three slices."""
    volume = np.zeros((5, 24, 28), np.uint8)
    volume[1:4, 6:10, 6:10] = 120
    volume[2, 2:14, 2:14] = 200
    volume[:, 17:23, 17:25] = 120
    volume[:, 2, 25] = 200  # every slice has one scale; an object it is too small for
    return volume


@pytest.mark.parametrize("planes", [False, True])
def test_an_object_of_a_volume_has_the_class_of_the_most_of_its_voxels(planes, tmp_path):
    volume = two_kinds()
    path = write(tmp_path / "v.tif", volume)
    stated = PredictArguments(index="all", orthoplanes=planes)
    (entry,) = predict_files(class_reader(), [path], tmp_path / "out", stated)
    found = tifffile.imread(entry["output"])
    rows = rows_of(tmp_path / "out" / "v_objects.csv")
    assert list(rows[0])[:3] == ["file", "id", "class"]
    by_id = {int(row["id"]): row["class"] for row in rows}
    assert by_id[int(found[2, 20, 20])] == "dark" and by_id[int(found[2, 8, 8])] == "bright"
    summary = json.loads((tmp_path / "out" / "v_summary.json").read_text())
    if not planes:  # foreground of the mean over directions is another
        assert len(rows) == 2 and found[1, 8, 8] == found[2, 3, 3] == found[3, 8, 8]
        assert {name: one["objects"] for name, one in summary["classes"].items()} == {"bright": 1, "dark": 1}
        assert summary["classes"]["bright"]["total_volume"] == pytest.approx((144 + 32) * 512)
    assert summary["objects"] == len(rows)


def test_objects_without_classes_have_no_column_for_them(tmp_path):
    model = model_of(EMForInstanceSegmentation)
    with torch.no_grad():
        model.object_head.bias += torch.tensor([3.0, -3.0, 0.0])
    predict_files(model, [write(tmp_path / "v.tif")], tmp_path / "out", PredictArguments(index="all"))
    assert "class" not in rows_of(tmp_path / "out" / "v_objects.csv")[0]
    assert "classes" not in json.loads((tmp_path / "out" / "v_summary.json").read_text())
