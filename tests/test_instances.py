"""Instance segmentation: objects told apart, learnt, predicted in tiles, measured and shown."""

import csv
import json

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from test_cli import emfm  # noqa: F401  (a fixture)

from emfm import EMError, EMFoundationConfig, load_em_dataset, predict
from emfm.data.objects import BOUNDARY, INSIDE, UNKNOWN, object_map, objects_of_masks
from emfm.finetuning.evaluate import evaluate
from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.hub.verify import verify
from emfm.reports.object_measures import measure_objects, rows_of, summary_of
from emfm.tasks import TASKS, load_model
from emfm.tasks.instance_metrics import InstanceMetrics
from emfm.tasks.instances import EMForInstanceSegmentation
from emfm.tasks.watershed import BEYOND, packed, separate, unpacked


def discs(shape, places, radius):
    """Return numbered discs; those that overlap share the pixels by their nearer middle."""
    rows, columns = np.indices(shape)
    distances = np.stack([np.hypot(rows - y, columns - x) for y, x in places])
    nearest = distances.argmin(axis=0)
    return np.where(distances.min(axis=0) <= radius, nearest + 1, 0).astype(np.int32)


def perfect_maps(ids):
    """Return what a network that knows all would put out."""
    target = object_map(ids)
    edge = target >= BOUNDARY
    distance = np.where(edge, target - BOUNDARY, np.where(target > 0, target - INSIDE, 0))
    return np.stack([target > 0, edge, distance]).astype(np.float32)


def separated(maps):
    found = np.zeros(maps.shape[1:], np.uint32)

    def write(row, column, block):
        found[row : row + block.shape[0], column : column + block.shape[1]] = block

    separate(packed(maps), write)
    return found


def test_what_is_learnt_of_an_object_does_not_depend_on_its_size():
    for radius in (6, 12, 24):
        target = object_map(discs((64, 64), [(32, 32)], radius))
        assert target[32, 32] == INSIDE + 1 and target[0, 0] == 0
        ring = target >= BOUNDARY
        assert ring.any() and not ring[32, 32]
        half = target[32, 32 + radius // 2] - INSIDE
        assert half == pytest.approx(0.5, abs=0.12)


def test_touching_objects_have_a_boundary_and_the_edge_of_the_micrograph_is_none():
    target = object_map(discs((40, 60), [(20, 20), (20, 36)], 9))
    assert (target[20, 28:30] >= BOUNDARY).all()
    edge = object_map(np.ones((20, 20), np.int32))
    assert (edge < BOUNDARY).all() and (edge > INSIDE).all()


def test_unknown_pixels_are_learnt_nothing_of():
    ids = discs((40, 40), [(20, 20)], 9)
    ids[:, :10] = UNKNOWN
    assert np.isnan(object_map(ids)[:, :10]).all() and not np.isnan(object_map(ids)[:, 10:]).any()


def test_packed_maps_come_back_within_a_level():
    maps = np.random.default_rng(0).random((3, 20, 30)).astype(np.float32)
    np.testing.assert_allclose(unpacked(packed(maps)), maps, atol=0.5 / 255 + 1e-6)


def test_perfect_maps_give_the_objects_back():
    ids = discs((100, 140), [(20, 20), (20, 37), (60, 60), (90, 120), (60, 78)], 10)
    found = separated(perfect_maps(ids))
    metrics = InstanceMetrics()
    metrics.add(found, ids)
    result = metrics.result()
    assert result["ap50"] == 1.0 and result["pq"] > 0.97 and result["count_error"] == 0


def test_objects_have_one_number_across_bands(monkeypatch):
    """Bands far smaller than the micrograph, and objects that lie across their borders."""
    rng = np.random.default_rng(0)
    grid = [(y, x) for y in range(20, 900, 30) for x in range(20, 130, 30)]
    places = [(y + rng.integers(-4, 5), x + rng.integers(-4, 5)) for y, x in grid]
    ids = discs((900, 140), places, 11)
    whole = separated(perfect_maps(ids))
    monkeypatch.setattr("emfm.tasks.watershed.BAND_ROWS", (64, 64))
    monkeypatch.setattr("emfm.tasks.watershed.BEYOND", 48)
    banded = separated(perfect_maps(ids))
    np.testing.assert_array_equal(banded, whole)
    assert len(np.unique(whole)) - 1 == len(places) and BEYOND > 100


def test_specks_are_no_objects():
    ids = discs((40, 40), [(20, 20)], 9)
    ids[2:4, 2:4] = 2
    assert len(np.unique(separated(perfect_maps(ids)))) == 2


def test_metrics_of_known_answers():
    truth = discs((60, 120), [(30, 30), (30, 90)], 12)
    metrics = InstanceMetrics()
    metrics.add(np.where(truth == 1, 7, 0), truth)
    result = metrics.result()
    assert (result["ap50"], result["ap"], result["count_error"], result["n"]) == (0.5, 0.5, 0.5, 1)
    assert result["pq"] == pytest.approx(2 / 3)
    shifted = InstanceMetrics()
    shifted.add(np.roll(truth, 4, axis=1), truth)  # the same sizes, an overlap between 0.6 and 0.7
    assert shifted.result()["ap50"] == 1 and 0.2 < shifted.result()["ap"] < 0.5
    assert shifted.result()["size_distance"] == 0
    unknown = np.where(truth == 2, UNKNOWN, truth)
    known = InstanceMetrics()
    known.add(np.where(truth == 1, 7, 0), unknown)
    assert known.result()["ap50"] == 1
    nothing = InstanceMetrics()
    nothing.add(truth, np.zeros_like(truth))
    assert nothing.result()["ap50"] is None and nothing.result()["n"] == 1


def test_the_size_distance_is_that_of_the_diameters_in_pixels():
    metrics = InstanceMetrics()
    small, large = discs((80, 80), [(40, 40)], 10), discs((80, 80), [(40, 40)], 15)
    metrics.add(small, large)
    assert metrics.result()["size_distance"] == pytest.approx(10, abs=0.3)


@pytest.fixture
def objects_folder(tmp_path):
    """Bright discs that touch, on grey noise; numbers in 16 bits."""
    folder = tmp_path / "objects"
    rng = np.random.default_rng(0)
    for kind in ("images", "instances"):
        (folder / kind).mkdir(parents=True)
    names = [f"{number}.png" for number in range(6)]
    for name in names:
        places = [(y + rng.integers(-2, 3), x + rng.integers(-2, 3)) for y in (20, 38, 70) for x in (18, 36, 70)]
        ids = discs((96, 96), places, 10)
        image = np.where(ids > 0, 170, 80) + rng.normal(0, 8, ids.shape)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / "images" / name)
        Image.fromarray(ids.astype(np.uint16)).save(folder / "instances" / name)
    (folder / "splits.json").write_text(json.dumps({"train": names[:4], "validation": names[4:5], "test": names[5:]}))
    return folder


