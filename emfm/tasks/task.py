"""What every task adapter offers to training and evaluation."""

from typing import Any, ClassVar

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

    def new_metrics(self) -> Any:
        """Return empty metrics for an evaluation; `add(output, truth)` and `result()` fill and read them."""
        raise NotImplementedError
