import csv
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from emfm import EMError
from emfm.reports import pictures, profiles
from emfm.reports.measurements import measure
from emfm.reports.pictures import bar_length, overlay, shrink
from emfm.reports.prediction import Prediction
from emfm.reports.profiles import line_profile
from emfm.reports.report import ClassMapReport, ImageReport

LABELS = {0: "background", 1: "particle"}


def ramp(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return (1000 + 10 * rows + 3 * columns).astype(np.uint16)


def test_an_overlay_tints_regions_outlines_them_and_leaves_the_background_grey():
    classes = np.zeros((40, 40), dtype=np.uint8)
    classes[10:30, 10:30] = 1
    picture = overlay(np.full((40, 40), 7.0), classes, LABELS)
    assert picture[0, 0].tolist() == [128, 128, 128]
    tint = 128 + 0.4 * (pictures.COLOURS[0] - 128)
    assert picture[20, 20].tolist() == tint.astype(np.uint8).tolist()
    assert picture[29, 20].tolist() == pictures.COLOURS[0].astype(np.uint8).tolist()


@pytest.mark.parametrize("shape", [(12, 8), (13, 9), (1, 30), (7, 7)])
@pytest.mark.parametrize("factor", [1, 2, 3, 5])
def test_shrinking_takes_the_mean_of_each_block_also_at_the_edges(monkeypatch, shape, factor):
    image = np.random.default_rng(0).integers(0, 60_000, shape).astype(np.uint16)
    monkeypatch.setattr(pictures, "BAND_PIXELS", 10)  # many bands
    small = shrink(image, factor)
    for row in range(small.shape[0]):
        for column in range(small.shape[1]):
            block = image[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
            assert small[row, column] == pytest.approx(block.mean(), rel=1e-6)
    assert small.shape == tuple(-(-side // factor) for side in shape)


def test_shrinking_a_class_map_invents_no_class():
    classes = np.zeros((9, 9), dtype=np.uint8)
    classes[3:8, 2:6] = 2
    assert shrink(classes, 3, means=False).tolist() == [[0, 0, 0], [0, 2, 0], [0, 2, 0]]


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("limit", [4096, 50, 33])
def test_input_and_output_have_one_size_at_every_scale_and_reduction(monkeypatch, scale, limit):
    monkeypatch.setattr(pictures, "LARGEST_SIDE", limit)
    image = ramp(61, 37)
    output = image.repeat(scale, axis=0).repeat(scale, axis=1)
    before, after = ImageReport().before_and_after(Prediction(image, output, None, 1.0, "a"))
    assert before.shape == after.shape
    assert max(before.shape) <= max(limit, 37)
    assert np.abs(before.astype(int) - after).max() <= 1  # the same image, so the same grey values


def test_both_pictures_of_a_restoration_share_one_grey_scale():
    image = np.full((20, 20), 100, dtype=np.uint8)
    image[:10] = 200
    before, after = ImageReport().before_and_after(Prediction(image, (image // 2).astype(np.uint8), None, None, "a"))
    assert [before[0, 0, 0], before[19, 0, 0]] == [255, 85]
    assert [after[0, 0, 0], after[19, 0, 0]] == [85, 0]


@pytest.mark.parametrize(
    ("room", "length", "written"),
    [
        (0.3, 0.2, "0.2 nm"),
        (1.0, 1.0, "1 nm"),
        (49.9, 20, "20 nm"),
        (50.0, 50, "50 nm"),
        (999, 500, "500 nm"),
        (1000, 1000, "1 µm"),
        (7.3e6, 5e6, "5000 µm"),
    ],
)
def test_a_scale_bar_has_a_round_length(room, length, written):
    assert bar_length(room) == (pytest.approx(length), written)


def test_the_scale_bar_is_as_long_as_it_says():
    image = ramp(100, 400)
    picture = ClassMapReport().pictures(Prediction(image, np.zeros((100, 400), np.uint8), LABELS, 0.5, "a"))["overlay"]
    strip = picture[100:]
    dark = (strip[strip.shape[0] // 2] == 0).all(axis=1)
    # a fifth of 200 nm holds a bar of 20 nm, 40 pixels, at the right end; the text lies to the left
    # of it
    right = 400 - 13
    assert dark[right - 40 : right + 1].all()
    assert not dark[right + 1 :].any()
    assert not dark[right - 45 : right - 40].any()


def test_pictures_say_nothing_of_a_scale_that_is_not_known_and_fit_their_legend():
    prediction = Prediction(
        ramp(20, 20), np.zeros((20, 20), np.uint8), {0: "background", 1: "a rather long name"}, None, "a"
    )
    shown = ClassMapReport().pictures(prediction)
    assert shown["overlay"].shape[1] > 100 and shown["compare"].shape[2] == 3


def test_a_profile_of_a_ramp_is_the_ramp_in_nanometres():
    image = ramp(51, 81)
    profile = line_profile(Prediction(image, image + 5, None, 0.25, "a"))
    assert (profile.unit, profile.start, profile.stop) == ("nm", (0.0, 25.0), (80.0, 25.0))
    assert np.allclose(profile.positions, 0.25 * np.arange(81))
    assert np.allclose(profile.before, image[25])
    assert np.allclose(profile.after, image[25] + 5)


class SlicesOnly:
    """An image that stays in its file and reads regions, as large compressed ones do."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, region):
        parts = region if isinstance(region, tuple) else (region,)
        assert all(isinstance(part, slice) for part in parts)
        return self.array[parts]

    def __array__(self, dtype=None, copy=None):
        return self.array


@pytest.mark.parametrize("limit", [4096, 16])
def test_pictures_and_tables_of_an_image_that_reads_only_regions_equal_those_of_an_array(monkeypatch, limit):
    monkeypatch.setattr(pictures, "LARGEST_SIDE", limit)
    image, classes = ramp(40, 50), (ramp(40, 50) > 1200).astype(np.uint8)
    for report, labels, output in ((ClassMapReport(), LABELS, classes), (ImageReport(), None, image + 7)):
        plain = report.pictures(Prediction(image, output, labels, 1.0, "a"))
        lazy = report.pictures(Prediction(SlicesOnly(image), SlicesOnly(output), labels, 1.0, "a"))
        assert plain.keys() == lazy.keys() and all(np.array_equal(plain[kind], lazy[kind]) for kind in plain)
    assert measure(SlicesOnly(classes), LABELS).areas.tolist() == [int(classes.sum())]


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_a_profile_along_a_diagonal_interpolates_and_fits_an_enlarged_output(monkeypatch, rows):
    monkeypatch.setattr(profiles, "BAND_ROWS", rows)
    image = ramp(40, 40).astype(np.float32)
    rows, columns = np.mgrid[:80, :80]
    enlarged = (1000 + 10 * ((rows + 0.5) / 2 - 0.5) + 3 * ((columns + 0.5) / 2 - 0.5)).astype(np.float32)
    profile = line_profile(Prediction(SlicesOnly(image), SlicesOnly(enlarged), None, 1.0, "a"), (3, 4), (33, 28))
    # the micrograph's pixel is 2 nm
    assert profile.positions[-1] == pytest.approx(2 * np.hypot(30, 24))
    share = np.linspace(0, 1, len(profile.positions))
    expected = 1000 + 10 * (4 + 24 * share) + 3 * (3 + 30 * share)
    assert np.allclose(profile.before, expected, atol=1e-2)
    assert np.allclose(profile.after, expected, atol=1e-2)


def test_a_profile_outside_the_micrograph_is_refused():
    image = ramp(10, 20)
    with pytest.raises(EMError, match=r"x=20, y=3 lies outside; expected 0..19, 0..9"):
        line_profile(Prediction(image, image, None, None, "a"), (0, 3), (20, 3))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2)])
def test_the_smallest_micrographs_have_pictures_and_profiles(tmp_path, shape):
    image = ramp(*shape)
    paths = ImageReport().write(Prediction(image, image, None, None, "a"), tmp_path, "a")
    with paths["profile"].open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["position_px", "input", "output"]
    assert [float(row[1]) for row in rows[1:]] == image[shape[0] // 2].tolist()
    assert Image.open(paths["compare"]).size[1] > shape[0]


def test_results_of_a_large_memory_mapped_micrograph_take_little_memory(tmp_path):
    image = np.lib.format.open_memmap(tmp_path / "image.npy", "w+", np.uint16, (6000, 5000))
    classes = np.lib.format.open_memmap(tmp_path / "classes.npy", "w+", np.uint8, (6000, 5000))
    image[::7, ::5] = 500
    classes[1000:2000, 1000:3000] = 1
    tracemalloc.start()
    paths = ClassMapReport().write(Prediction(image, classes, LABELS, 1.0, "a"), tmp_path, "a")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300e6
    assert Image.open(paths["picture"]).size[0] == 1667
    assert "1,particle,2000000,2e+06," in paths["measurements"].read_text()
