"""Measures of objects: formulas on simple shapes, regionprops on real masks, one table and figure of a batch."""

import csv
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.measure import regionprops

from emfm.errors import EMError
from emfm.inference.batch import check_batch_table, write_batch
from emfm.reports import object_measures
from emfm.reports.object_measures import measure_objects, rows_of, write_object_table
from emfm.reports.object_sizes import draw_sizes, plot_sizes, whole_sizes
from emfm.reports.perimeter import perimeter_of
from emfm.reports.prediction import ObjectClasses

SHARED = Path(__file__).parents[2] / "shared" / "data" / "downstream" / "emps_particles"


def drawn(inside):
    """Return the only object of a function of x and y, which is drawn around the middle of the image."""
    y, x = np.indices((161, 161)) - 80
    (one,) = measure_objects(inside(x, y).astype(np.uint32) * 3, np.where(inside(x, y), 5.0, 1.0))
    return one


@pytest.mark.parametrize("radius", [5, 12.3, 30, 61.5])
def test_a_disc_is_measured_within_the_pixel(radius):
    one = drawn(lambda x, y: np.hypot(x, y) <= radius)
    assert one.equivalent_diameter == pytest.approx(2 * radius, abs=0.5)
    assert one.feret_max == pytest.approx(2 * radius, abs=1.5) and one.feret_min == pytest.approx(2 * radius, abs=1)
    assert one.aspect == pytest.approx(1, abs=0.02)
    # two pixels more of the perimeter of a small one are 12 % of its circularity
    assert one.circularity == pytest.approx(1, abs=0.12 if radius < 10 else 0.02)
    assert one.solidity > (0.85 if radius < 10 else 0.95)
    assert one.mean_intensity == 5 and (one.centroid_x, one.centroid_y) == (80, 80)


@pytest.mark.parametrize("angle", [0, 25, 45, 90, 140])
@pytest.mark.parametrize(("long", "short"), [(60, 30), (40, 35), (70, 12)])
def test_an_ellipse_is_measured_within_the_pixel_at_any_angle(long, short, angle):
    turn = np.deg2rad(angle)

    def inside(x, y):
        along, across = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
        return (along / long) ** 2 + (across / short) ** 2 <= 1

    one = drawn(inside)
    assert one.area == pytest.approx(np.pi * long * short, rel=0.01)
    assert one.equivalent_diameter == pytest.approx(2 * np.sqrt(long * short), abs=0.5)
    assert one.feret_max == pytest.approx(2 * long, abs=1.5) and one.feret_min == pytest.approx(2 * short, abs=1.5)
    assert one.aspect == pytest.approx(long / short, rel=0.02)
    h = ((long - short) / (long + short)) ** 2  # Ramanujan's formula
    perimeter = np.pi * (long + short) * (1 + 3 * h / (10 + np.sqrt(4 - 3 * h)))
    assert one.circularity == pytest.approx(4 * np.pi * np.pi * long * short / perimeter**2, rel=0.035)
    if long > 1.5 * short:  # counterclockwise against the x axis
        assert (one.orientation - angle + 90) % 180 - 90 == pytest.approx(0, abs=1)


@pytest.mark.parametrize("angle", [0, 30, 45])
@pytest.mark.parametrize(("width", "height"), [(81, 21), (41, 41), (61, 7)])
def test_a_rectangle_is_measured_within_the_pixel_at_any_angle(width, height, angle):
    turn = np.deg2rad(angle)

    def inside(x, y):
        along, across = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
        return (np.abs(along) < width / 2) & (np.abs(across) < height / 2)

    one = drawn(inside)
    straight = angle == 0
    # half a pixel along its edges
    assert one.area == pytest.approx(width * height, abs=0 if straight else width + height)
    assert one.feret_max == pytest.approx(np.hypot(width, height), abs=0.05 if straight else 1.5)
    assert one.feret_min == pytest.approx(height, abs=0.01 if straight else 1.5)
    assert (width - 1) / (height + 1) < one.aspect < (width + 1) / (height - 1)
    formula = np.pi * width * height / (width + height) ** 2
    assert one.circularity == pytest.approx(formula, rel=0.025 if height > 20 else 0.07)
    assert one.solidity == pytest.approx(1, abs=1e-6 if straight else 0.15)


