"""Measuring a fine-tuned model on a split: whole micrographs, predicted as a user would."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from emfm.data.datasets import load_em_dataset
from emfm.data.examples import CleanMicrographs, Examples, LabelledMicrographs, PairedMicrographs
from emfm.errors import EMError
from emfm.inference.arguments import PredictArguments
from emfm.inference.predict import predict, ready_model
from emfm.modeling import EMPreTrainedModel
from emfm.tasks.metrics import RestorationMetrics, SegmentationMetrics
from emfm.tasks.restoration import EMForImageRestoration
from emfm.tasks.segmentation import EMForSemanticSegmentation
from emfm.tasks.task import EMTaskModel

Metrics = SegmentationMetrics | RestorationMetrics


def evaluate(
    model: EMPreTrainedModel | str | Path,
    data: str | Path,
    split: str = "test",
    tile: int | None = None,
    degrade: str | None = None,
) -> dict[str, Any]:
    """Predict whole micrographs of a split and compare them with the truth.

    Args:
        model: a fine-tuned model, or the name or folder of one.
        data: a folder or dataset, as for `load_em_dataset`.
        split: which one.
        tile: largest side of a tile in pixels; None chooses by the free memory.
        degrade: for restoration, make the pairs from the split's images, taken as clean.

    Returns:
        Segmentation: `dice`, `iou`, `boundary_f1` (means over the classes but background) and `per_class`. Restoration:
        `l1`, `psnr`, `ssim` and their `data_range`. Both: `n`, the number of micrographs, and `trivial`, the figures of
        the best single class for every pixel, of the input itself, or of its bicubic enlargement.

    Raises:
        EMError: the model has no task, or the data do not fit it.
    """
    PredictArguments(tile=tile)  # which checks it before the model is loaded
    model = ready_model(model)
    if not isinstance(model, EMTaskModel):
        raise EMError(f"{type(model).__name__} has no task to evaluate; fine-tune it first: emfm finetune TASK")
    examples = load_examples(type(model), data, split, degrade, model.scale if degrade else None)
    check_data(model, examples, str(data))
    return evaluate_on(model, examples.pairs() if isinstance(examples, CleanMicrographs) else examples, tile)


def evaluate_on(
    model: EMTaskModel, examples: LabelledMicrographs | PairedMicrographs, tile: int | None = None
) -> dict[str, Any]:
    """Predict whole micrographs in memory and compare them with the truth; returns what `evaluate` does."""
    metrics, trivial = model.new_metrics(), model.new_metrics()
    for index in tqdm(range(len(examples)), unit="image", leave=False):
        measure(model, examples, [index], metrics, tile)
        if isinstance(model, EMForImageRestoration):
            trivial.add(model.trivial_answer(examples.images[index]), truth_in_image_units(model, examples, index))
    answer = metrics.majority() if isinstance(metrics, SegmentationMetrics) else trivial.result()
    return {**metrics.result(), "trivial": {name: value for name, value in answer.items() if isinstance(value, float)}}


def load_examples(
    task: type[EMTaskModel],
    data: str | Path,
    split: str,
    degrade: str | None,
    scale: int | None,
    streaming: bool = False,
) -> Any:
    """Load a split for a task; returns what `load_em_dataset` does.

    Raises:
        EMError: the split cannot be loaded, or `degrade` makes pairs for another task.
    """
    if degrade is None:
        return load_em_dataset(data, split, scale=scale, truth=task.truth, streaming=streaming)
    if not issubclass(task, EMForImageRestoration):
        raise EMError(f"--degrade '{degrade}' makes pairs for restoration; segmentation needs masks")
    task.check_degradation(degrade)
    return load_em_dataset(data, split, degrade, scale if degrade == "downsample" else None, streaming=streaming)


def check_data(model: EMTaskModel, data: Examples, name: str) -> None:
    """Raise an error that says what the model needs, where the data are of another kind or have other classes."""
    if isinstance(model, EMForSemanticSegmentation):
        if not isinstance(data, LabelledMicrographs):
            raise EMError(f"segmentation needs micrographs with masks; {name} holds {type(data).__name__}")
        if data.id2label != model.classes:
            raise EMError(
                f"the model's classes are {model.classes}, those of {name} are {data.id2label}: use data with the same "
                "labels.json as in training"
            )
    elif not isinstance(data, (PairedMicrographs, CleanMicrographs)):
        raise EMError(f"{type(model).__name__} needs micrographs with targets; {name} holds {type(data).__name__}")
    elif data.scale != model.scale:
        raise EMError(
            f"the targets of {name} have {data.scale} times as many pixels a side as the images; this "
            f"{type(model).__name__} makes {model.scale} times as many"
        )


def check_finite(model: EMTaskModel, step: int) -> None:
    """Raise an error with advice where a training has run away."""
    if not all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()):
        raise EMError(
            f"the weights are no longer finite at step {step}: lower the learning rate, use --precision fp32, or look "
            "for damaged micrographs, and start again"
        )


def measure(
    model: EMTaskModel,
    data: LabelledMicrographs | PairedMicrographs,
    indices: Iterable[int],
    metrics: Metrics,
    tile: int | None = None,
) -> None:
    """Predict some micrographs, whole, and add them to the metrics."""
    for index in indices:
        metrics.add(predict(model, data.images[index], tile).output, truth_in_image_units(model, data, index))


def truth_in_image_units(model: EMTaskModel, data: LabelledMicrographs | PairedMicrographs, index: int) -> np.ndarray:
    """Return class map or target; the target in its image's units, as found in training."""
    truth = data.truth(index)
    if model.config.target_units is None:
        return truth
    gain, offset = model.config.target_units
    return gain * truth.astype(np.float64) + offset
