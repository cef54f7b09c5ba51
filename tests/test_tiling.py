from itertools import pairwise

import numpy as np
import pytest
import torch

from emfm import EMError, EMForSemanticSegmentation, EMFoundation, EMFoundationConfig, predict
from emfm.backbones.unet import DILATIONS
from emfm.inference import blocks
from emfm.inference.blocks import Blocks
from emfm.inference.plan import Plan
from emfm.inference.tiling import Blend, Tiling


def assemble(image, tiling, network):
    """Map an image tile by tile; every pixel is finished exactly once."""
    height, width = image.shape
    blend, result, times = Blend(tiling, height, width), None, None
    for i, rows in enumerate(tiling.spans(height)):
        for j, columns in enumerate(tiling.spans(width)):
            row, column, block = blend.add(i, j, network(image[slice(*rows), slice(*columns)]).copy())
            if result is None:
                result = np.full((len(block), height * tiling.scale, width * tiling.scale), np.nan, block.dtype)
                times = np.zeros(result.shape[1:], int)
            place = slice(row, row + block.shape[1]), slice(column, column + block.shape[2])
            result[:, *place] = block
            times[place] += 1
    assert (times == 1).all()
    return result


@pytest.mark.parametrize("shape", [(1, 1), (5, 200), (64, 64), (65, 63), (127, 191), (300, 97)])
@pytest.mark.parametrize(
    "tiling",
    [
        Tiling(64, 0, 0),
        Tiling(64, 0, 16),
        Tiling(64, 8, 16, 8),
        Tiling(64, 20, 3, 4),
        Tiling(48, 16, 0, 16),
        Tiling(33, 5, 7),
    ],
    ids=str,
)
def test_an_identity_network_returns_the_image_exactly(shape, tiling):
    image = np.random.default_rng(0).normal(1e3, 500, shape).astype(np.float32)
    result = assemble(image, tiling, lambda part: np.stack([part, -part]))
    assert np.array_equal(result[0], image)
    assert np.array_equal(result[1], -image)


def test_the_result_never_uses_a_tiles_margin_at_an_inner_cut():
    tiling = Tiling(64, 10, 8, 4)
    image = np.zeros((200, 170), dtype=np.float32)
    positions = iter(range(10_000))

    def poisoned(part):
        output = np.zeros((1, *part.shape), dtype=np.float32)
        index = next(positions)
        rows, columns = tiling.spans(200), tiling.spans(170)
        (top, bottom), (left, right) = rows[index // len(columns)], columns[index % len(columns)]
        if top > 0:
            output[:, :10] = np.nan
        if bottom < 200:
            output[:, -10:] = np.nan
        if left > 0:
            output[:, :, :10] = np.nan
        if right < 170:
            output[:, :, -10:] = np.nan
        return output

    assert np.isfinite(assemble(image, tiling, poisoned)).all()


def test_two_tiles_fade_into_each_other_without_a_step():
    calls = iter(range(10))
    tiling = Tiling(64, 8, 32)
    result = assemble(
        np.zeros((64, 80), np.float32), tiling, lambda part: np.full((1, *part.shape), float(next(calls)), np.float32)
    )
    row = result[0, 0]
    assert row[0] == 0 and row[-1] == 1
    assert np.abs(np.diff(row)).max() <= 1 / 32
    assert (np.diff(row) >= 0).all()


def test_tile_origins_are_multiples_of_the_alignment_and_cover_everything():
    tiling = Tiling(128, 20, 16, 16)
    for length in (1, 128, 129, 500, 1000):
        spans = tiling.spans(length)
        assert all(start % 16 == 0 for start, _ in spans)
        assert spans[0][0] == 0 and spans[-1][1] == length
        assert all(later[0] <= earlier[1] - 56 for earlier, later in pairwise(spans))


def test_a_tile_smaller_than_its_margins_is_refused_with_the_least_size():
    with pytest.raises(EMError, match="at least 120"):
        Tiling(64, 48, 16, 4)


def test_a_network_that_changes_the_size_is_refused():
    with pytest.raises(EMError, match="returned shape"):
        assemble(np.zeros((32, 32)), Tiling(32, 0), lambda part: part[None, ::2])


def maps_of(model, image, tile, margin):
    """Return a model's maps of a micrograph (C, H, W), cut into tiles."""
    how = Plan(Tiling(tile, margin, 16, model.trunk.stride, model.scale), 2, 1)
    result = None
    for row, column, maps in Blocks(model, image, model.processor.statistics(image), how):
        if result is None:
            result = np.full((len(maps), *image.shape), np.nan, np.float32)
        result[:, row : row + maps.shape[1], column : column + maps.shape[2]] = maps
    return result


@pytest.mark.parametrize("name", [*DILATIONS, "hrnet-w18-small"])
def test_tiled_prediction_equals_untiled_where_the_overlap_covers_the_receptive_field(name):
    torch.manual_seed(0)
    model = EMFoundation(EMFoundationConfig.from_name(name, norm="batch"))
    model.train()(torch.randn(4, 1, 64, 64))  # running statistics that are not trivial
    tile = 2 * model.reach + 16 + 2 * model.trunk.stride
    # along one axis it is cut; an HRNet, which sees far, only there
    image = np.random.default_rng(1).normal(0, 1, (75, tile + 61)).astype(np.float32)
    images = [image] if name.startswith("hrnet") else [image, image.T]
    for part in images:
        tiling = Tiling(tile, model.reach, 16, model.trunk.stride)
        assert tiling.count(*part.shape) > 1
        values = torch.from_numpy(model.processor.normalize(part, model.processor.statistics(part)))
        untiled = model.eval().maps(values[None, None])[0].numpy()
        np.testing.assert_allclose(maps_of(model, part, tile, model.reach), untiled, atol=1e-4 * untiled.std())


def instance_norm_model():
    torch.manual_seed(0)
    model = EMFoundation(EMFoundationConfig.from_name("unet3-rf96", norm="instance"))
    for name, parameter in model.named_parameters():
        if ".norm" in name:
            torch.nn.init.normal_(parameter, 1.0, 0.2)
    return model.eval()


def uneven(height, width):
    """A micrograph that is dark on one side, with more contrast on the other."""
    rng = np.random.default_rng(2)
    return (np.linspace(0, 3, width) * (1 + rng.normal(0, 1, (height, width)))).astype(np.float32)


def test_with_instance_norm_tiles_of_a_micrograph_equal_the_whole():
    model, image = instance_norm_model(), uneven(300, 420)
    values = torch.from_numpy(model.processor.normalize(image, model.processor.statistics(image)))
    whole = model.maps(values[None, None])[0].numpy()
    tiled = maps_of(model, image, 2 * model.reach + 100, model.reach)
    np.testing.assert_allclose(tiled, whole, atol=1e-3 * whole.std())
    # each tile with statistics of its own is what this is worth: another result
    left = model.maps(values[None, None, :, :200])[0].numpy()
    assert np.abs(left[:, :, :100] - whole[:, :, :100]).max() > 0.1 * whole.std()


def test_with_instance_norm_the_result_on_a_large_micrograph_does_not_depend_on_the_tile(monkeypatch):
    monkeypatch.setattr(blocks, "NORM_PIXELS", 8 * 64 * 64)
    monkeypatch.setattr(blocks, "NORM_SIDE", 64)
    model, image = instance_norm_model(), uneven(300, 420)
    results = [maps_of(model, image, tile, model.reach) for tile in (2 * model.reach + 60, 300, 512)]
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], atol=1e-3 * results[0].std())


