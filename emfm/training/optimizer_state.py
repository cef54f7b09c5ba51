"""Weights and optimiser averages as named tensors, so that a checkpoint needs no pickle."""

import torch
from torch import Tensor

Optimizers = dict[str, torch.optim.Optimizer]


def contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors on the CPU, each in the order in which safetensors stores it."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def optimizer_tensors(optimizers: Optimizers) -> dict[str, Tensor]:
    """Return the state of some optimisers as `name.parameter's index.slot`: tensor."""
    tensors = {}
    for name, optimizer in optimizers.items():
        for index, slots in optimizer.state_dict()["state"].items():
            tensors.update({f"{name}.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()})
    return contiguous(tensors)


def load_optimizers(optimizers: Optimizers, tensors: dict[str, Tensor]) -> None:
    """Give optimisers the state that `optimizer_tensors` took from their like; learning rates stay as they are."""
    for name, optimizer in optimizers.items():
        content = optimizer.state_dict()
        content["state"] = {}
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for key, value in tensors.items():
            owner, index, slot = key.split(".")
            if owner == name:
                # fused Adam goes through memory in order: averages must lie there as their parameter does
                alike = value if value.ndim == 0 else torch.empty_like(parameters[int(index)]).copy_(value)
                content["state"].setdefault(int(index), {})[slot] = alike
        optimizer.load_state_dict(content)
