"""A new head that fits the trunk's features before training starts.

A random head first tears at the trunk's features while it learns what they mean. One that is fitted
to them leaves them alone: "linear probing, then fine-tuning", Kumar et al. 2022 (arXiv:2202.10054).
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from emfm.tasks.task import EMTaskModel

PIXELS = 2048  # drawn from each crop: neighbours say nearly the same
ITERATIONS = 60
DECAY = 1e-2  # weight of the squares of the head's weights, for features of standard deviation 1
# Where many pixels of the input are right already, L1 has a kink at zero weights. The search may
# find no way down: if the loss has not sunk to this share, it begins anew beside zero.
STUCK, BESIDE = 0.9999, 1e-3
# A feature with a smaller share of the largest deviation says nothing. A weight drawn for it would
# be huge in its own units: the first steps, which wake the feature, would ruin the image.
DEAD = 1e-3


@torch.no_grad()
def fit_head(model: EMTaskModel, crops: Iterable[dict[str, Tensor]]) -> None:
    """Replace the last layer's weights by those of the lowest training loss; all else stays.

    Args:
        model: in place; the statistics of its batch norms must be those of its weights.
        crops: a dozen, each `pixel_values` (1, H, W) and `labels` (H, W) or (C, H, W), enlarged.
    """
    was_training = model.training
    model.eval()
    generator = torch.Generator().manual_seed(0)
    features, images, labels = [], [], []
    for crop in crops:
        image = model.enlarged(crop["pixel_values"].to(model.device)[None])
        maps = model.last_features(image)[0].float().flatten(1)  # (C, H * W)
        truth = crop["labels"].flatten(-2)  # (H * W) classes, or (C, H * W)
        known = ~torch.isnan(truth).any(dim=0) if truth.is_floating_point() else truth >= 0
        known = known.nonzero().flatten()
        drawn = known[torch.randperm(len(known), generator=generator)[:PIXELS]].to(model.device)
        features.append(maps[:, drawn].T)
        images.append(image.flatten()[drawn])
        labels.append(truth.to(model.device)[..., drawn])
    fit_last_layer(model, torch.cat(features), torch.cat(images), torch.cat(labels, dim=-1))
    model.train(was_training)


@torch.no_grad()
def fit_last_layer(model: EMTaskModel, features: Tensor, image: Tensor, truth: Tensor, decay: float = DECAY) -> None:
    """Replace the last layer's weights by those of the lowest training loss on some pixels.

    Args:
        model: in place.
        features: (N, C) of the pixels, as the last layer sees them.
        image: (N) network values.
        truth: (N) class indices, or (C, N) what is to be learnt.
        decay: weight of the squares of the weights, for features of standard deviation 1.
    """
    layer = model.last_layer
    image = image[None, None, :, None]  # (1, 1, N, 1)
    truth = truth[None, ..., None]  # (1, N, 1) classes, or (1, C, N, 1)
    weight, bias = _fit(features, layer.out_channels, lambda outputs: model.loss_of(outputs, image, truth), decay)
    layer.weight.copy_(weight[:, :, None, None])
    assert layer.bias is not None
    layer.bias.copy_(bias)
    model.config.class_offsets = None  # those of the weights before


def _fit(features: Tensor, outputs: int, loss_of: Callable[[Tensor], Tensor], decay: float) -> tuple[Tensor, Tensor]:
    """Return the best weights (K, C) and biases (K) for features (N, C); outputs: (1, K, N, 1)."""
    mean, deviation = features.mean(dim=0), features.std(dim=0) + 1e-5
    scaled = (features - mean) / deviation

    def loss_at(weight: Tensor, bias: Tensor) -> Tensor:
        outcome = loss_of((scaled @ weight.T + bias).T[None, :, :, None])
        return outcome + decay * weight.square().sum()

    zeros = torch.zeros(outputs, features.shape[1], device=features.device)
    loss, weight, bias = _search(loss_at, zeros, zeros[:, 0])
    if loss > STUCK * float(loss_at(zeros, zeros[:, 0])):
        beside = BESIDE * torch.randn(zeros.shape, generator=torch.Generator().manual_seed(0)).to(zeros.device)
        beside[:, deviation < DEAD * deviation.max()] = 0
        again = _search(loss_at, beside, bias)
        weight, bias = again[1:] if again[0] < loss else (weight, bias)
    found = weight / deviation
    return found, bias - found @ mean


@torch.enable_grad()
def _search(loss_at: Callable[[Tensor, Tensor], Tensor], weight: Tensor, bias: Tensor) -> tuple[float, Tensor, Tensor]:
    """Return the lowest loss found from weights (K, C) and biases (K) on, and where it is."""
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = loss_at(weight, bias)
        value.backward()
        return value

    optimizer.step(loss)
    weight, bias = weight.detach(), bias.detach()
    return float(loss_at(weight, bias)), weight, bias
