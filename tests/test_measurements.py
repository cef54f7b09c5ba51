import csv
import json

import numpy as np
import pytest
from scipy import ndimage

from emfm.reports import measurements
from emfm.reports.measurements import COLUMNS, measure, write_measurements
from emfm.reports.prediction import Prediction
from emfm.reports.report import ClassMapReport

LABELS = {0: "background", 1: "particle", 2: "pore"}


def known_map() -> np.ndarray:
    """A 3 x 4 rectangle, a pixel on the border, a diagonal pair, and a pore inside the rectangle."""
    classes = np.zeros((20, 30), dtype=np.uint8)
    classes[5:8, 10:14] = 1
    classes[6, 11] = 2
    classes[0, 20] = 1
    classes[15, 3] = classes[16, 4] = 1
    return classes


def test_regions_of_a_known_map_are_counted_placed_and_sized():
    found = measure(known_map(), LABELS, pixel_size=2.0)
    assert [found.id2label[c] for c in found.classes] == ["particle", "particle", "particle", "pore"]
    assert found.areas.tolist() == [1, 11, 2, 1]
    assert found.touches_border.tolist() == [True, False, False, False]
    assert found.centroids[0].tolist() == [0, 20]
    assert found.centroids[1] == pytest.approx([(12 * 6 - 6) / 11, (12 * 11.5 - 11) / 11])
    assert found.centroids[2].tolist() == [15.5, 3.5]
    assert found.diameters[2] == pytest.approx(2 * (2 / np.pi) ** 0.5)


@pytest.mark.parametrize("band", [1, 37, 400, 2**22])
def test_the_table_is_the_same_in_whatever_bands_the_map_is_read(monkeypatch, band):
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.normal(size=(150, 110)), 2)
    classes = np.digitize(smooth, [-0.05, 0.05]).astype(np.uint8)
    monkeypatch.setattr(measurements, "BAND_PIXELS", band)
    found = measure(classes, LABELS)
    areas, centres = [], []
    for index in (1, 2):
        labels, count = ndimage.label(classes == index, structure=np.ones((3, 3)))
        numbers = range(1, count + 1)
        areas += ndimage.sum_labels(np.ones_like(labels), labels, numbers).astype(int).tolist()
        centres += ndimage.center_of_mass(labels > 0, labels, numbers)
    assert len(areas) >= 100
    assert found.areas.tolist() == areas
    assert np.allclose(found.centroids, centres)


def test_a_comb_whose_teeth_meet_only_in_the_last_row_is_one_region(monkeypatch):
    monkeypatch.setattr(measurements, "BAND_PIXELS", 21)
    comb = np.zeros((9, 21), dtype=np.uint8)
    comb[:, ::2] = 1
    comb[-1] = 1
    found = measure(comb, {0: "background", 1: "comb"})
    assert found.areas.tolist() == [int(comb.sum())]
    assert found.touches_border.tolist() == [True]


def test_a_map_without_a_region_gives_an_empty_table_and_zero_counts(tmp_path):
    found = measure(np.zeros((5, 7), dtype=np.uint8), LABELS)
    write_measurements(tmp_path / "empty.csv", found)
    assert (tmp_path / "empty.csv").read_text().splitlines() == [",".join(COLUMNS)]
    assert found.summary()["classes"]["particle"] == {
        "regions": 0,
        "touching_border": 0,
        "area_share": 0.0,
        "mean_diameter": None,
        "median_diameter": None,
    }


def test_the_csv_holds_nanometres_where_the_pixel_size_is_known_and_nothing_where_it_is_not(tmp_path):
    for size in (2.0, None):
        write_measurements(tmp_path / "table.csv", measure(known_map(), LABELS, size))
        with (tmp_path / "table.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["region"] for row in rows] == ["1", "2", "3", "4"]
        assert [row["class"] for row in rows] == ["particle", "particle", "particle", "pore"]
        assert [row["touches_border"] for row in rows] == ["yes", "no", "no", "no"]
        assert [row["area_nm2"] for row in rows] == (["4", "44", "8", "4"] if size else [""] * 4)
        diameter = float(rows[1]["equivalent_diameter_px"])
        assert diameter == pytest.approx(2 * (11 / np.pi) ** 0.5, abs=1e-3)
        assert rows[1]["equivalent_diameter_nm"] == (f"{2 * 2 * (11 / np.pi) ** 0.5:.6g}" if size else "")


def test_the_summarys_diameters_leave_out_regions_that_the_border_cuts():
    summary = measure(known_map(), LABELS, pixel_size=0.5).summary()
    assert summary["unit"] == "nm"
    particle = summary["classes"]["particle"]
    assert (particle["regions"], particle["touching_border"]) == (3, 1)
    assert particle["area_share"] == pytest.approx(14 / 600, abs=1e-6)
    mean = 0.5 * np.mean([2 * (11 / np.pi) ** 0.5, 2 * (2 / np.pi) ** 0.5])
    assert particle["mean_diameter"] == pytest.approx(mean, abs=1e-4)


def test_a_segmentations_results_are_two_pictures_a_table_and_a_summary(tmp_path):
    image = np.random.default_rng(0).normal(100, 10, (20, 30)).astype(np.float32)
    paths = ClassMapReport().write(Prediction(image, known_map(), LABELS, 2.0, "a.tif"), tmp_path / "new", "a")
    assert {name: path.name for name, path in paths.items()} == {
        "picture": "a_overlay.png",
        "overlay": "a_overlay.png",
        "compare": "a_compare.png",
        "measurements": "a_measurements.csv",
        "summary": "a_summary.json",
    }
    assert {path.name for path in (tmp_path / "new").iterdir()} == {path.name for path in paths.values()}
    assert json.loads(paths["summary"].read_text())["classes"]["pore"]["regions"] == 1
    assert len(paths["measurements"].read_text().splitlines()) == 5
