"""Which part of a model learns, and how fast: all of it, or the part that few images can afford."""

import re

from torch import Tensor, nn

from emfm.errors import EMError
from emfm.modeling import EMPreTrainedModel

ParameterGroup = dict[str, list[Tensor] | float]


def freeze(model: EMPreTrainedModel, what: str) -> list[nn.Module]:
    """Stop a part of a model from learning; returns its modules, to be kept in evaluation mode.

    A frozen part is left unchanged to the bit, the running statistics of its batch norms included.

    Args:
        model: its parameters are marked.
        what: "none"; "encoder": everything down to the coarsest level; "all-but-head": the whole
            trunk; "last:K": all but the head and the last K blocks of the trunk.

    Raises:
        EMError: the part is unknown, or K does not fit the model.
    """
    encoder, decoder = model.trunk.blocks()
    blocks = [*encoder, *decoder]
    last = re.fullmatch(r"last:(\d+)", what)
    if what == "none":
        frozen = []
    elif what == "encoder":
        frozen = encoder
    elif what == "all-but-head":
        frozen = blocks
    elif last:
        if not 1 <= int(last[1]) <= len(blocks):
            raise EMError(f"--freeze is '{what}'; this trunk has {len(blocks)} blocks: K is 1 to {len(blocks)}")
        frozen = blocks[: len(blocks) - int(last[1])]
    else:
        raise EMError(f"--freeze is '{what}'; expected none, encoder, all-but-head or last:K")
    for module in frozen:
        module.requires_grad_(False)
    return frozen


def parameter_groups(model: nn.Module, rate: float, trunk_rate: float, decay: float) -> list[ParameterGroup]:
    """Return what learns, the trunk at its own rate; norms and biases get no decay."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            in_trunk, decays = name.startswith("trunk."), parameter.ndim > 1
            groups.setdefault((in_trunk, decays), []).append(parameter)
    return [
        {"params": parameters, "lr": trunk_rate if in_trunk else rate, "weight_decay": decay if decays else 0.0}
        for (in_trunk, decays), parameters in groups.items()
    ]
