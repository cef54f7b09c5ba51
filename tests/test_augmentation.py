"""How training crops are varied: views, intensities, edges, pixels without data."""

import numpy as np
import pytest
import torch

from emfm import EMImageProcessor, predict
from emfm.data.augmentation import Augmentation, sample, sample_nearest
from emfm.data.croppers import part_around
from emfm.data.examples import IGNORED
from emfm.tasks.segmentation import SegmentationCropper


def crops(image, mask, strength, count=40, side=32):
    cropper = SegmentationCropper(EMImageProcessor(), side, Augmentation(0.0, strength))
    prepared = cropper.prepare(image, mask)
    return [cropper.crop(prepared, (0, 0, number)) for number in range(count)]


def test_a_mask_is_moved_with_its_micrograph():
    """The micrograph is its own mask: after any view both still say the same."""
    mask = np.zeros((90, 120), np.int16)
    mask[20:60, 30:80] = 1
    image = mask.astype(np.float32)
    for crop in crops(image, mask, 1.0):
        values, classes = crop["pixel_values"][0].numpy(), crop["labels"].numpy()
        inside = values > 0
        assert (inside == (classes == 1)).mean() > 0.93  # but for noise, and the edge


def test_without_strength_crops_are_pixels_of_the_micrograph():
    image = np.random.default_rng(0).permutation(90 * 120).reshape(90, 120).astype(np.float32)
    known = set(np.round(EMImageProcessor().normalize(image, EMImageProcessor().statistics(image)), 4).ravel().tolist())
    for crop in crops(image, np.zeros((90, 120), np.int16), 0.0, count=8):
        assert set(np.round(crop["pixel_values"].numpy(), 4).ravel().tolist()) <= known


def test_views_zoom_and_turn_within_their_range():
    augmentation, rng = Augmentation(0.0, 1.0), np.random.default_rng(0)
    views = [augmentation.view(rng, (50, 60), 65) for _ in range(300)]
    some = [view for view in views if view is not None]
    assert 0.6 < len(some) / len(views) < 0.8
    for view in some:
        middle = view[:, 32, 32]
        assert np.abs(middle - (50, 60)).max() < 30  # bent at most
    lengths = [np.linalg.norm(view[:, 64, 64] - view[:, 0, 0]) / np.hypot(64, 64) for view in some]
    assert min(lengths) < 0.8 and max(lengths) > 1.2 and min(lengths) > 0.5 and max(lengths) < 1.9
    angles = [np.arctan2(*(view[:, 32, 64] - view[:, 32, 0])) for view in some]
    assert min(angles) < -0.6 and max(angles) > 0.6


@pytest.mark.parametrize("centre", [(40, 50), (2, 3), (88, 118), (45, 118)])
def test_what_a_view_takes_of_a_part_is_what_it_takes_of_the_whole(centre):
    image = np.random.default_rng(0).random((90, 120)).astype(np.float32)
    rng = np.random.default_rng(1)
    for _ in range(20):
        view = Augmentation(0.0, 1.0).view(rng, centre, 32)
        if view is None:
            continue
        part, corner = part_around(image, view)
        np.testing.assert_allclose(sample(part, view - corner), sample(image, view), atol=1e-6)
        np.testing.assert_array_equal(sample_nearest(part, view - corner), sample_nearest(image, view))


def test_pixels_without_data_stay_without_truth():
    image = np.random.default_rng(0).random((90, 120)).astype(np.float32)
    image[:, :50] = np.nan
    mask = np.ones((90, 120), np.int16)
    mask[np.isnan(image)] = IGNORED
    for crop in crops(image, mask, 1.0):
        classes, values = crop["labels"], crop["pixel_values"][0]
        assert set(classes.unique().tolist()) <= {1, IGNORED}
        assert torch.isfinite(values).all()


def test_intensities_keep_their_order_of_size():
    values = np.random.default_rng(0).uniform(-1, 1, (64, 64)).astype(np.float32)
    rng = np.random.default_rng(0)
    changed = [Augmentation(0.0, 1.0).degrade(rng, values) for _ in range(100)]
    assert all(c.dtype == np.float32 and np.isfinite(c).all() and np.abs(c).max() < 3 for c in changed)
    assert sum(np.array_equal(c, values) for c in changed) < 60
    assert np.array_equal(Augmentation(0.2, 0.0).degrade(rng, values), values)


def test_the_mean_over_symmetries_is_the_mean_of_eight_predictions(toy_model):
    image = np.random.default_rng(0).normal(100, 20, (64, 300)).astype(np.float32)
    expected = np.zeros((64, 300))
    for mirrored in (False, True):
        for quarters in range(4):
            turned = np.rot90(image[:, ::-1] if mirrored else image, quarters)
            back = np.rot90(predict(toy_model, np.ascontiguousarray(turned)).output, -quarters)
            expected += (back[:, ::-1] if mirrored else back) / 8
    found = predict(toy_model, image, tta=True).output
    np.testing.assert_allclose(found, expected, atol=1e-3 * expected.std())
    assert not np.allclose(found, predict(toy_model, image).output, atol=1e-3 * expected.std())
    tiled = predict(toy_model, image, tta=True, tile=128).output
    np.testing.assert_allclose(tiled, found, atol=1e-3 * expected.std())


@pytest.fixture
def toy_model():
    from emfm import EMFoundation, EMFoundationConfig

    torch.manual_seed(0)
    model = EMFoundation(EMFoundationConfig.from_name("unet2-rf44")).eval()
    torch.nn.init.normal_(model.image_head.weight, 0, 0.5)
    return model
