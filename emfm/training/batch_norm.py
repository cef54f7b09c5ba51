"""Running statistics of batch norm that fit the weights they stand beside."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def recalibrate_batch_norm(model: nn.Module, batches: Iterable[Tensor], frozen: Iterable[nn.Module] = ()) -> None:
    """Replace every batch norm's running statistics by the plain average over some batches.

    While weights move, and after they were averaged, running statistics lag behind: a network
    evaluates far worse than it trains (Wu and Johnson 2021, arXiv:2105.07576, section 3).

    Args:
        model: called with each batch, if it has batch norm; its training mode is restored.
        batches: inputs as in training (B, 1, H, W).
        frozen: parts whose statistics stay, and which stay in evaluation mode.
    """
    kept = {id(module) for part in frozen for module in part.modules()}
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d) and id(module) not in kept]
    if not norms:
        return
    was_training = model.training
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over all batches since the reset
    model.train()
    for part in frozen:
        part.eval()
    for batch in batches:
        model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)
