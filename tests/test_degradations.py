import numpy as np
import pytest
import torch
from torch import Tensor

from emfm.data.degradations import Corruption, CorruptionStrength, gaussian_blur
from emfm.data.patches import dihedral
from emfm.errors import EMError

NOTHING = CorruptionStrength(noise=(0.0, 0.0), blur=(0.0, 0.0), masked_share=(0.0, 0.0))


def clean_batch(count: int = 6, side: int = 40) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (count, 1, side, side)).astype(np.float32))


@pytest.mark.parametrize("kind", ["paper", "masked"])
def test_the_damage_of_a_crop_depends_on_seed_and_key_and_not_on_its_batch(kind):
    clean, keys = clean_batch(), torch.tensor([5, 0, 17, 3, 1000, 8])
    corrupt = Corruption(kind, CorruptionStrength(), seed=1)
    together = corrupt(clean, keys)
    torch.manual_seed(0)
    np.random.seed(0)
    order = torch.tensor([3, 5, 1, 0, 4, 2])
    shuffled = Corruption(kind, CorruptionStrength(), seed=1)(clean[order], keys[order])
    torch.testing.assert_close(shuffled, together[order], rtol=0, atol=1e-5)
    for index in range(len(clean)):
        alone = corrupt(clean[index : index + 1], keys[index : index + 1])
        torch.testing.assert_close(alone, together[index : index + 1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["paper", "masked"])
def test_another_key_or_seed_gives_other_damage(kind):
    clean = clean_batch(1).expand(8, -1, -1, -1)
    keys = torch.arange(8)
    damaged = Corruption(kind, CorruptionStrength(), seed=1)(clean, keys)
    assert len({crop.numpy().tobytes() for crop in damaged}) == 8
    other = Corruption(kind, CorruptionStrength(), seed=2)(clean, keys)
    assert all((one - two).abs().max() > 0.01 for one, two in zip(damaged, other, strict=True))


@pytest.mark.parametrize("kind", ["paper", "masked"])
@pytest.mark.parametrize("strength", [CorruptionStrength(), NOTHING])
def test_the_clean_crops_are_not_modified(kind, strength):
    clean = clean_batch()
    before = clean.clone()
    Corruption(kind, strength, seed=1)(clean, torch.arange(6)).fill_(9)
    torch.testing.assert_close(clean, before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["paper", "masked"])
def test_damage_of_no_strength_leaves_the_crops_as_they_are(kind):
    clean = clean_batch()
    torch.testing.assert_close(Corruption(kind, NOTHING, seed=1)(clean, torch.arange(6)), clean, rtol=0, atol=0)


@pytest.mark.parametrize("sigmas", [[0.0, 0.0], [0.0, 2.0]])
def test_a_blur_of_zero_leaves_the_image_whatever_the_others_get(sigmas):
    clean = clean_batch(2)
    blurred = gaussian_blur(clean, torch.tensor(sigmas))
    torch.testing.assert_close(blurred[0], clean[0], rtol=0, atol=1e-6)
    assert (blurred[1] - clean[1]).abs().max() > 0.1 or sigmas[1] == 0


def reference_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur (H, W) with a Gaussian that reaches 5 standard deviations, edges mirrored."""
    radius = int(np.ceil(5 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(image, radius, mode="reflect")
    rows = np.apply_along_axis(np.convolve, 0, padded, kernel, mode="valid")
    return np.apply_along_axis(np.convolve, 1, rows, kernel, mode="valid")


def test_the_blur_of_each_image_equals_a_reference_gaussian():
    images = clean_batch(4, side=36)
    images[:, :, :, 18:] = 1  # an edge, and a corner of noise
    images[:, :, 12:, :18] = -1
    sigmas = torch.tensor([0.5, 1.0, 1.5, 2.0])
    blurred = gaussian_blur(images, sigmas)
    for image, found, sigma in zip(images[:, 0].double().numpy(), blurred[:, 0].numpy(), sigmas.tolist(), strict=True):
        np.testing.assert_allclose(found, reference_blur(image, sigma), rtol=0, atol=0.01)
        # the tolerance tells a blur that is a tenth stronger
        assert np.abs(found - reference_blur(image, 1.1 * sigma)).max() > 0.02


def test_a_blur_keeps_a_constant_image_and_is_symmetric_about_a_point():
    images = torch.stack([torch.full((1, 25, 25), 0.7), torch.zeros(1, 25, 25)])
    images[1, 0, 12, 12] = 1
    constant, point = gaussian_blur(images, torch.tensor([1.3, 1.3]))[:, 0]
    torch.testing.assert_close(constant, images[0, 0], rtol=0, atol=1e-6)
    for symmetry in range(8):
        np.testing.assert_allclose(dihedral(point.numpy(), symmetry), point.numpy(), atol=1e-7)
    offsets = torch.arange(25.0) - 12
    assert float((point.sum(dim=0) * offsets**2).sum()) == pytest.approx(1.3**2, rel=0.04)


def test_a_blur_that_reaches_beyond_the_image_is_refused_with_both_sizes():
    with pytest.raises(EMError, match=r"blur of 4\.0 px reaches 12 px, the image is 12 x 30"):
        gaussian_blur(torch.zeros(1, 1, 12, 30), torch.tensor([4.0]))


@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_the_noise_has_the_standard_deviation_of_its_strength(sigma):
    clean = clean_batch(8, side=64)
    strength = CorruptionStrength(noise=(sigma, sigma), blur=(0.0, 0.0))
    noise = (Corruption("paper", strength, seed=0)(clean, torch.arange(8)) - clean).numpy().reshape(8, -1)
    np.testing.assert_allclose(noise.std(axis=1), sigma, rtol=0.06)  # 5 standard deviations of 4096 samples
    np.testing.assert_allclose(noise.mean(axis=1), 0, atol=0.08 * sigma)
    between = np.corrcoef(noise) - np.eye(8)
    assert np.abs(between).max() < 0.08
    kurtosis = ((noise / noise.std()) ** 4).mean()
    assert kurtosis == pytest.approx(3, abs=0.15)  # Gaussian


def test_each_crop_draws_its_noise_uniformly_from_the_range():
    clean = torch.zeros(200, 1, 24, 24)
    strength = CorruptionStrength(noise=(0.2, 0.6), blur=(0.0, 0.0))
    drawn = Corruption("paper", strength, seed=0)(clean, torch.arange(200)).std(dim=(1, 2, 3))
    assert 0.17 < drawn.min() < 0.25 and 0.55 < drawn.max() < 0.68
    assert float(drawn.mean()) == pytest.approx(0.4, abs=0.04)
    assert float(drawn.std()) == pytest.approx(0.4 / np.sqrt(12), rel=0.2)


@pytest.mark.parametrize(("share", "block"), [(0.2, 4), (0.5, 8)])
def test_masked_hides_its_share_of_the_area_in_blocks(share, block):
    clean = torch.ones(8, 1, 64, 64)
    strength = CorruptionStrength(noise=(0.0, 0.0), blur=(0.0, 0.0), masked_share=(share, share), block=block)
    damaged = Corruption("masked", strength, seed=0)(clean, torch.arange(8))[:, 0]
    assert set(damaged.unique().tolist()) == {0.0, 1.0}
    cells = damaged.reshape(8, 64 // block, block, 64 // block, block)
    torch.testing.assert_close(cells.amin(dim=(2, 4)), cells.amax(dim=(2, 4)), rtol=0, atol=0)  # blocks are whole
    assert float(1 - damaged.mean()) == pytest.approx(share, abs=0.08)
    assert len({crop.numpy().tobytes() for crop in damaged}) == 8


def test_masked_hides_blocks_cut_by_the_edge_where_the_size_is_no_multiple():
    strength = CorruptionStrength(noise=(0.0, 0.0), blur=(0.0, 0.0), masked_share=(0.5, 0.5), block=8)
    damaged = Corruption("masked", strength, seed=0)(torch.ones(6, 1, 20, 13), torch.arange(6))
    for rows in (slice(0, 8), slice(8, 16), slice(16, 20)):
        for columns in (slice(0, 8), slice(8, 13)):
            cell = damaged[:, 0, rows, columns].flatten(1)
            torch.testing.assert_close(cell.amin(dim=1), cell.amax(dim=1), rtol=0, atol=0)
    assert 0.2 < float(damaged[:, :, 16:].mean()) < 0.8


def test_masked_damages_what_it_leaves_visible_as_paper_does():
    clean, keys = clean_batch() + 5, torch.arange(6)
    paper, masked = (Corruption(kind, CorruptionStrength(), seed=1)(clean, keys) for kind in ("paper", "masked"))
    visible = masked != 0
    assert 0.3 < float(visible.float().mean()) < 0.9
    torch.testing.assert_close(masked[visible], paper[visible], rtol=0, atol=0)


def test_an_unknown_corruption_is_refused_with_the_known_ones():
    with pytest.raises(EMError, match="corruption 'rain' is not known; expected one of paper, masked"):
        Corruption("rain", CorruptionStrength(), seed=0)
