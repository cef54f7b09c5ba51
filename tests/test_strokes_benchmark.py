"""The simulated annotator of `benchmarks.strokes`, and the tables from its results."""

import numpy as np
import pytest

from benchmarks.strokes_annotator import BRUSH, LENGTH, Annotator
from benchmarks.strokes_tables import courses, suggestions


@pytest.fixture
def truth():
    found = np.zeros((128, 128), np.int64)
    found[20:60, 10:120] = 1
    found[80:100, 30:90] = 2
    found[120:] = -100
    return found


def test_strokes_lie_within_true_regions_and_cover_each_class_alike(truth):
    annotator = Annotator(truth, 0)
    annotator.paint(0.02)
    painted = annotator.labels >= 0
    assert (annotator.labels[painted] == truth[painted]).all()
    counts = np.bincount(annotator.labels[painted])
    wanted = 0.02 * truth.size / 3
    assert len(counts) == 3 and ((counts >= wanted) & (counts <= wanted + LENGTH * len(BRUSH))).all()
    again = Annotator(truth, 0)
    again.paint(0.02)
    assert np.array_equal(annotator.labels, again.labels)


def test_more_strokes_keep_those_that_are_there(truth):
    annotator = Annotator(truth, 1)
    annotator.paint(0.005)
    before = annotator.labels.copy()
    annotator.paint(0.02)
    assert (annotator.labels[before >= 0] == before[before >= 0]).all()
    assert (annotator.labels >= 0).sum() > 2 * (before >= 0).sum()


def test_a_correction_is_one_stroke_in_the_largest_wrong_part(truth):
    annotator = Annotator(truth, 0)
    found = np.maximum(truth, 0)
    found[30:50, 20:100] = 0  # 1600 pixels
    found[85:95, 40:60] = 1  # 200 pixels
    assert annotator.correct(found)
    rows, columns = np.nonzero(annotator.labels >= 0)
    assert (annotator.labels[rows, columns] == 1).all() and rows.min() >= 29 and rows.max() <= 50
    assert 0 < len(rows) <= len(BRUSH) * (LENGTH + 2) and annotator.strokes == 1
    assert not Annotator(truth, 0).correct(np.maximum(truth, 0))


def test_a_stroke_at_a_place_is_of_the_class_that_is_there(truth):
    annotator = Annotator(truth, 0)
    annotator.paint_at(81, 31)
    assert set(np.unique(annotator.labels)) == {-1, 2}
    before = annotator.labels.copy()
    annotator.paint_at(125, 5)  # nobody knows what is there
    assert np.array_equal(before, annotator.labels)


def test_tables_say_who_is_ahead_and_how_many_strokes_are_saved():
    steps = [{"share": 0.001, "pixels": 200}, {"round": 1, "pixels": 260}]
    dice = [(0.5, 0.4), (0.7, 0.6)]
    course = [{**step, "head": head, "forest": forest} for step, (head, forest) in zip(steps, dice, strict=True)]
    other = [{**step, "head": step["head"] + 0.1} for step in course]
    seconds = {"head": [2.0, 0.5], "forest": [4.0, 3.0]}
    lines = [
        {"part": "strokes", "set": "a", "seed": seed, "course": found, "seconds": seconds, "megapixels": 0.5}
        for seed, found in enumerate((course, other))
    ]
    lines += [{"part": "trained", "set": "a", "seed": 0, "dice": {"1": 0.8}, "seconds": [9.0]}]
    text = courses(lines)
    assert "| 0.1% of the pixels | 200 | 0.550 ± 0.050 | 0.400 ± 0.000 | +0.150 |  |" in text
    assert "| 0.1% and 1 corrections | 260 | 0.750 ± 0.050 | 0.600 ± 0.000 | +0.150 | 0.800 |" in text
    assert "head 4.0 s, then 1.00 s; forest 8.0 s, then 6.00 s. *Train*: 9 s." in text
    line = {"part": "suggest", "set": "a", "seed": 0, "suggested": [0.5, 0.9, 0.9], "random": [0.5, 0.7, 0.9]}
    # 95 % of .9 is .855: by a line after .8875 and after 1.775 strokes
    assert "| a | 0.855 | 0.9 | 1.8 | 50% | 0.900 | 0.900 |" in suggestions([line])
