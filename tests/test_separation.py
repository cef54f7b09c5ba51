"""From maps to objects: peaks, gaps, holes, thresholds that are chosen, and micrographs that are scaled down."""

import numpy as np
import pytest
import torch
from test_instances import discs, perfect_maps, separated

from emfm import EMError, EMFoundationConfig, predict
from emfm.data.object_sizes import diameters, least_area, shrink_for
from emfm.data.objects import BOUNDARY, LabelledObjects, object_map
from emfm.finetuning.separation import fit_separation
from emfm.tasks.instances import EMForInstanceSegmentation
from emfm.tasks.separation import Separation
from emfm.tasks.watershed import packed, separate

PEAKS = Separation(boundary=0.6, middle=0.1, depth=0.2, rim=0)


def found_by(maps, how):
    found = np.zeros(maps.shape[1:], np.uint32)

    def write(row, column, block):
        found[row : row + block.shape[0], column : column + block.shape[1]] = block

    separate(packed(maps), write, how=how)
    return found


def hills(tops, saddle):
    """Return maps of a strip with hills of the distance and saddles between them, no boundary."""
    line = np.interp(np.arange(20 * len(tops)), *np.transpose(list(_knots(tops, saddle))))
    distance = np.broadcast_to(line, (24, len(line)))
    return np.stack([np.ones_like(distance), np.zeros_like(distance), distance]).astype(np.float32)


def _knots(tops, saddle):
    yield 0, saddle
    for number, top in enumerate(tops):
        yield 20 * number + 10, top
        yield 20 * number + 20, saddle


def test_peaks_of_any_height_are_objects_and_shallow_ones_are_none():
    assert len(np.unique(found_by(hills((0.9, 0.5), 0.1), PEAKS))) == 2  # numbers, no background
    assert len(np.unique(found_by(hills((0.9, 0.84), 0.8), PEAKS))) == 1
    # one threshold loses the lower hill
    assert len(np.unique(found_by(hills((0.9, 0.5), 0.1), Separation(middle=0.6, rim=0)))) == 1


def test_perfect_maps_give_objects_back_by_their_peaks():
    ids = discs((100, 140), [(20, 20), (20, 37), (60, 60), (90, 120), (60, 78)], 10)
    found = found_by(perfect_maps(ids), PEAKS)
    assert len(np.unique(found)) == len(np.unique(ids)) and (found > 0).sum() > 0.95 * (ids > 0).sum()


def test_a_hole_is_filled_and_a_wide_one_is_not():
    maps = perfect_maps(discs((80, 80), [(40, 40)], 30))
    small, wide = maps.copy(), maps.copy()
    small[0][discs((80, 80), [(40, 52)], 4) > 0] = 0
    small[1][discs((80, 80), [(40, 52)], 4) > 0] = 1
    wide[:, discs((80, 80), [(40, 40)], 22) > 0] = 0
    assert separated(small)[40, 52] > 0 and separated(wide)[40, 40] == 0


def test_objects_that_the_network_doubts_are_left_out():
    maps = perfect_maps(discs((60, 100), [(30, 25), (30, 75)], 15))
    maps[0, :, 50:] *= 0.6
    assert len(np.unique(found_by(maps, Separation()))) == 3
    assert len(np.unique(found_by(maps, Separation(sure=0.75)))) == 2


@pytest.mark.parametrize(
    "content", [{"middle": 2.0}, {"rim": -1}, {"rim": 0.5}, {"foreground": "high"}, {"unheard_of": 1}]
)
def test_wrong_thresholds_are_refused_by_name(content):
    with pytest.raises(EMError, match=next(iter(content))):
        EMForInstanceSegmentation(EMFoundationConfig.from_name("unet2-rf44", separation=content))


def test_a_model_that_says_nothing_has_the_thresholds_of_earlier_versions():
    expected = Separation(foreground=0.5, boundary=0.5, middle=0.45, depth=0.0, rim=4, least_area=9, sure=0.0)
    assert Separation.of(None) == expected


def test_large_objects_are_scaled_down_and_small_ones_are_not():
    def of(radius):
        return discs((300, 300), [(75, 75), (75, 225), (225, 75)], radius)

    assert [shrink_for([of(radius)]) for radius in (10, 40, 70)] == [1, 2, 4]
    small = discs((300, 300), [(y, x) for y in range(20, 300, 40) for x in range(20, 300, 40)], 4)
    assert shrink_for([of(70), of(70), small]) == 1  # a tenth would vanish
    assert shrink_for([np.zeros((9, 9), np.int32)]) == 1
    np.testing.assert_allclose(diameters(of(40)), 80, rtol=0.01)
    assert least_area([of(3)], 64) == pytest.approx(np.pi * 9 / 2, rel=0.1) and least_area([of(40)], 64) == 64


def test_the_boundary_is_as_wide_as_the_network_sees_it():
    ids = discs((80, 80), [(40, 40)], 30)
    one, two = ((object_map(ids, width) >= BOUNDARY).sum() for width in (1, 2))
    assert two == pytest.approx(2 * one, rel=0.15)


def model_of(shrink, **fields):
    torch.manual_seed(0)
    config = EMFoundationConfig.from_name("unet2-rf44", norm="batch", shrink=shrink, **fields)
    return EMForInstanceSegmentation(config).eval()


def test_scaled_down_and_enlarged_maps_have_the_size_of_the_micrograph():
    model = model_of(2)
    assert model.stride == 2 * model.trunk.stride and model.reach == 2 * (model.trunk.reach + 1)
    for shape in ((64, 96), (61, 45)):
        values = torch.randn(1, 1, *shape)
        assert model.maps(values).shape == (1, 3, *shape)
        head = model.object_head(model.last_features(values))
        torch.testing.assert_close(head, model(values).logits, rtol=1e-4, atol=1e-4)


def test_tiles_of_a_model_that_scales_down_give_the_same_objects():
    model = model_of(2)
    image = np.random.default_rng(0).normal(100, 20, (300, 340)).astype(np.float32)
    whole, tiled = (predict(model, image, tile=tile, compare=False, precision="fp32").output for tile in (None, 256))
    assert (whole == tiled).mean() > 0.99


class Oracle(EMForInstanceSegmentation):
    """Finds distances that are too low for the thresholds of its configuration."""

    @torch.no_grad()
    def maps(self, pixel_values):
        ids = (pixel_values[:, 0].numpy() > 0).astype(np.int32)
        return torch.from_numpy(np.stack([perfect_maps(one) for one in ids]) * [[[[0.7]], [[1]], [[1]]]]).float()


def test_thresholds_are_chosen_by_the_objects_that_they_give():
    ids = discs((96, 96), [(30, 30), (66, 66)], 15)
    image = np.where(ids > 0, 200, 50).astype(np.float32)
    data = LabelledObjects([image], ["a.png"], [None], [ids])
    config = EMFoundationConfig.from_name("unet2-rf44", separation={"sure": 0.75, "depth": 0.2, "middle": 0.1})
    chosen = fit_separation(Oracle(config), data)
    assert chosen.sure == 0.6 and chosen.depth == 0.2  # the rest was good
