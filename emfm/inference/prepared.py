"""A model made ready to predict: norms folded, a layout and a number format that are fast.

Making it takes as long as a small micrograph, so it is kept as long as the model and its weights.
"""

import copy
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from emfm.backbones.norms import InstanceNorm
from emfm.modeling import EMPreTrainedModel

# For each model the state of its weights, and what was made of them in each number format.
_kept: WeakKeyDictionary[EMPreTrainedModel, tuple[tuple[float, ...], dict[torch.dtype, EMPreTrainedModel]]] = (
    WeakKeyDictionary()
)


def state(model: EMPreTrainedModel) -> tuple[float, ...]:
    """Return numbers that change when weights change, whichever way, are moved or replaced."""
    tensors = [*model.parameters(), *model.buffers()]
    return tuple(number for tensor in tensors for number in (tensor.data_ptr(), float(tensor.detach().sum())))


def prepared(model: EMPreTrainedModel, dtype: torch.dtype) -> EMPreTrainedModel:
    """Return a copy of a model in evaluation mode that predicts the same, faster, from fp32 values.

    Batch norms become part of the convolutions before them. What `model.compile()` made is left as
    it is.
    """
    if model._compiled_call_impl is not None and dtype == model.dtype == torch.float32:
        return model
    seen = state(model)
    if model not in _kept or _kept[model][0] != seen:
        _kept[model] = (seen, {})
    networks = _kept[model][1]
    if dtype not in networks:
        network = copy.deepcopy(model).float().eval()
        network.__dict__.pop("forward", None)  # a trainer's wrapper would call the copied model
        if not any(isinstance(module, InstanceNorm) for module in network.modules()):
            network.trunk.fold()
        torch.nn.Module.to(network, memory_format=torch.channels_last)
        networks[dtype] = in_format(network, dtype)
    networks[dtype].config = model.config  # a temperature may be another by now
    return networks[dtype]


def in_format(network: EMPreTrainedModel, dtype: torch.dtype) -> EMPreTrainedModel:
    """Let the trunk of a network in fp32 compute in another number format, in place.

    The head stays in fp32: of scores that lie close together bf16 would not tell the larger one,
    and a head that changes its input would round it.
    """
    if dtype != torch.float32:
        trunk = network.trunk.to(dtype)
        exact = trunk.features

        def rounded(x: Tensor) -> list[Tensor]:
            return exact(x.to(dtype, memory_format=torch.channels_last))

        trunk.features = lambda x: [maps.float() for maps in rounded(x)]  # type: ignore[method-assign]
        trunk.forward = lambda x: rounded(x)[0].float()  # type: ignore[method-assign]
    return network
