"""A new head that fits the trunk's features before training starts.

A random head first tears at the trunk's features while it learns what they mean. One that is fitted
to them leaves them alone: "linear probing, then fine-tuning", Kumar et al. 2022 (arXiv:2202.10054).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from emfm.tasks.segmentation import EMForSemanticSegmentation
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
# Of a segmentation's head that sees all scales. The fewer pixels are labelled, the more its weights
# must cost: as much as so many pixels say. And features of coarser strides than 16 tell labelled
# places apart, not classes.
PRIOR, MOST_DECAY = 1000, 10.0
FINE_SCALES = 5
AROUND = 512  # pixels of each crop, labelled or not, that help to tell how features vary


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
    features, images, labels, around, most = [], [], [], [], 1
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
        around.append(maps[:, torch.randperm(maps.shape[1], generator=generator)[:AROUND].to(model.device)].T)
        most = max(most, len(known))
    if isinstance(model, EMForSemanticSegmentation) and model.config.all_scales:
        # crops show the same strokes again: what one of them holds tells how many there are
        fit_scales(model, torch.cat(features), torch.cat(labels), torch.cat(around), most)
    else:
        _fit_last_layer(model, torch.cat(features), torch.cat(images), torch.cat(labels, dim=-1))
    model.train(was_training)


@torch.no_grad()
def fit_scales(model: EMForSemanticSegmentation, known: Tensor, truth: Tensor, around: Tensor, pixels: int) -> None:
    """Replace the weights of a head that sees all scales by those that suit few labels or many.

    Args:
        model: in place.
        known: features (N, C) of labelled pixels.
        truth: their classes (N).
        around: features (M, C) of any pixels of the same micrographs: strokes are few places, which
            do not tell how much a feature varies.
        pixels: how many are labelled; the features may be those of some of them.
    """
    mean = (known.mean(dim=0) + around.mean(dim=0)) / 2
    variance = (known.var(dim=0) + around.var(dim=0)) / 2
    deviation = torch.where(_fine(model).to(known.device), variance.sqrt() + 1e-5, torch.inf)
    image, wanted = known.new_zeros(1, 1, len(truth), 1), truth[None, :, None]
    decay = min(MOST_DECAY, PRIOR / max(1, pixels))
    fitted = _fit((known - mean) / deviation, deviation, len(model.classes), _Loss(model, image, wanted, decay))
    _replace(model, *fitted, mean)


def _fine(model: EMForSemanticSegmentation) -> Tensor:
    """Return which features (C) the head may use: all of filters, and a trunk's finer ones."""
    parts = []
    for level, (learnt, every) in enumerate(zip(model.trunk.channels, model.scale_channels, strict=True)):
        parts += [torch.full((learnt,), level < FINE_SCALES), torch.ones(every - learnt, dtype=torch.bool)]
    return torch.cat(parts)


def _fit_last_layer(model: EMTaskModel, features: Tensor, image: Tensor, truth: Tensor) -> None:
    """Fit the last layer to features (N, C), network values (N), and truth (N) or (C, N)."""
    loss = _Loss(model, image[None, None, :, None], truth[None, ..., None], DECAY)
    mean, deviation = features.mean(dim=0), features.std(dim=0) + 1e-5
    outputs = model.last_layer.out_channels
    _replace(model, *_fit((features - mean) / deviation, deviation, outputs, loss), mean)


@dataclass(frozen=True)
class _Loss:
    """The training loss of some pixels, and the cost of the weights."""

    model: EMTaskModel
    image: Tensor  #: (1, 1, N, 1) network values
    truth: Tensor  #: (1, N, 1) classes, or (1, C, N, 1)
    decay: float  #: weight of the squares of the weights, for features of standard deviation 1

    def __call__(self, scaled: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        outputs = (scaled @ weight.T + bias).T[None, :, :, None]
        return self.model.loss_of(outputs, self.image, self.truth) + self.decay * weight.square().sum()


def _fit(scaled: Tensor, deviation: Tensor, outputs: int, loss: _Loss) -> tuple[Tensor, Tensor]:
    """Return the best weights (K, C) of raw features, and biases (K) of scaled ones (N, C)."""
    loss_at = partial(loss, scaled)
    zeros = torch.zeros(outputs, scaled.shape[1], device=scaled.device)
    lowest, weight, bias = _search(loss_at, zeros, zeros[:, 0])
    if lowest > STUCK * float(loss_at(zeros, zeros[:, 0])):
        beside = BESIDE * torch.randn(zeros.shape, generator=torch.Generator().manual_seed(0)).to(zeros.device)
        beside[:, deviation < DEAD * deviation[deviation.isfinite()].max()] = 0
        again = _search(loss_at, beside, bias)
        weight, bias = again[1:] if again[0] < lowest else (weight, bias)
    return weight / deviation, bias


def _replace(model: EMTaskModel, weight: Tensor, bias: Tensor, mean: Tensor) -> None:
    """Give the last layer weights (K, C), and biases (K) of features without their mean."""
    layer = model.last_layer
    layer.weight.copy_(weight[:, :, None, None])
    assert layer.bias is not None
    layer.bias.copy_(bias - weight @ mean)
    model.config.class_offsets = None  # those of the weights before


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