def test_numbers_are_loaded_and_ignored_ones_are_unknown(objects_folder):
    (objects_folder / "labels.json").write_text('{"0": "background", "3": "ignore", "1": "particle"}')
    data = load_em_dataset(objects_folder, "train", truth="instances")
    assert data.ids[0].dtype == np.int32 and (data.ids[0] == UNKNOWN).any() and not (data.ids[0] == 3).any()
    assert set(np.unique(data.ids[0])) - {UNKNOWN, 0} == {1, 2, 4, 5, 6, 7, 8, 9}


def test_a_folder_with_masks_gives_their_parts(labelled_folder):
    data = TASKS["instances"].load(labelled_folder, "train", None, None)
    masks = load_em_dataset(labelled_folder, "train", truth="masks")
    assert len(data) == len(masks)
    for ids, mask in zip(data.ids, masks.masks, strict=True):
        assert ((ids > 0) == (mask > 0)).all()
    np.testing.assert_array_equal(data.ids[0], objects_of_masks(masks).ids[0])


def test_numbers_that_are_not_whole_are_refused_by_file(objects_folder):
    name = "0.tif"
    (objects_folder / "instances" / "0.png").unlink()
    tifffile.imwrite(objects_folder / "instances" / name, np.full((96, 96), 1.5, np.float32))
    with pytest.raises(EMError, match=r"0\.tif holds 1\.5; expected whole numbers"):
        load_em_dataset(objects_folder, "train", truth="instances")


@pytest.fixture
def trained(objects_folder, tmp_path):
    output = tmp_path / "model"
    run = dict(task="instances", data=str(objects_folder), output=str(output), scratch="unet3-rf96")
    settings = dict(steps=150, batch_size=4, crop=64, precision="fp32", learning_rate=3e-3, augment=0.0)
    finetune(FinetuneArguments(**run, **settings))
    return output


