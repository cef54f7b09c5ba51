"""What a task is: all that training, evaluation, prediction, cards and export ask of it.

A new task is a subclass in a file of its own and a line in `emfm.tasks.TASKS`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from emfm.config import EMFoundationConfig
from emfm.data.augmentation import Augmentation
from emfm.data.croppers import Cropper
from emfm.data.datasets import load_em_dataset
from emfm.data.examples import CleanMicrographs, Examples, PairedMicrographs
from emfm.data.streamed_examples import StreamedExamples
from emfm.errors import EMError
from emfm.hub.card import figure, table
from emfm.io.reading import FileChoice
from emfm.modeling import EMPreTrainedModel
from emfm.reports.prediction import Prediction
from emfm.reports.report import ImageReport
from emfm.tasks.metrics import Figure, Metrics


@dataclass(frozen=True)
class ModelChoices:
    """What a run is told of the model that it trains."""

    data: str  #: name of the data, for errors
    model: str | None = None  #: zoo name, folder or Hub id of its first weights; None: random
    residual: bool | None = None  #: whether a restoration adds to its input; None: the task decides
    class_weights: str = "root"  #: of a segmentation: root, balanced, none, or numbers like 0.5,2
    all_scales: bool | None = None  #: a segmentation's head sees all scales; None: as its model's


@dataclass(frozen=True)
class MissingTruth:
    """What the truth of a data set does not hold."""

    nothing: str | None  #: why it can neither teach nor measure anything; None where it can
    files: list[str]  #: micrographs of which that is true
    why: str  #: the reason for these, in words
    classes: list[str]  #: classes without a pixel


@dataclass(frozen=True)
class CardWords:
    """What a task adds to the card of a fine-tuned model; by default for images from pairs."""

    pipeline_tag: str = "image-to-image"  #: the Hub's name of the task
    output: str = "an image, in the units of the targets"  #: what `predict` returns
    image: str = "micrograph"  #: what one training micrograph is called
    truth: str = " with targets"  #: what it comes with, added to that
    needs: str = "pairs"  #: what micrographs of another kind may need of their own
    limits: tuple[str, ...] = ()  #: further limits, a sentence each


@dataclass(frozen=True)
class ExportWords:
    """What a package for other programs says of a task; by default that of a restoration."""

    tag: str = "image-restoration"  #: the kind of task, among the tags of bioimage.io
    output: str = "reconstruction"  #: name of what the network puts out
    finished: str = "reconstruction"  #: name of what it is after `steps`
    channels: tuple[str, ...] = ("intensity",)  #: names of the output's channels before classes
    description: str = "restored image, in network values"  #: of the finished output
    meaning: str = "the restored image, -1 and +1 being those percentiles"  #: of its values
    metric: str = "L1, PSNR and SSIM"  #: what to measure on own micrographs
    steps: tuple[str, ...] = ()  #: what makes the output the finished one, in bioimage.io's names


class EMTaskModel(EMPreTrainedModel):
    """A trunk with the head, loss, data, metrics and results of one task."""

    purpose: ClassVar[str]  #: what it does; `{classes}` and `{scale}` stand for the model's
    figures: ClassVar[tuple[Figure, ...]]  #: what an evaluation shows, in this order
    figure_of_merit: ClassVar[str]  #: the one that chooses the best step
    greater_is_better: ClassVar[bool]  #: of that figure
    truth: ClassVar[str] = "targets"  #: the folder that it learns from, or "masks"
    takes: ClassVar[tuple[type[Examples], ...]] = (PairedMicrographs, CleanMicrographs)
    degradations: ClassVar[tuple[str, ...]] = ()  #: choices of `degrade`; the usual one first
    own_settings: ClassVar[tuple[str, ...]] = ()  #: of `FinetuneArguments`, that not every task has
    nearest: ClassVar[bool] = False  #: whether results are resampled by nearest pixels alone
    doubts_in_units: ClassVar[bool] = True  #: whether `doubt` is in network values, of the input's units
    calibrates: ClassVar[bool] = False  #: whether its maps are probabilities, with a temperature
    separates: ClassVar[bool] = False  #: whether `result` gives maps, of which objects are made
    card: ClassVar[CardWords] = CardWords()  #: what its model card says
    exported: ClassVar[ExportWords] = ExportWords()  #: what a package for other programs says

    # the network

    @property
    def last_layer(self) -> nn.Conv2d:
        """The 1x1 convolution that ends the network."""
        return getattr(self, self.head_name)

    def enlarged(self, pixel_values: Tensor) -> Tensor:
        """Return the input at the output's size (B, 1, H * scale, W * scale)."""
        return pixel_values

    def last_features(self, image: Tensor) -> Tensor:
        """Return the last layer's input (B, C, H, W) for an enlarged image (B, 1, H, W)."""
        return self._full_resolution(image)

    def loss_of(self, outputs: Tensor, image: Tensor, labels: Tensor) -> Tensor:
        """Return the training loss of what the last layer puts out (B, K, H, W), a scalar."""
        raise NotImplementedError

    def calibrated(self, outputs: Tensor) -> Tensor:
        """Return network outputs (B, K, H, W) that are as sure as they may be."""
        return outputs

    @staticmethod
    def finished(outputs: Tensor) -> Tensor:
        """Return a user's values for network outputs (B, K, H, W); tiles may blend them."""
        return outputs

    @torch.no_grad()
    def maps(self, pixel_values: Tensor) -> Tensor:
        """Return finished outputs (B, K, H * scale, W * scale); tiles may blend them."""
        return self.finished(self.calibrated(self(pixel_values)[0].float()))

    @staticmethod
    def doubt(maps: Tensor) -> Tensor:
        """Return how unsure finished outputs are (B, H, W), from those of all symmetries.

        Args:
            maps: (S, B, C, H, W). Restored images differ by their standard deviation, in network
                values.
        """
        return maps[:, :, 0].std(dim=0, correction=0)

    @staticmethod
    def confidence(maps: np.ndarray) -> np.ndarray | None:
        """Return how sure outputs (C, H, W) are of each pixel (H, W), None if nobody knows."""
        return None

    # the data

    @classmethod
    def load(
        cls,
        source: str | Path,
        split: str,
        degrade: str | None,
        scale: int | None,
        streaming: bool = False,
        choice: FileChoice | None = None,
    ) -> Any:
        """Load a split for this task; returns what `load_em_dataset` does.

        Raises:
            EMError: the split cannot be loaded, or `degrade` makes pairs for another task.
        """
        if degrade is None:
            return load_em_dataset(source, split, None, scale, cls.truth, streaming, choice)
        if not cls.degradations:
            raise EMError(f"--degrade '{degrade}' makes pairs for restoration; {cls.__name__} needs {cls.truth}")
        if degrade not in cls.degradations:
            known = " or ".join(cls.degradations)
            raise EMError(f"'{degrade}' makes no pairs for {cls.__name__}; it takes --degrade {known}")
        scale = scale if degrade == "downsample" else None
        return load_em_dataset(source, split, degrade, scale, None, streaming, choice)

    def check_data(self, data: Examples, name: str) -> None:
        """Raise an error that says what the model needs, if data are of another kind or size."""
        task = type(self).__name__
        if not isinstance(data, self.takes):
            found = type(data).__name__
            raise EMError(f"{task} needs micrographs with {self.truth}; {name} holds {found}")
        if data.scale != self.scale:
            raise EMError(
                f"the targets of {name} have {data.scale} times as many pixels a side as the "
                f"images; this {task} makes {self.scale} times as many"
            )

    def missing_truth(self, data: Examples) -> MissingTruth:
        """Return which micrographs and classes have no truth to learn from or to measure with."""
        return MissingTruth(None, [], "", [])

    @classmethod
    def fields_for(cls, data: Examples, choices: ModelChoices) -> dict[str, Any]:
        """Return the configuration's fields that the data (of a stream, an empty sample) decide."""
        return {"residual": False}

    @classmethod
    def why_new_head(
        cls, source: type["EMTaskModel"], config: EMFoundationConfig, fields: dict[str, Any]
    ) -> str | None:
        """Return why the head of a fine-tuned model does not serve this task; None if it does.

        Args:
            source: the class that was fine-tuned.
            config: its configuration.
            fields: what the data ask for, from `fields_for`.
        """
        return None if source is cls else f"was trained for {source.purpose_of(config)}"

    @classmethod
    def purpose_of(cls, config: Any) -> str:
        """Return the purpose of a model with this configuration, in words."""
        return cls.purpose.format(classes=", ".join((config.id2label or {}).values()), scale=config.scale)

    def learn_units(self, data: Examples | StreamedExamples) -> None:
        """Note in the configuration what the training data say of the units of their targets."""

    def cropper(self, data: Examples, side: int, augmentation: Augmentation) -> Cropper:
        """Return what cuts training crops from micrographs, whose truth has `side` pixels a side.

        They are varied at random by `augmentation`. Of a stream, the data are an empty sample.

        Raises:
            EMError: the side does not fit the scale.
        """
        raise NotImplementedError

    # what was learnt, measured

    def new_metrics(self) -> Metrics:
        """Return empty metrics for an evaluation."""
        raise NotImplementedError

    def truth_of(self, data: Examples, index: int) -> np.ndarray:
        """Return what a prediction of micrograph `index` is compared with."""
        return data.truth(index)

    def measure(self, metrics: Metrics, prediction: Prediction, data: Examples, index: int) -> None:
        """Compare a prediction of micrograph `index` with its truth, and add it to the metrics."""
        metrics.add(prediction.output, self.truth_of(data, index))

    def trivial_answer(self, image: np.ndarray) -> np.ndarray:
        """Return the answer to a micrograph (H, W) that needs no network."""
        raise NotImplementedError

    def trivial_figures(self, data: Examples, measured: Metrics) -> dict[str, Any]:
        """Return the figures of the answer without a network; the model's own are `measured`."""
        metrics = self.new_metrics()
        for index, image in enumerate(data.images):
            metrics.add(self.trivial_answer(image), self.truth_of(data, index))
        return metrics.result()

    # what is shown

    @staticmethod
    def report() -> ImageReport:
        """Return what writes pictures and tables of a prediction."""
        return ImageReport()

    @classmethod
    def card_table(cls, best: dict[str, Any]) -> str:
        """Return the figures of the best evaluation as a Markdown table."""
        row = [figure(best[shown.name], shown.form) for shown in cls.figures]
        text = table([shown.heading for shown in cls.figures], [row])
        return f"{text}\n\nData range: {best['data_range']}." if "data_range" in best else text
