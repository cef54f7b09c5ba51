"""Losses, metrics, discriminator and batch-norm statistics, in value."""

import math

import numpy as np
import pytest
import torch

from emfm import EMError, EMTrainingArguments
from emfm.pretraining.pix2pix import PatchDiscriminator, discriminator_loss, generator_loss
from emfm.pretraining.pretrain import pretrain
from emfm.tasks.losses import dice_loss, segmentation_loss
from emfm.tasks.metrics import SegmentationMetrics, l1, psnr
from emfm.training.batch_norm import recalibrate_batch_norm

SCORES = torch.tensor([0.5, -1.0])


@pytest.mark.parametrize(
    ("kind", "discriminator", "generator"),
    [
        ("lsgan", 0.5 * ((0.25 + 4) / 2 + (0.25 + 1) / 2), (0.25 + 4) / 2),
        (
            "vanilla",
            0.25
            * (
                math.log(1 + math.exp(-0.5))
                + math.log(1 + math.e)
                + math.log(1 + math.exp(0.5))
                + math.log(1 + 1 / math.e)
            ),
            0.5 * (math.log(1 + math.exp(-0.5)) + math.log(1 + math.e)),
        ),
        ("hinge", 0.5 * ((0.5 + 2) / 2 + (1.5 + 0) / 2), 0.25),
    ],
)
def test_adversarial_losses_have_their_published_values(kind, discriminator, generator):
    assert float(discriminator_loss(SCORES, SCORES, kind)) == pytest.approx(discriminator, rel=1e-5)
    assert float(generator_loss(SCORES, kind)) == pytest.approx(generator, rel=1e-5)


def test_an_unknown_adversarial_loss_is_refused():
    with pytest.raises(EMError, match="wgan"):
        discriminator_loss(SCORES, SCORES, "wgan")


def logits_of(labels: torch.Tensor, classes: int, strength: float = 50.0) -> torch.Tensor:
    return strength * torch.nn.functional.one_hot(labels, classes).movedim(-1, 1).float()


def test_dice_loss_is_zero_for_a_perfect_and_almost_one_for_an_opposite_prediction():
    labels = torch.zeros(1, 32, 32, dtype=torch.int64)
    labels[:, :16] = 1
    assert float(dice_loss(logits_of(labels, 2), labels)) == pytest.approx(0, abs=1e-6)
    assert float(dice_loss(logits_of(1 - labels, 2), labels)) == pytest.approx(1 - 1 / 1025, abs=1e-5)


def test_dice_loss_of_half_the_overlap_is_computed_over_the_whole_batch():
    labels = torch.zeros(2, 8, 8, dtype=torch.int64)
    labels[0] = 1  # truth: all of the first crop is class 1; prediction: the upper half
    predicted = torch.zeros_like(labels)
    predicted[0, :4] = 1
    dice_1, dice_0 = (2 * 32 + 1) / (32 + 64 + 1), (2 * 64 + 1) / (96 + 64 + 1)
    assert float(dice_loss(logits_of(predicted, 2), labels)) == pytest.approx(1 - (dice_0 + dice_1) / 2, abs=1e-5)


def test_a_class_that_does_not_occur_takes_no_part_in_the_dice_loss():
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    assert float(dice_loss(logits_of(labels, 3), labels)) == pytest.approx(0, abs=1e-6)


def test_ignored_pixels_change_neither_loss_nor_gradient():
    labels = torch.randint(0, 2, (1, 8, 8))
    logits = torch.randn(1, 2, 8, 8)
    labels[:, 4:] = -100
    other = logits.clone()
    other[:, :, 4:] = 7.0
    assert float(segmentation_loss(logits, labels)) == pytest.approx(float(segmentation_loss(other, labels)), rel=1e-5)


def test_a_batch_of_ignored_pixels_alone_has_a_finite_loss_with_zero_gradient():
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((1, 4, 4), -100))
    loss.backward()
    assert loss.item() == 0.0
    assert float(logits.grad.abs().sum()) == 0.0


def test_class_weights_make_the_cross_entropy_a_weighted_mean():
    logits, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    labels[0, 0] = -100
    weights = [0.5, 2.0, 1.0]
    expected = torch.nn.functional.cross_entropy(logits, labels, torch.tensor(weights), ignore_index=-100)
    found = segmentation_loss(logits, labels, weights) - dice_loss(logits, labels)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_boundary_f1_counts_boundaries_within_two_pixels():
    truth = np.zeros((40, 40), np.int64)
    truth[10:30, 10:30] = 1
    figures = {}
    for shift in (0, 2, 5):
        metrics = SegmentationMetrics({0: "background", 1: "particle"})
        metrics.add(np.roll(truth, shift, axis=1), truth)
        figures[shift] = metrics.result()["per_class"]["particle"]["boundary_f1"]
    assert figures[0] == figures[2] == pytest.approx(1)
    # of a square's 76 boundary pixels the two columns are lost, but for the places near a row of
    # the other
    assert 0.4 < figures[5] < 0.6


