"""What every task adapter offers to training and evaluation."""

from typing import Any, ClassVar

from torch import Tensor, nn

from emfm.modeling import EMPreTrainedModel


class EMTaskModel(EMPreTrainedModel):
    """A trunk with the head, loss, metrics and post-processing of one task.

    Attributes:
        figure_of_merit: the metric that chooses the best step.
        greater_is_better: of that metric.
        truth: what it learns from, "masks" or "targets".
    """

    figure_of_merit: ClassVar[str]
    greater_is_better: ClassVar[bool]
    truth: ClassVar[str]

    @property
    def last_layer(self) -> nn.Conv2d:
        """The 1x1 convolution that ends the network."""
        raise NotImplementedError

    def enlarged(self, pixel_values: Tensor) -> Tensor:
        """Return the input at the output's size (B, 1, H * scale, W * scale)."""
        return pixel_values

    def last_features(self, image: Tensor) -> Tensor:
        """Return what the last layer reads (B, C, H, W) for an image (B, 1, H, W) of the output's size."""
        return self._full_resolution(image)

    def loss_of(self, outputs: Tensor, image: Tensor, labels: Tensor) -> Tensor:
        """Return the training loss of what the last layer puts out (B, K, H, W), a scalar."""
        raise NotImplementedError

    def new_metrics(self) -> Any:
        """Return empty metrics for an evaluation; `add(output, truth)` and `result()` fill and read them."""
        raise NotImplementedError