@pytest.mark.parametrize("shape", [(1000, 1000), (400, 9000), (9000, 70), (30, 40)])
def test_squares_for_the_norms_are_spread_over_all_of_the_micrograph(shape):
    size = min(256, shape[0]), min(256, shape[1])
    corners = blocks.spread(shape, size, 16, 8)
    rows, columns = zip(*corners, strict=True)
    assert 1 <= len(corners) == len(set(corners)) <= 16
    for starts, side, whole in ((rows, size[0], shape[0]), (columns, size[1], shape[1])):
        assert max(starts) <= whole - side
        assert abs(min(starts) - (whole - side - max(starts))) <= 8  # as far from one border as from the other
        if len(set(starts)) > 1:
            assert min(starts) == 0


def test_rows_of_tiles_that_were_blended_apart_join_to_the_same_result():
    tiling = Tiling(64, 8, 16, 4, scale=2)
    image = np.random.default_rng(0).normal(0, 1, (150, 170)).astype(np.float32)
    calls = iter(range(1000))

    def network(part):
        return np.kron(part, np.ones((2, 2), np.float32))[None] + next(calls)

    outputs = {
        (i, j): network(image[slice(*rows), slice(*columns)])
        for i, rows in enumerate(tiling.spans(150))
        for j, columns in enumerate(tiling.spans(170))
    }
    together, apart = (np.full((300, 340), np.nan, np.float32) for _ in range(2))

    def fill(target, rows):
        blend = Blend(tiling, 150, 170, rows)
        for (i, j), output in outputs.items():
            if rows[0] <= i < rows[1]:
                row, column, block = blend.add(i, j, output.copy())
                target[row : row + block.shape[1], column : column + block.shape[2]] = block[0]
        return blend

    count = len(tiling.spans(150))
    fill(together, (0, count))
    upper, lower = fill(apart, (0, 2)), fill(apart, (2, count))
    assert np.isnan(apart).any()
    row, ramp = lower.join(upper.tail)
    apart[row : row + ramp.shape[1]] = ramp[0]
    assert np.array_equal(apart, together)


def test_prediction_restores_the_micrographs_units_and_dtype():
    model = EMFoundation(EMFoundationConfig.from_name("unet2-rf44"))
    torch.nn.init.zeros_(model.image_head.weight)
    torch.nn.init.zeros_(model.image_head.bias)
    image = np.random.default_rng(0).integers(1000, 3000, (50, 60)).astype(np.uint16)
    result = predict(model, image)
    low, high = np.percentile(image, [1, 99])
    assert result.output.dtype == np.uint16
    assert (result.output == round((low + high) / 2)).all()


def test_a_segmentation_returns_the_most_likely_class_of_every_pixel():
    model = EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44", id2label={0: "a", 1: "b", 2: "c"}))
    torch.nn.init.zeros_(model.class_head.weight)
    model.class_head.bias.data = torch.tensor([0.0, 2.0, 1.0])
    result = predict(model, np.eye(40, dtype=np.float32))
    assert result.output.dtype == np.uint8
    assert (result.output == 1).all()
    assert result.id2label == {0: "a", 1: "b", 2: "c"}


def test_prediction_leaves_the_models_training_mode_as_it_was():
    model = EMFoundation(EMFoundationConfig.from_name("unet2-rf44")).train()
    predict(model, np.eye(20, dtype=np.float32))
    assert model.training