def test_it_learns_to_tell_touching_discs_apart(trained, objects_folder, tmp_path, emfm):  # noqa: F811
    found = evaluate(trained, objects_folder, "test")
    assert found["ap50"] > 0.55 and found["trivial"]["ap50"] == 0
    model = load_model(trained)
    assert isinstance(model, EMForInstanceSegmentation) and verify(model, trained) < 1e-4
    card = (trained / "README.md").read_text()
    assert "AP at IoU 0.5" in card and "instance" in card
    results = tmp_path / "results"
    image = objects_folder / "images" / "5.png"
    code, _, err = emfm("predict", image, "--model", trained, "--output", results)
    assert code == 0, err
    ids = tifffile.imread(results / "5.tif")
    assert ids.dtype == np.uint32 and ids.shape == (96, 96) and 6 <= len(np.unique(ids)) - 1 <= 12
    np.testing.assert_array_equal(ids, predict(model, image).output)
    with (results / "5_objects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["id"]) for row in rows] == [number for number in np.unique(ids) if number]
    assert json.loads((results / "5_summary.json").read_text())["objects"] == len(rows)
    for picture in ("overlay", "compare", "sizes"):
        assert (results / f"5_{picture}.png").is_file()
    assert not list(results.glob(".*"))


def test_tiles_do_not_change_the_objects():
    torch.manual_seed(0)
    model = EMForInstanceSegmentation(EMFoundationConfig.from_name("unet2-rf44")).eval()
    rows, columns = np.indices((200, 330))
    image = (np.sin(rows / 7) * np.sin(columns / 7)).astype(np.float32)
    values = model.processor.normalize(image, model.processor.statistics(image))
    with torch.no_grad():  # what one feature has above its middle is an object
        feature = model.features(torch.from_numpy(values)[None, None])[0][0, 0]
        model.object_head.weight.zero_()
        model.object_head.weight[:, 0] = torch.tensor([10.0, 0.0, 1.0]).view(3, 1, 1)
        middle = float(feature.median())
        model.object_head.bias.copy_(torch.tensor([-10 * middle, -9.0, 0.3 - middle]))
    whole = predict(model, image, tile=400).output
    tiled = predict(model, image, tile=128).output
    assert whole.max() > 5
    assert (whole == tiled).mean() > 0.999


@pytest.mark.parametrize(("semi_rows", "semi_columns"), [(20, 20), (12, 30), (30, 12)])
def test_measures_of_ellipses_follow_their_formulas(semi_rows, semi_columns):
    rows, columns = np.indices((120, 120))
    ids = ((((rows - 60) / semi_rows) ** 2 + ((columns - 60) / semi_columns) ** 2) <= 1).astype(np.int32) * 5
    (one,) = measure_objects(ids, np.full(ids.shape, 7.0))
    long, short = max(semi_rows, semi_columns), min(semi_rows, semi_columns)
    assert one.id == 5 and one.area == pytest.approx(np.pi * long * short, rel=0.01)
    assert one.equivalent_diameter == pytest.approx(2 * np.sqrt(long * short), abs=0.5)
    assert one.feret_max == pytest.approx(2 * long, abs=1.5) and one.feret_min == pytest.approx(2 * short, abs=1.5)
    assert one.aspect == pytest.approx(long / short, rel=0.03)
    assert one.solidity > 0.95 and one.mean_intensity == 7
    circumference = np.pi * (3 * (long + short) - np.sqrt((3 * long + short) * (long + 3 * short)))
    assert one.circularity == pytest.approx(4 * np.pi * one.area / circumference**2, abs=0.06)
    assert (one.centroid_x, one.centroid_y) == (60, 60)
    if long > short:
        assert abs(one.orientation) == pytest.approx(0 if semi_columns > semi_rows else 90, abs=1)


def test_measures_of_rectangles_their_neighbours_and_the_edge():
    ids = np.zeros((60, 80), np.int32)
    ids[10:20, 10:40], ids[40:60, 50:60] = 1, 2
    first, second = measure_objects(ids, np.where(ids == 1, np.nan, 3.0))
    assert (first.area, second.area) == (300, 200)
    assert first.feret_max == pytest.approx(np.hypot(10, 30), abs=0.1) and first.feret_min == pytest.approx(
        10, abs=0.01
    )
    assert (first.touches_border, second.touches_border) == (False, True)
    assert np.isnan(first.mean_intensity) and second.mean_intensity == 3
    assert first.neighbour == second.neighbour == pytest.approx(np.hypot(49.5 - 14.5, 54.5 - 24.5))
    row = next(rows_of([first], 2.0, "a.tif"))
    assert row["file"] == "a.tif" and row["area_px2"] == "300" and row["area_nm2"] == "1200"
    assert float(row["equivalent_diameter_nm"]) == pytest.approx(2 * first.equivalent_diameter, rel=1e-5)
    assert summary_of([first, second], 2.0)["touching_border"] == 1


def test_an_objects_box_is_found_across_bands(monkeypatch):
    ids = discs((200, 60), [(30, 30), (95, 30), (160, 30)], 25)
    image = np.random.default_rng(0).random(ids.shape)
    whole = measure_objects(ids, image)
    monkeypatch.setattr("emfm.reports.object_measures.BAND_PIXELS", 60 * 7)
    assert measure_objects(ids, image) == whole


def test_no_object_at_all_is_no_error(tmp_path):
    assert measure_objects(np.zeros((20, 20), np.uint32), np.zeros((20, 20))) == []
    assert summary_of([], None)["median_diameter"] is None
    assert separated(np.zeros((3, 40, 40), np.float32)).max() == 0


def test_masks_that_are_there_are_measured_as_objects_that_were_found(tmp_path, emfm, caplog):  # noqa: F811
    ids = discs((90, 120), [(30, 30), (30, 80), (65, 60)], 12)
    folder, images, output = tmp_path / "masks", tmp_path / "images", tmp_path / "out"
    for kind in (folder, images):
        kind.mkdir()
    Image.fromarray((ids > 0).astype(np.uint8) * 255).save(folder / "a.png")
    Image.fromarray(ids.astype(np.uint16)).save(folder / "b.png")
    for name in "ab":
        Image.fromarray(np.where(ids > 0, 200, 50).astype(np.uint8)).save(images / f"{name}.png")
    given = ("--output", output, "--images", images, "--pixel-size", 2, "--json")
    code, stdout, err = emfm("measure", folder, *given)
    assert code == 0, err
    assert "each value is the number of an object" in err + caplog.text
    entries = json.loads(stdout)
    assert [entry["objects"] for entry in entries] == [3, 3]
    with (output / "objects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["a.png"] * 3 + ["b.png"] * 3
    area = float((ids == 1).sum())
    assert float(rows[0]["area_px2"]) == area and float(rows[0]["area_nm2"]) == 4 * area
    assert all(row["mean_intensity"] == "200" for row in rows)
    for name in ("a_objects.csv", "a_summary.json", "a_sizes.png", "a_overlay.png", "sizes.png"):
        assert (output / name).is_file()
    code, _, err = emfm("measure", folder, *given)
    assert code == 2 and "holds objects.csv: choose another --output, or replace it with --overwrite" in err
    assert emfm("measure", folder, *given, "--overwrite")[0] == 0
    Image.fromarray(ids.astype(np.uint16)).save(folder / "a.tif")
    code, _, err = emfm("measure", folder, "--output", tmp_path / "two")
    assert code == 2 and "would have one name" in err and not (tmp_path / "two" / "objects.csv").exists()
    output = tmp_path / "three"
    code, _, err = emfm("measure", folder / "a.png", "--output", output, "--images", tmp_path / "elsewhere")
    assert code == 2 and "holds no micrograph of the name a" in err


def test_where_the_distance_says_nothing_boundaries_part_the_objects(monkeypatch):
    """Objects far larger than those that were learnt: their distance stays low, their boundary does not."""
    ids = discs((300, 140), [(60, 60), (60, 100), (230, 70)], 50)
    maps = perfect_maps(ids)
    maps[2] *= 0.2
    metrics = InstanceMetrics()
    metrics.add(separated(maps), ids)
    assert metrics.result()["ap50"] == 1.0
    monkeypatch.setattr("emfm.tasks.watershed.BAND_ROWS", (64, 64))
    banded = InstanceMetrics()
    banded.add(separated(maps), ids)
    assert banded.result()["ap50"] == 1.0


def test_where_boundaries_are_missing_the_distance_parts_the_objects():
    ids = discs((100, 140), [(40, 40), (40, 58)], 10)
    maps = perfect_maps(ids)
    maps[1] = 0
    metrics = InstanceMetrics()
    metrics.add(separated(maps), ids)
    assert metrics.result()["ap50"] == 1.0
