"""Outlines of objects: ROI files that, read back and filled, are the objects pixel for pixel."""

import numpy as np
import pytest
import roifile
from skimage.draw import polygon2mask

from emfm.reports.outlines import outline_of, write_outlines
from emfm.reports.prediction import ObjectClasses


def filled(points, shape):
    """Return which pixels' middles lie in a polygon, by the even-odd rule, as ImageJ fills it."""
    inside = np.zeros(shape, dtype=bool)
    rows, columns = np.indices(shape) + 0.5
    for (x, y), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if y != y2:
            crossing = x + (rows - y) * (x2 - x) / (y2 - y)
            inside ^= (np.minimum(y, y2) < rows) & (rows < np.maximum(y, y2)) & (columns > crossing)
    return inside


def ring_and_more():
    """A ring with an island in it, a pixel that touches it by a corner, and a part far away."""
    mask = np.zeros((24, 30), dtype=bool)
    rows, columns = np.indices(mask.shape)
    distance = np.hypot(rows - 10, columns - 10)
    mask[(distance < 9) & (distance > 4)] = True
    mask[10, 10] = True
    mask[20:23, 24:29] = True
    mask[3, 3] = mask[4, 4] = True
    return mask


@pytest.mark.parametrize("seed", range(6))
def test_any_mask_is_its_own_outline_filled(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((17, 23)) < 0.2 + 0.1 * seed
    np.testing.assert_array_equal(filled(outline_of(mask), mask.shape), mask)


def test_holes_islands_and_corners_are_kept():
    mask = ring_and_more()
    np.testing.assert_array_equal(filled(outline_of(mask), mask.shape), mask)


def test_a_rectangle_has_four_corners():
    mask = np.zeros((9, 9), dtype=bool)
    mask[2:5, 3:8] = True
    assert outline_of(mask).tolist() == [[3, 2], [8, 2], [8, 5], [3, 5]]


def test_the_file_read_back_and_filled_equals_every_object(tmp_path):
    rng = np.random.default_rng(0)
    ids = np.zeros((120, 160), np.uint32)
    rows, columns = np.indices(ids.shape)
    for number in range(1, 30):
        y, x = rng.integers(0, 120), rng.integers(0, 160)
        ids[np.hypot(rows - y, columns - x) < rng.integers(3, 15)] = number
    there = [number for number in np.unique(ids) if number]
    path = tmp_path / "a_outlines.zip"
    assert write_outlines(path, ids) == len(there)
    rois = roifile.roiread(path)
    assert [int(roi.name) for roi in rois] == there
    for roi in rois:
        mask = ids == int(roi.name)
        np.testing.assert_array_equal(filled(roi.coordinates(), ids.shape), mask)
        assert roi.roitype == roifile.ROI_TYPE.POLYGON
    # another reader of polygons agrees: its pixels' middles are whole numbers
    simple = next(roi for roi in rois if len(outline_of(ids == int(roi.name))) > 8)
    found = polygon2mask(ids.shape, simple.coordinates()[:, ::-1] - 0.5)
    assert (found != (ids == int(simple.name))).mean() < 1e-3


def test_names_say_number_and_class(tmp_path):
    ids = np.zeros((20, 20), np.uint32)
    ids[2:5, 2:5], ids[10:14, 10:14] = 7, 12
    of = np.zeros(13, np.uint8)
    of[12] = 1
    write_outlines(tmp_path / "a.zip", ids, ObjectClasses(of, {0: "rod", 1: "sphere"}))
    assert [roi.name for roi in roifile.roiread(tmp_path / "a.zip")] == ["0007-rod", "0012-sphere"]


def test_without_objects_the_file_is_an_empty_archive(tmp_path):
    assert write_outlines(tmp_path / "a.zip", np.zeros((20, 20), np.uint32)) == 0
    assert (tmp_path / "a.zip").is_file()


def test_places_beyond_what_16_bits_hold_come_back(tmp_path):
    ids = np.zeros((3, 70_000), np.uint32)
    ids[1, 69_990:69_995], ids[0:2, 40_000:40_010] = 1, 2
    write_outlines(tmp_path / "a.zip", ids)
    for roi in roifile.roiread(tmp_path / "a.zip"):
        np.testing.assert_array_equal(filled(roi.coordinates(), ids.shape), ids == int(roi.name))
