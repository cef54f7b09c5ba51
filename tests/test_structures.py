"""Simulated structures and what pretraining learns from them; the responses of hand-made filters."""

import numpy as np
import pytest
import torch

from emfm import EMError, EMFoundation, EMFoundationConfig, EMImageProcessor, load_em_dataset
from emfm.pretraining.crops import StructureCrops, boundaries, flattened
from emfm.pretraining.pretext import CHANNELS, Crops, Pretext, filter_responses, pretext_losses
from emfm.simulate.folder import write_simulated_folder
from emfm.simulate.structures import MOST_CLASSES, simulate_structures

SHAPE = (48, 64)


def test_a_seed_decides_the_image_and_its_classes():
    one, same, other = simulate_structures(SHAPE, 3), simulate_structures(SHAPE, 3), simulate_structures(SHAPE, 4)
    assert np.array_equal(one.image, same.image) and np.array_equal(one.mask, same.mask)
    assert not np.array_equal(one.image, other.image)
    assert one.image.dtype == np.uint16 and one.mask.dtype == np.uint8 and one.image.shape == one.mask.shape == SHAPE


def test_most_images_have_several_classes_and_a_contrast_that_shows_them():
    """In a typical image the classes' means lie further apart than chance would have them."""
    simulated = [simulate_structures((64, 64), (9, index)) for index in range(60)]
    assert all(item.mask.max() < MOST_CLASSES for item in simulated)
    assert sum(len(np.unique(item.mask)) > 1 for item in simulated) > 50
    explained = []
    for item in simulated:
        image = item.image.astype(float)
        means = np.array([image[item.mask == c].mean() if (item.mask == c).any() else 0 for c in range(MOST_CLASSES)])
        explained.append(means[item.mask].var() / image.var())
    # some differ by their texture alone
    assert 0.2 < np.median(explained) < 0.9 and min(explained) < 0.05


@pytest.mark.parametrize(
    ("shape", "seed", "message"), [((16, 64), 0, r"shape is \(16, 64\)"), ((64, 64), (1, -2), "seed is -2")]
)
def test_what_cannot_be_simulated_is_refused(shape, seed, message):
    with pytest.raises(EMError, match=message):
        simulate_structures(shape, seed)


def test_the_folder_of_structures_is_a_labelled_data_set(tmp_path):
    write_simulated_folder("structures", tmp_path / "out", 6, (64, 64), 1)
    train = load_em_dataset(tmp_path / "out", "train")
    assert len(train) == 4 and len(train.id2label) == MOST_CLASSES
    assert all(image.shape == mask.shape == (64, 64) for image, mask in zip(train.images, train.masks, strict=True))


def test_flat_regions_are_the_classes_means_scaled():
    mask = np.array([[0, 0, 2, 2]] * 2, dtype=np.uint8)
    image = np.array([[1, 3, 10, 10], [2, 2, 12, 8]], dtype=np.float32)
    flat = flattened(image, mask)
    assert flat[mask == 0].tolist() == [pytest.approx(-4 / 4.05)] * 4
    assert flat[mask == 2].tolist() == [pytest.approx(4 / 4.05)] * 4


def test_boundaries_lie_on_both_sides_of_a_change_and_nowhere_else():
    mask = np.zeros((5, 9), dtype=np.uint8)
    mask[:, 5:] = 1
    assert boundaries(mask).tolist() == [[0, 0, 0, 0, 1, 1, 1, 0, 0]] * 5
    assert not boundaries(np.ones((4, 4), dtype=np.uint8)).any()


def test_structure_crops_are_decided_by_seed_and_index():
    crops = StructureCrops(EMImageProcessor(), 48, 3, seed=5)
    one, again = crops[1], StructureCrops(EMImageProcessor(), 48, 3, seed=5)[1]
    assert all(torch.equal(one[key], again[key]) for key in one) and one["regions"].shape == (2, 48, 48)
    assert not torch.equal(one["structures"], crops[2]["structures"])
    low, high = np.percentile(one["structures"].numpy(), [1, 99])
    assert (low, high) == (pytest.approx(-1, abs=0.05), pytest.approx(1, abs=0.05))
    with pytest.raises(IndexError):
        crops[3]


def test_filters_answer_to_what_they_are_made_for():
    rows, columns = torch.meshgrid(torch.arange(41.0), torch.arange(41.0), indexing="ij")
    ramp, ridge = 0.1 * columns, torch.exp(-((rows - 20) ** 2) / (2 * 2.0**2))
    flat = torch.full((41, 41), 0.3)
    found = filter_responses(torch.stack([ramp, ridge, flat])[:, None])[..., 20, 20]  # (3, 15)
    assert found.shape[1] == CHANNELS
    gradient, larger, smaller, contrast, smooth = found[:, 5:10].T  # at a scale of 2 px
    assert gradient.tolist() == [
        pytest.approx(3 * 2 * 0.1, rel=1e-3),
        pytest.approx(0, abs=1e-3),
        pytest.approx(0, abs=1e-3),
    ]
    # a Gaussian ridge of deviation 2, smoothed by 2, has the deviation 8^.5 and the curvature
    # -height / 8 across it
    assert float(smaller[1]) == pytest.approx(-3 * 4 * 0.5**0.5 / 8, rel=0.15) and abs(float(larger[1])) < 0.01
    assert abs(float(larger[2])) < 1e-3 and abs(float(smaller[2])) < 1e-3
    assert float(contrast[2]) < 1e-3 < float(contrast[1])
    assert smooth.tolist() == [pytest.approx(2.0, abs=1e-3), pytest.approx(0.5**0.5, rel=0.02), pytest.approx(0.3)]


def test_turning_an_image_turns_its_responses():
    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    turned = filter_responses(torch.rot90(images, 1, (2, 3)))
    torch.testing.assert_close(torch.rot90(filter_responses(images), 1, (2, 3)), turned, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_each_signal_has_its_head_and_its_loss_and_none_changes_the_reconstruction():
    torch.manual_seed(0)
    generator = EMFoundation(EMFoundationConfig.from_name("unet2-rf44"))
    clean, structures, regions = torch.randn(2, 1, 32, 32), torch.randn(3, 1, 32, 32), torch.rand(3, 2, 32, 32)
    crops = Crops(clean + 0.1, clean, structures, regions)
    plain = Pretext(generator)(crops.damaged)
    assert pretext_losses(plain, crops) == {}
    pretext = Pretext(generator, filters=True, structures=True)
    output = pretext(crops.damaged, crops.structures)
    assert torch.equal(output.reconstruction, plain.reconstruction)
    assert output.filters.shape == (2, CHANNELS, 32, 32) and output.regions.shape == (3, 2, 32, 32)
    losses = pretext_losses(output, crops)
    assert float(losses["filters"]) == pytest.approx(float((output.filters - filter_responses(clean)).abs().mean()))
    assert float(losses["regions"]) == pytest.approx(float((output.regions[:, :1] - regions[:, :1]).abs().mean()))
    probability, truth = output.regions[:, 1:].sigmoid(), regions[:, 1:]
    entropy = -(truth * probability.log() + (1 - truth) * (1 - probability).log()).mean()
    assert float(losses["boundaries"]) == pytest.approx(float(entropy), rel=1e-4)