@pytest.mark.parametrize("angle", range(0, 180, 15))
@pytest.mark.parametrize(("width", "height"), [(6, 6), (12, 9), (30, 20), (61, 7), (81, 21), (130, 90)])
def test_the_perimeter_of_a_rectangle_is_right_within_a_pixel_of_each_side(width, height, angle):
    turn = np.deg2rad(angle)
    y, x = np.mgrid[-90:91, -90:91]
    along, across = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    # the middle of a side of even length lies between pixels
    shift = [(side % 2 - 1) / 2 for side in (width, height)]
    mask = (np.abs(along - shift[0]) < width / 2) & (np.abs(across - shift[1]) < height / 2)
    assert perimeter_of(mask, height) == pytest.approx(2 * (width + height), abs=4.5)


def test_the_perimeter_counts_holes_and_what_the_array_ends_at():
    ring = np.ones((60, 60), bool)
    ring[20:40, 20:40] = False
    assert perimeter_of(ring, 60) == pytest.approx(4 * 60 + 4 * 20, rel=0.01)


def test_neighbours_lie_as_far_apart_as_their_middles():
    ids = np.zeros((60, 90), np.uint32)
    for number, column in enumerate((10, 30, 70), start=1):
        ids[20:25, column : column + 5] = number
    assert [one.neighbour for one in measure_objects(ids, ids)] == [20, 20, 40]