def test_the_border_of_the_image_and_pixels_without_truth_are_no_boundary():
    truth = np.ones((20, 20), np.int64)
    metrics = SegmentationMetrics({0: "background", 1: "particle"})
    metrics.add(truth, truth)
    assert metrics.result()["per_class"]["particle"]["boundary_f1"] is None
    truth[:, 10:] = -100
    metrics.add(np.ones_like(truth), truth)
    assert int(metrics.totals["boundaries"].sum()) == 0 or metrics.result()["boundary_f1"] == 0


def test_the_majority_answer_is_the_best_single_class():
    metrics = SegmentationMetrics({0: "background", 1: "particle"})
    truth = np.zeros((10, 10), np.int64)
    truth[:3] = 1
    metrics.add(truth, truth)
    answer = metrics.majority()
    assert answer["dice"] == pytest.approx(2 * 30 / (30 + 100)) and answer["iou"] == pytest.approx(0.3)
    assert answer["boundary_f1"] == 0


def test_dice_and_iou_follow_from_the_summed_counts():
    counts = SegmentationMetrics({0: "background", 1: "particle"})
    counts.add(np.array([[1, 1, 0, 0]]), np.array([[1, 0, 0, 0]]))
    counts.add(np.array([[1, 1, 1, 0]]), np.array([[1, 1, 0, 0]]))
    result = counts.result()
    # particle: 3 hits, 2 false, 0 missed
    particle = result["per_class"]["particle"]
    assert (particle["dice"], particle["iou"]) == (pytest.approx(6 / 8), pytest.approx(3 / 5))
    assert result["dice"] == pytest.approx(6 / 8)
    assert result["n"] == 2


def test_classes_not_called_background_share_the_mean_and_absent_ones_take_no_part():
    counts = SegmentationMetrics({0: "membrane", 1: "interior", 2: "vesicle"})
    counts.add(np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]]))
    result = counts.result()
    assert result["per_class"]["vesicle"] == {"dice": None, "iou": None, "boundary_f1": None}
    assert result["dice"] == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_pixels_without_truth_are_not_counted():
    counts = SegmentationMetrics({0: "background", 1: "particle"})
    counts.add(np.array([[1, 1]]), np.array([[1, -100]]))
    assert int(counts.totals["counts"].sum()) == 1


def test_l1_and_psnr_have_their_textbook_values():
    target, output = torch.zeros(10), torch.full((10,), 0.1)
    assert l1(output, target) == pytest.approx(0.1)
    assert psnr(output, target) == pytest.approx(10 * math.log10(4 / 0.01), rel=1e-5)
    assert psnr(output, target, data_range=1.0) == pytest.approx(20, rel=1e-5)


def test_a_score_of_the_discriminator_sees_seventy_pixels():
    discriminator = PatchDiscriminator(width=4).double()
    # instance norm sees the whole image; the patch is that of the convolutions
    for layer in discriminator.layers:
        if isinstance(layer, torch.nn.InstanceNorm2d):
            layer.forward = lambda x: x
    image = torch.randn(1, 1, 256, 256, dtype=torch.float64, requires_grad=True)
    scores = discriminator(torch.zeros_like(image), image)
    assert scores.shape[-2:] == (256 // 8 - 2, 256 // 8 - 2)
    scores[0, 0, 15, 15].backward()
    rows = (image.grad[0, 0].abs().sum(dim=1) > 0).nonzero().flatten()
    assert int(rows[-1] - rows[0]) + 1 == PatchDiscriminator.receptive_field == 70


def test_scores_do_not_depend_on_what_else_is_in_the_batch():
    discriminator = PatchDiscriminator(width=4)
    images = torch.randn(4, 1, 64, 64)
    together = discriminator(images, images)
    torch.testing.assert_close(together[:2], discriminator(images[:2], images[:2]))


def test_recalibrated_statistics_are_the_average_over_the_batches():
    norm = torch.nn.BatchNorm2d(1)
    batches = [torch.full((2, 1, 4, 4), 3.0), torch.full((2, 1, 4, 4), 5.0)]
    model = torch.nn.Sequential(norm).eval()
    recalibrate_batch_norm(model, batches)
    assert float(norm.running_mean) == pytest.approx(4.0)
    assert float(norm.running_var) == pytest.approx(0.0)
    assert norm.momentum == 0.1
    assert not model.training


@pytest.mark.parametrize(("units", "warned"), [(True, False), (False, True)])
@pytest.mark.parametrize("trains", ["finetune", "pretrain"])
def test_bf16_without_units_for_it_is_slow_and_the_user_is_told(
    trains, units, warned, pretraining, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("emfm.training.machine.bf16_units", lambda: units)
    for precision in ("fp32", "bf16"):
        assert "use --precision fp32" not in caplog.text
        if trains == "finetune":
            EMTrainingArguments(output_dir=str(tmp_path), precision=precision)
        else:
            pretrain(pretraining(tmp_path / precision, steps=1, save_steps=1, precision=precision))
    assert ("use --precision fp32" in caplog.text) == warned
