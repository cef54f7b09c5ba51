"""The benchmark of volumes: its simulation, and the tables that the page shows."""

from pathlib import Path

import numpy as np
from scipy import ndimage

from benchmarks.ball_volume import BALL, MATRIX, RADII, simulate_balls
from benchmarks.json_lines import read_lines
from benchmarks.volumes import RESULTS, plane_table, psnr, stack_table

ROOT = Path(__file__).parent.parent


def test_balls_have_the_sizes_that_were_drawn_and_some_of_them_touch():
    found = simulate_balls((64, 64, 64), 3)
    again = simulate_balls((64, 64, 64), 3)
    np.testing.assert_array_equal(found.image, again.image)
    voxels = np.bincount(found.ids.ravel(), minlength=len(found.radii) + 1)[1:]
    boxes = ndimage.find_objects(found.ids.astype(int))
    whole = [
        number for number, box in enumerate(boxes) if box and all(part.start > 0 and part.stop < 64 for part in box)
    ]
    assert len(whole) > 3
    for number in whole:
        assert RADII[0] <= found.radii[number] <= RADII[1]
        assert abs(voxels[number] / (4 / 3 * np.pi * found.radii[number] ** 3) - 1) < 0.03
    assert ndimage.label(found.ids > 0, np.ones((3, 3, 3)))[1] < len(np.unique(found.ids)) - 1
    inside = ndimage.binary_erosion(found.ids > 0, iterations=3)
    outside = ~ndimage.binary_dilation(found.ids > 0, iterations=3)
    assert abs(found.clean[inside].mean() - found.clean[outside].mean() - (BALL - MATRIX)) < 5


def test_the_ratio_of_signal_to_noise_is_that_of_its_formula():
    clean = np.zeros((2, 3, 4))
    assert abs(psnr(clean + 10, clean) - 28.1308) < 1e-3


def test_the_page_shows_what_the_benchmark_prints_of_its_results():
    results, page = read_lines(ROOT / RESULTS), (ROOT / "docs" / "volumes.md").read_text()
    assert plane_table(results) in page and stack_table(results) in page
    assert all(one["same_bytes"] and one["peak_mib"] < 1024 for one in results if one["part"] == "memory")
