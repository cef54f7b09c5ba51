"""A model as one tensor-to-tensor function whose graph holds for images of any size."""

import copy
from types import MethodType

import torch
from torch import Tensor, nn

from emfm.backbones.norms import InstanceNorm, SpelledInstanceNorm, exchange
from emfm.modeling import EMPreTrainedModel
from emfm.tasks import task_of


class ExportNetwork(nn.Module):
    """A copy of a model that a tracer can follow at every size: no branch depends on height or width.

    Padding looks mirrored pixels up instead of repeating mirrored padding until it suffices, and instance norm is
    spelled out, which also holds for a map of a single pixel. Values equal the model's own.

    Args:
        model: any of emfm's models; it is not changed.
        finished: return what the outputs are for a user, such as class probabilities instead of logits.
    """

    def __init__(self, model: EMPreTrainedModel, finished: bool = False):
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float().eval()
        self.finished = task_of(model).finished if finished else None
        self.model._pad = MethodType(_mirrored, self.model)
        exchange(self.model, InstanceNorm, SpelledInstanceNorm)

    def forward(self, image: Tensor) -> Tensor:
        """Map network values (B, 1, H, W) to logits or probabilities (B, K, H, W) or an image (B, 1, H * s, W * s)."""
        output = self.model(image)[0]
        return output if self.finished is None else self.finished(output)


def _mirrored(model: EMPreTrainedModel, pixel_values: Tensor) -> Tensor:
    """Mirror the bottom and right edges up to the next multiple of the trunk's stride, as the model itself does."""
    height, width = pixel_values.shape[-2:]
    stride = model.trunk.stride
    return pixel_values.index_select(2, _mirror(height, stride)).index_select(3, _mirror(width, stride))


def _mirror(length: int, stride: int) -> Tensor:
    """Return for each row of the padded image which row of the image (`length`) it repeats: 0 1 2 1 0 1 2 ..."""
    padded = (length + stride - 1) // stride * stride
    period = torch.full((1,), torch.sym_max(2 * (length - 1), 1), dtype=torch.int64)
    along = torch.remainder(torch.arange(padded), period)
    return torch.minimum(along, 2 * (length - 1) - along)
