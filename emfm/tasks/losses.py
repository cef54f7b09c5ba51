"""Losses of the tasks: cross-entropy + Dice, and L1 + L2."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from emfm.data.examples import IGNORED
from emfm.errors import EMError

SMOOTH = 1.0  # pixels that are added to numerator and denominator of a Dice


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return 1 - soft Dice (Milletari et al. 2016), averaged over the classes in the batch.

    A class without a pixel in the batch is left out: its Dice would be 0 whatever the network says.
    The sums run over the whole batch, so a crop without foreground is no special case.

    Logits are (B, K, H, W), labels (B, H, W) class indices, of which -100 takes no part.
    """
    valid = (labels != IGNORED).unsqueeze(1)
    truth = F.one_hot(labels.clamp_min(0), logits.shape[1]).movedim(-1, 1) * valid
    probability = logits.float().softmax(dim=1) * valid
    overlap = (probability * truth).sum(dim=(0, 2, 3))
    total = probability.sum(dim=(0, 2, 3)) + truth.sum(dim=(0, 2, 3))
    dice = (2 * overlap + SMOOTH) / (total + SMOOTH)
    present = truth.sum(dim=(0, 2, 3)) > 0
    return 1 - dice[present].mean() if present.any() else logits.sum() * 0.0


def segmentation_loss(logits: Tensor, labels: Tensor, class_weights: Sequence[float] | None = None) -> Tensor:
    """Return cross-entropy, a gradient for every pixel, + Dice, which keeps rare classes in sight.

    Logits are (B, K, H, W), labels (B, H, W) int64, of which -100 takes no part. The cross-entropy
    is the mean over the pixels, weighted by class.
    """
    _check_labels(logits, labels)
    weights = torch.ones(logits.shape[1]) if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
    weights = weights.to(logits.device)
    total = F.cross_entropy(logits.float(), labels, weights, ignore_index=IGNORED, reduction="sum")
    counted = (weights[labels.clamp_min(0)] * (labels != IGNORED)).sum()
    # no pixel with truth: a loss of 0
    return total / counted.clamp_min(torch.finfo(torch.float32).tiny) + dice_loss(logits, labels)


def restoration_loss(output: Tensor, target: Tensor) -> Tensor:
    """Return L1 + L2 of values (B, 1, H, W), as in Kazimi et al. 2024 (arXiv:2402.18286).

    Where the target is NaN there are no data, and no loss.
    """
    output, target = _where_known(output, target)
    if not target.numel():
        return output.sum() * 0.0
    return F.l1_loss(output, target) + F.mse_loss(output, target)


def noisy_target_loss(output: Tensor, target: Tensor) -> Tensor:
    """Return L2 of values (B, 1, H, W) whose target is noisy; none where it is NaN.

    Its least is at the mean of the noisy targets, which is the clean one. That of L1 is at their
    median, which of a few counted electrons lies below.
    """
    output, target = _where_known(output, target)
    return F.mse_loss(output, target) if target.numel() else output.sum() * 0.0


def _where_known(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    known = ~torch.isnan(target)
    if not known.all():
        output, target = output[known], target[known]
    return output.float(), target.float()


def entropy(probabilities: Tensor) -> Tensor:
    """Return the entropy (B, H, W) of probabilities (B, K, H, W), 1 where all K are alike."""
    parts = -probabilities * probabilities.clamp_min(1e-12).log()
    return parts.sum(dim=1) / math.log(probabilities.shape[1])


def _check_labels(logits: Tensor, labels: Tensor) -> None:
    """Raise an EMError where labels are no class indices of the logits' size."""
    size = (logits.shape[0], *logits.shape[2:])
    if tuple(labels.shape) != size:
        raise EMError(f"labels have shape {tuple(labels.shape)}; expected class indices {size}")
    if labels.is_cuda:  # looking at them would wait for the GPU
        return
    wrong = labels[((labels < 0) | (labels >= logits.shape[1])) & (labels != IGNORED)]
    if len(wrong):
        raise EMError(
            f"labels hold {int(wrong[0])}; expected class indices 0 to {logits.shape[1] - 1}, or {IGNORED} for pixels "
            "without truth"
        )
