from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from emfm.data.croppers import dihedral
from emfm.data.degradations import CORRUPTIONS, DARK, Corruption, CorruptionStrength, displace_lines, gaussian_blur
from emfm.errors import EMError

NOTHING = CorruptionStrength(
    noise=(0.0, 0.0),
    blur=(0.0, 0.0),
    dose=(1e7, 1e7),
    read_out=(0.0, 0.0),
    defocus=(0.0, 0.0),
    jitter=(0.0, 0.0),
    background=(0.0, 0.0),
    inverted=0.0,
    masked_share=(0.0, 0.0),
)


def strength(**changes) -> CorruptionStrength:
    """Return a strength that does nothing but what is named."""
    return replace(NOTHING, **changes)


def keys(*indices: int, epoch: int = 0) -> Tensor:
    return torch.tensor([[epoch, index] for index in indices])


def clean_batch(count: int = 6, side: int = 40) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (count, 1, side, side)).astype(np.float32))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_damage_of_a_crop_depends_on_seed_and_key_and_not_on_its_batch(kind):
    clean, batch = clean_batch(), keys(5, 0, 17, 3, 1000, 8)
    corrupt = Corruption(kind, CorruptionStrength(), seed=1)
    together = torch.cat(corrupt(clean, batch), dim=1)
    torch.manual_seed(0)
    np.random.seed(0)
    order = torch.tensor([3, 5, 1, 0, 4, 2])
    shuffled = torch.cat(Corruption(kind, CorruptionStrength(), seed=1)(clean[order], batch[order]), dim=1)
    torch.testing.assert_close(shuffled, together[order], rtol=0, atol=1e-5)
    for index in range(len(clean)):
        alone = torch.cat(corrupt(clean[index : index + 1], batch[index : index + 1]), dim=1)
        torch.testing.assert_close(alone, together[index : index + 1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_another_index_epoch_or_seed_gives_other_damage(kind):
    clean = clean_batch(1).expand(8, -1, -1, -1)
    damaged = Corruption(kind, CorruptionStrength(), seed=1)(clean, keys(*range(8)))[0]
    assert len({crop.numpy().tobytes() for crop in damaged}) == 8
    for other in (
        Corruption(kind, CorruptionStrength(), seed=2)(clean, keys(*range(8)))[0],
        Corruption(kind, CorruptionStrength(), seed=1)(clean, keys(*range(8), epoch=1))[0],
    ):
        assert all((one - two).abs().max() > 0.01 for one, two in zip(damaged, other, strict=True))


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("amount", [CorruptionStrength(), NOTHING])
def test_the_given_crops_are_not_modified(kind, amount):
    clean = clean_batch()
    before = clean.clone()
    Corruption(kind, amount, seed=1)(clean, keys(*range(6)))[0].fill_(9)
    torch.testing.assert_close(clean, before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["paper", "masked"])
def test_paper_and_masked_leave_the_target_as_it_is(kind):
    clean = clean_batch()
    target = Corruption(kind, CorruptionStrength(), seed=1)(clean, keys(*range(6)))[1]
    torch.testing.assert_close(target, clean, rtol=0, atol=0)


@pytest.mark.parametrize(("kind", "atol"), [("paper", 0), ("masked", 0), ("dose", 0.005), ("dose+masked", 0.005)])
def test_damage_of_no_strength_leaves_the_crops_as_they_are(kind, atol):
    clean = clean_batch()
    damaged, target = Corruption(kind, NOTHING, seed=1)(clean, keys(*range(6)))
    torch.testing.assert_close(damaged, clean, rtol=0, atol=atol)  # counting many electrons still leaves a trace
    torch.testing.assert_close(target, clean, rtol=0, atol=0)


@pytest.mark.parametrize("dose", [5.0, 60.0])
@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_the_noise_of_a_dose_is_that_of_counted_electrons(dose, value):
    clean = torch.full((4, 1, 96, 96), value)
    damaged = Corruption("dose", strength(dose=(dose, dose)), seed=0)(clean, keys(*range(4)))[0]
    expected = dose * (DARK + (1 - DARK) * (value + 1) / 2)  # counts per pixel
    counts = dose * (DARK + (1 - DARK) * (damaged + 1) / 2)
    torch.testing.assert_close(counts, counts.round(), rtol=0, atol=1e-3)
    assert float(counts.mean()) == pytest.approx(expected, rel=0.02)
    assert float(counts.var()) == pytest.approx(expected, rel=0.04)


def test_doses_are_drawn_uniformly_in_their_logarithm():
    clean = torch.ones(400, 1, 16, 16)
    damaged = Corruption("dose", strength(dose=(4.0, 400.0)), seed=0)(clean, keys(*range(400)))[0]
    # at the value +1 the variance in network values is (2 / (1 - DARK))^2 / dose
    logarithm = torch.log10((2 / (1 - DARK)) ** 2 / damaged.var(dim=(1, 2, 3)))
    assert float(logarithm.mean()) == pytest.approx(np.log10(40), abs=0.1)
    assert float(logarithm.std()) == pytest.approx(2 / np.sqrt(12), rel=0.1)


def test_contrast_is_inverted_in_input_and_target_together_for_the_given_share():
    clean = clean_batch(1).expand(200, -1, -1, -1)
    damaged, target = Corruption("dose", strength(inverted=0.3), seed=0)(clean, keys(*range(200)))
    inverted = (target == -clean).all(dim=(1, 2, 3))
    assert (inverted ^ (target == clean).all(dim=(1, 2, 3))).all()
    assert float(inverted.float().mean()) == pytest.approx(0.3, abs=0.1)
    torch.testing.assert_close(damaged, target, rtol=0, atol=0.005)


def test_the_slow_background_has_its_amplitude_and_no_sharp_edges():
    damaged = Corruption("dose", strength(background=(0.3, 0.3)), seed=0)(torch.zeros(64, 1, 64, 64), keys(*range(64)))[
        0
    ]
    assert float(damaged.std()) == pytest.approx(0.3, rel=0.25)
    steps = (damaged[..., 1:] - damaged[..., :-1]).abs()
    assert float(steps.max()) < 0.1


def test_scan_lines_are_displaced_sideways_each_by_its_own_distance():
    ramp = torch.arange(32.0).expand(2, 1, 8, 32).contiguous()
    shifts = torch.linspace(-1.5, 1.5, 16).view(2, 1, 8, 1)
    moved = displace_lines(ramp, shifts)
    torch.testing.assert_close(moved[..., 2:-2], (ramp + shifts)[..., 2:-2], rtol=0, atol=1e-5)
    assert float(moved.min()) == 0 and float(moved.max()) == 31  # the edges are repeated
    clean = clean_batch(4)
    damaged = Corruption("dose", strength(jitter=(1.0, 1.0)), seed=0)(clean, keys(*range(4)))[0]
    assert (damaged - clean).abs().mean() > 0.1
    stripes = torch.linspace(-1, 1, 40).view(1, 1, 40, 1).expand(4, 1, 40, 40)  # constant along every line
    damaged = Corruption("dose", strength(jitter=(1.0, 1.0)), seed=0)(stripes, keys(*range(4)))[0]
    torch.testing.assert_close(damaged, stripes, rtol=0, atol=0.01)


def test_the_read_out_noise_has_its_standard_deviation():
    damaged = Corruption("dose", strength(read_out=(0.2, 0.2)), seed=0)(torch.zeros(4, 1, 64, 64), keys(*range(4)))[0]
    assert float(damaged.std()) == pytest.approx(0.2, rel=0.03)


@pytest.mark.parametrize(
    "changes",
    [{"noise": (0.5, 0.1)}, {"dose": (0.0, 10.0)}, {"masked_share": (0.2, 1.5)}, {"inverted": 2.0}, {"block": 0}],
)
def test_strengths_that_cannot_be_are_refused(changes):
    with pytest.raises(EMError, match=next(iter(changes))):
        CorruptionStrength(**changes)


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
    amount = CorruptionStrength(noise=(sigma, sigma), blur=(0.0, 0.0))
    noise = (Corruption("paper", amount, seed=0)(clean, keys(*range(8)))[0] - clean).numpy().reshape(8, -1)
    np.testing.assert_allclose(noise.std(axis=1), sigma, rtol=0.06)  # 5 standard deviations of 4096 samples
    np.testing.assert_allclose(noise.mean(axis=1), 0, atol=0.08 * sigma)
    between = np.corrcoef(noise) - np.eye(8)
    assert np.abs(between).max() < 0.08
    kurtosis = ((noise / noise.std()) ** 4).mean()
    assert kurtosis == pytest.approx(3, abs=0.15)  # Gaussian


def test_each_crop_draws_its_noise_uniformly_from_the_range():
    clean = torch.zeros(200, 1, 24, 24)
    amount = CorruptionStrength(noise=(0.2, 0.6), blur=(0.0, 0.0))
    drawn = Corruption("paper", amount, seed=0)(clean, keys(*range(200)))[0].std(dim=(1, 2, 3))
    assert 0.17 < drawn.min() < 0.25 and 0.55 < drawn.max() < 0.68
    assert float(drawn.mean()) == pytest.approx(0.4, abs=0.04)
    assert float(drawn.std()) == pytest.approx(0.4 / np.sqrt(12), rel=0.2)


@pytest.mark.parametrize(("share", "block"), [(0.2, 4), (0.5, 8)])
def test_masked_hides_its_share_of_the_area_in_blocks(share, block):
    clean = torch.ones(8, 1, 64, 64)
    amount = CorruptionStrength(noise=(0.0, 0.0), blur=(0.0, 0.0), masked_share=(share, share), block=block)
    damaged = Corruption("masked", amount, seed=0)(clean, keys(*range(8)))[0][:, 0]
    assert set(damaged.unique().tolist()) == {0.0, 1.0}
    cells = damaged.reshape(8, 64 // block, block, 64 // block, block)
    torch.testing.assert_close(cells.amin(dim=(2, 4)), cells.amax(dim=(2, 4)), rtol=0, atol=0)  # blocks are whole
    assert float(1 - damaged.mean()) == pytest.approx(share, abs=0.08)
    assert len({crop.numpy().tobytes() for crop in damaged}) == 8


def test_masked_hides_blocks_cut_by_the_edge_where_the_size_is_no_multiple():
    amount = CorruptionStrength(noise=(0.0, 0.0), blur=(0.0, 0.0), masked_share=(0.5, 0.5), block=8)
    damaged = Corruption("masked", amount, seed=0)(torch.ones(6, 1, 20, 13), keys(*range(6)))[0]
    for rows in (slice(0, 8), slice(8, 16), slice(16, 20)):
        for columns in (slice(0, 8), slice(8, 13)):
            cell = damaged[:, 0, rows, columns].flatten(1)
            torch.testing.assert_close(cell.amin(dim=1), cell.amax(dim=1), rtol=0, atol=0)
    assert 0.2 < float(damaged[:, :, 16:].mean()) < 0.8


def test_masked_damages_what_it_leaves_visible_as_paper_does():
    clean, batch = clean_batch() + 5, keys(*range(6))
    paper, masked = (Corruption(kind, CorruptionStrength(), seed=1)(clean, batch)[0] for kind in ("paper", "masked"))
    visible = masked != 0
    assert 0.3 < float(visible.float().mean()) < 0.9
    torch.testing.assert_close(masked[visible], paper[visible], rtol=0, atol=0)


def test_an_unknown_corruption_is_refused_with_the_known_ones():
    with pytest.raises(EMError, match="corruption 'rain' is not known; expected one of paper, dose, masked"):
        Corruption("rain", CorruptionStrength(), seed=0)
