"""Simulated ADF-STEM images: reproducible, where the crystal says, and noisy as electrons are."""

import numpy as np
import pytest

from emfm.errors import EMError
from emfm.simulate.stem import PROJECTIONS, StemParameters, simulate_stem

PERFECT = dict(strain=0.0, disorder=0.0, vacancies=(0.0, 0.0), wedge=0.0, mistilt=(0.0, 0.0), background=(0.0, 0.0))
STEADY = dict(jitter=(0.0, 0.0), read_noise=0.0)


def test_the_same_arguments_give_the_same_bytes_and_others_do_not():
    one, two, other = (simulate_stem((64, 80), seed) for seed in (3, 3, 4))
    for name in ("image", "clean", "background_free", "finer"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert (one.image != other.image).mean() > 0.5


def test_images_and_targets_have_their_sizes_and_types_and_share_their_grid():
    found = simulate_stem((64, 80), 0)
    assert found.image.shape == found.clean.shape == found.background_free.shape == (64, 80)
    assert found.image.dtype == np.uint16 and found.finer.dtype == np.float32
    assert found.finer.shape == (128, 160)
    np.testing.assert_array_equal(found.finer[::2, ::2], found.clean)


@pytest.mark.parametrize("name", PROJECTIONS)
def test_every_projection_has_a_peak_at_each_of_its_heavy_columns(name):
    parameters = StemParameters(projections=(name,), pixel_size=(0.01, 0.01), probe=(0.06, 0.06), **PERFECT)
    found = simulate_stem((128, 128), 1, parameters)
    assert found.projection == name
    rows, columns = np.rint(2 * found.positions).astype(int).T
    inside = (rows > 4) & (rows < 251) & (columns > 4) & (columns < 251)
    field = found.finer - parameters.offset
    heights = field[rows[inside], columns[inside]]
    bright = heights > 0.5 * field.max()
    assert bright.sum() > 5
    for row, column in zip(rows[inside][bright], columns[inside][bright], strict=True):
        around = field[row - 4 : row + 5, column - 4 : column + 5]
        assert around.max() < 1.08 * field[row, column]  # no higher point near by


@pytest.mark.parametrize(("name", "area"), [("Au [100]", 0.2039**2), ("graphene", 0.246**2 * 3**0.5 / 4)])
def test_columns_have_the_density_of_the_crystal(name, area):
    found = simulate_stem((256, 256), 2, StemParameters(projections=(name,), pixel_size=(0.02, 0.02), **PERFECT))
    inside = ((found.positions >= 0) & (found.positions < 256)).all(axis=1).sum()
    assert inside * area == pytest.approx((256 * 0.02) ** 2, rel=0.06)


def test_neighbours_lie_at_the_lattice_constant_whatever_the_turn():
    found = simulate_stem((128, 128), 5, StemParameters(projections=("Au [100]",), pixel_size=(0.01, 0.01), **PERFECT))
    distances = np.linalg.norm(found.positions[:, None] - found.positions, axis=2)
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_allclose(distances.min(axis=1) * found.pixel_size, 0.2039, rtol=1e-6)


def test_heavier_columns_are_brighter_by_their_atomic_number():
    parameters = StemParameters(projections=("GaAs [110]",), pixel_size=(0.004, 0.004), probe=(0.06, 0.06), **PERFECT)
    found = simulate_stem((256, 256), 0, parameters)
    rows, columns = np.rint(found.positions).astype(int).T
    inside = (rows > 20) & (rows < 236) & (columns > 20) & (columns < 236)
    heights = np.sort((found.background_free - parameters.offset)[rows[inside], columns[inside]])
    ratio = heights[: len(heights) // 3].mean() / heights[-len(heights) // 3 :].mean()
    assert ratio == pytest.approx((31 / 33) ** 1.7, abs=0.03)


def test_the_noise_is_that_of_counted_electrons():
    parameters = StemParameters(dose=(50.0, 50.0), **STEADY)
    found = simulate_stem((256, 256), 7, parameters)
    electrons = (found.image - parameters.offset) / parameters.gain
    expected = (found.clean - parameters.offset) / parameters.gain
    np.testing.assert_allclose(electrons, np.rint(electrons))
    assert float(((electrons - expected) ** 2).mean()) == pytest.approx(float(expected.mean()), rel=0.03)
    assert float((electrons - expected).mean()) == pytest.approx(0, abs=0.05)


def test_the_background_is_what_the_two_targets_differ_by_and_varies_slowly():
    found = simulate_stem((128, 128), 3, StemParameters(background=(0.5, 0.5), dose=(100.0, 100.0), gain=1.0))
    difference = found.clean - found.background_free
    assert difference.min() >= -1e-3
    assert float(difference.max()) == pytest.approx(50, rel=0.01)
    assert np.abs(np.diff(difference, axis=0)).max() < 3


def test_displaced_lines_are_in_the_image_and_not_in_the_targets():
    calm, shaken = (
        simulate_stem((128, 128), 2, StemParameters(jitter=jitter, dose=(1e4, 1e4), gain=1.0, read_noise=0.0))
        for jitter in ((0.0, 0.0), (1.5, 1.5))
    )
    np.testing.assert_array_equal(calm.clean, shaken.clean)
    error = [np.abs(found.image - found.clean).mean() for found in (calm, shaken)]
    assert error[1] > 3 * error[0]


@pytest.mark.parametrize(
    "changes",
    [{"projections": ("NaCl",)}, {"projections": ()}, {"probe": (0.2, 0.1)}, {"dose": (0.0, 1.0)}, {"strain": -1.0}],
)
def test_parameters_that_cannot_be_are_refused(changes):
    with pytest.raises(EMError, match=next(iter(changes))):
        StemParameters(**changes)


@pytest.mark.parametrize(("shape", "seed"), [((16, 64), 0), ((64,), 0), ((64, 64), -1), ((64, 64), 1.5)])
def test_wrong_shapes_and_seeds_are_refused(shape, seed):
    with pytest.raises(EMError, match=r"shape is|seed is"):
        simulate_stem(shape, seed)
