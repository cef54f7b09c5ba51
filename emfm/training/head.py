"""A new head that fits the trunk's features before training starts.

A random head first tears at the trunk's features, pretrained or not, while it learns what they mean; one that is fitted
to the features as they are leaves them alone (Kumar et al. 2022, arXiv:2202.10054, "linear probing, then fine-tuning").
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from emfm.tasks.segmentation import EMForSemanticSegmentation
from emfm.training.losses import segmentation_loss

# Pixels drawn from each crop: neighbours say nearly the same.
PIXELS = 2048
ITERATIONS = 60
# Weight of the squares of the head's weights, for features scaled to a standard deviation of 1.
DECAY = 1e-2


@torch.no_grad()
def fit_class_head(model: EMForSemanticSegmentation, crops: Iterable[dict[str, Tensor]]) -> None:
    """Replace the head's weights by those that minimise the training loss while the trunk stays as it is.

    Args:
        model: in place; the statistics of its batch norms must be those of its weights.
        crops: `pixel_values` (1, H, W) and `labels` (H, W) each; a dozen are enough for so few weights.
    """
    was_training = model.training
    model.eval()
    generator = torch.Generator().manual_seed(0)
    features, labels = [], []
    for crop in crops:
        pixels = crop["pixel_values"].to(model.device)
        maps = model.features(pixels[None])[0][0].float().flatten(1)  # (C, H * W)
        drawn = torch.randperm(maps.shape[1], generator=generator)[:PIXELS].to(model.device)
        features.append(maps[:, drawn].T)
        labels.append(crop["labels"].to(model.device).flatten()[drawn])
    weight, bias = _fit(torch.cat(features), torch.cat(labels), model.class_head.out_channels, model)
    model.class_head.weight.copy_(weight[:, :, None, None])
    assert model.class_head.bias is not None
    model.class_head.bias.copy_(bias)
    model.train(was_training)


def _fit(features: Tensor, labels: Tensor, classes: int, model: EMForSemanticSegmentation) -> tuple[Tensor, Tensor]:
    """Return weights (K, C) and biases (K) for features (N, C) and class indices (N)."""
    mean, deviation = features.mean(dim=0), features.std(dim=0) + 1e-5
    scaled = (features - mean) / deviation
    weight = torch.zeros(classes, features.shape[1], device=features.device, requires_grad=True)
    bias = torch.zeros(classes, device=features.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    @torch.enable_grad()
    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = (scaled @ weight.T + bias).T[None, :, :, None]  # (1, K, N, 1)
        value = segmentation_loss(logits, labels[None, :, None], model.config.class_weights)
        value = value + DECAY * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    found = weight.detach() / deviation
    return found, bias.detach() - found @ mean