def test_what_was_read_of_maps_leaves_the_memory_while_objects_are_measured(tmp_path, monkeypatch):
    ids = np.lib.format.open_memmap(tmp_path / "ids.npy", "w+", np.uint32, (60, 1000))
    ids[10:14] = np.where(np.arange(1000) % 5 < 4, np.arange(1000) // 5 + 1, 0)
    image, released, between = np.ones(ids.shape, np.uint8), [], []
    monkeypatch.setattr("emfm.reports.object_measures.release_pages", lambda array: released.append(array is image))
    measured = object_measures._measured
    monkeypatch.setattr(
        "emfm.reports.object_measures._measured",
        lambda *given: (between.append(sum(released)), measured(*given))[1],
    )
    assert len(measure_objects(ids, image)) == 200
    # after every 64 objects, of the numbers and of the micrograph
    assert between == [number // 64 for number in range(200)] and released.count(True) == 3


def test_what_the_data_bar_cuts_touches_the_border():
    ids = np.zeros((60, 40), np.uint32)
    ids[40:50, 5:15], ids[20:30, 20:30] = 1, 2
    assert [one.touches_border for one in measure_objects(ids, ids)] == [False, False]
    assert [one.touches_border for one in measure_objects(ids, ids, 10)] == [True, False]


def real_ids():
    paths = sorted((SHARED / "instances").glob("*"))[:4] if SHARED.is_dir() else []
    return paths or [None]


@pytest.mark.parametrize("path", real_ids(), ids=lambda path: path.stem[:6] if path else "simulated")
def test_real_objects_have_the_measures_of_regionprops(path):
    if path is None:
        rows, columns = np.indices((200, 240))
        rng = np.random.default_rng(0)
        ids = np.zeros((200, 240), np.int32)
        for number in range(1, 25):
            y, x, r, q = *rng.integers(0, 200, 2), *rng.integers(4, 20, 2)
            ids[((rows - y) / r) ** 2 + ((columns - x) / q) ** 2 < 1] = number
        image = rng.random(ids.shape)
    else:
        ids = np.asarray(Image.open(path)).astype(np.int32)
        image = np.asarray(Image.open(SHARED / "images" / path.name)).astype(np.float64)
    known = {region.label: region for region in regionprops(ids, intensity_image=image)}
    measured = measure_objects(ids, image)
    assert [one.id for one in measured] == sorted(known)
    for one in measured:
        region = known[one.id]
        assert one.area == region.area
        assert one.equivalent_diameter == pytest.approx(region.equivalent_diameter_area)
        assert (one.centroid_y, one.centroid_x) == pytest.approx(region.centroid)
        assert one.mean_intensity == pytest.approx(region.intensity_mean)
        if region.area > 30:
            assert one.solidity == pytest.approx(region.solidity)
            assert one.feret_max == pytest.approx(region.feret_diameter_max, abs=1.5)
            assert one.aspect == pytest.approx(region.axis_major_length / region.axis_minor_length)
        top, left, bottom, right = region.bbox
        assert one.touches_border == (0 in (top, left) or bottom == ids.shape[0] or right == ids.shape[1])


def table(path, name, diameters, size, classes=None):
    """Write the table of a file with squares of some sides, and return it."""
    ids = np.zeros((60, 40 * len(diameters)), np.uint32)
    for number, side in enumerate(diameters, start=1):
        ids[10 : 10 + side, 40 * number - 30 : 40 * number - 30 + side] = number
    measured = measure_objects(ids, ids)
    write_object_table(path, rows_of(measured, size, name, classes), classes is not None)
    return measured


def test_one_table_and_figure_hold_the_objects_of_all_files(tmp_path, caplog):
    table(tmp_path / "a_objects.csv", "a.tif", [5, 8], 2.0)
    table(tmp_path / "b_objects.csv", "b.tif", [9], 2.0)
    write_batch(tmp_path, [tmp_path / "a_objects.csv", tmp_path / "b_objects.csv"])
    with (tmp_path / "objects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["id"], row["area_px2"]) for row in rows] == [
        ("a.tif", "1", "25"),
        ("a.tif", "2", "64"),
        ("b.tif", "1", "81"),
    ]
    assert (tmp_path / "sizes.png").is_file()
    (tmp_path / "sizes.png").unlink()
    table(tmp_path / "c_objects.csv", "c.tif", [9], None)
    with caplog.at_level(logging.WARNING):
        write_batch(tmp_path, [tmp_path / "a_objects.csv", tmp_path / "c_objects.csv"])
    assert not (tmp_path / "sizes.png").exists()  # nm and pixels are not drawn together
    assert "what was found in b.tif before stands in it no longer" in caplog.text


def test_a_foreign_table_is_not_replaced(tmp_path):
    (tmp_path / "objects.csv").write_text("my,own,table\n1,2,3\n")
    with pytest.raises(EMError, match=r"objects\.csv is there, and no table of emfm's"):
        check_batch_table(tmp_path, overwrite=False)
    check_batch_table(tmp_path, overwrite=True)
    table(tmp_path / "objects.csv", "a.tif", [5], None)
    check_batch_table(tmp_path, overwrite=False)


@pytest.mark.parametrize("classed", [False, True])
def test_the_figure_says_median_quartiles_and_number(tmp_path, monkeypatch, classed):
    from matplotlib.axes import Axes

    told = []
    monkeypatch.setattr(Axes, "axvline", lambda self, x, label="", **more: told.append((x, label)))
    classes = ObjectClasses(np.array([0, 0, 0, 0, 1]), {0: "rod", 1: "sphere"}) if classed else None
    measured = table(tmp_path / "a.csv", "a.tif", [5, 8, 10, 12], 2.0, classes)
    sizes = whole_sizes(measured, 2.0)
    monkeypatch.setattr(Axes, "legend", lambda self, **more: None)
    plot_sizes(tmp_path / "a.png", measured, 2.0, classes)
    if classed:
        assert [x for x, _ in told] == [np.median(sizes[:3]), sizes[3]]
        assert told[1][1].startswith("sphere: median 27.1 nm") and told[1][1].endswith("n = 1")
    else:
        ((x, label),) = told
        assert x == np.median(sizes) and "n = 4" in label
        low, high = np.percentile(sizes, [25, 75])
        assert f"quartiles {low:.3g} to {high:.3g} nm" in label
    assert Image.open(tmp_path / "a.png").size[0] >= 1000


def test_a_figure_of_nothing_is_drawn_and_says_so(tmp_path):
    draw_sizes(tmp_path / "a.png", {"": np.empty(0)}, "px")
    assert (tmp_path / "a.png").is_file()


def test_predicting_several_files_gives_their_table(tmp_path):
    import torch

    from emfm import EMFoundationConfig
    from emfm.inference.files import predict_files
    from emfm.tasks.instances import EMForInstanceSegmentation

    torch.manual_seed(0)
    model = EMForInstanceSegmentation(EMFoundationConfig.from_name("unet2-rf44")).eval()
    with torch.no_grad():
        model.object_head.bias.copy_(torch.tensor([0.5, -3.0, 0.6]))
    for name in "ab":
        tifffile.imwrite(tmp_path / f"{name}.tif", np.random.default_rng(0).random((64, 64)).astype(np.float32))
    entries = predict_files(model, [tmp_path / "a.tif", tmp_path / "b.tif"], tmp_path / "out")
    counts = [json.loads(Path(entry["summary"]).read_text())["objects"] for entry in entries]
    with (tmp_path / "out" / "objects.csv").open() as file:
        files = [row["file"] for row in csv.DictReader(file)]
    assert [files.count("a.tif"), files.count("b.tif")] == counts and counts[0] > 0
