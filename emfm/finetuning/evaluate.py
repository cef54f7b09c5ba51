"""Measuring a fine-tuned model on a split: whole micrographs, predicted as a user would."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from emfm.data.examples import Examples
from emfm.errors import EMError
from emfm.finetuning.truth import say_what_is_missing
from emfm.inference.arguments import PredictArguments
from emfm.inference.ensemble import ready_model
from emfm.inference.predict import predict
from emfm.io.reading import FileChoice
from emfm.modeling import EMPreTrainedModel
from emfm.no_data import naming
from emfm.tasks.reliability import Reliability
from emfm.tasks.task import EMTaskModel


def evaluate(
    model: EMPreTrainedModel | str | Path,
    data: str | Path,
    split: str = "test",
    tile: int | None = None,
    degrade: str | None = None,
    nodata: float | None = None,
    choice: FileChoice | None = None,
    tta: bool = False,
) -> dict[str, Any]:
    """Predict whole micrographs of a split and compare them with the truth.

    Args:
        model: a fine-tuned model, or the name or folder of one.
        data: a folder or dataset, as for `load_em_dataset`.
        split: which one.
        tile: largest side of a tile in pixels; None chooses by the free memory.
        degrade: for restoration, make the pairs from the split's images, taken as clean.
        nodata: value of pixels without data; NaN is such in any case.
        choice: which dataset of HDF5, Zarr, DM and EMD files, and which grey of colour.
        tta: measure means over the eight symmetries, as `predict` can make them.

    Returns:
        Segmentation: `dice`, `iou`, `boundary_f1` (means without background), `per_class`, and the
        expected `calibration_error` of the probabilities.
        Instances: `ap50`, `ap`, `pq`, `count_error`, `size_distance` in pixels and, where all pixel
        sizes are known, `size_distance_nm`; `per_class` where objects have classes.
        Restoration: `l1`, `psnr`, `ssim` and their `data_range`. All: `n` micrographs, and
        `trivial`: figures of the best single class, of the input, or of its bicubic enlargement.
        A figure that does not exist is None, such as that of a class which no mask holds.

    Raises:
        EMError: the model has no task, or the data do not fit it.
    """
    PredictArguments(tile=tile)  # which checks it before the model is loaded
    model = ready_model(model)
    if not isinstance(model, EMTaskModel):
        raise EMError(f"{type(model).__name__} has no task to evaluate; fine-tune it first: emfm finetune TASK")
    scale = model.scale if degrade else None
    examples = model.load(data, split, degrade, scale, choice=choice).without(nodata)
    model.check_data(examples, str(data))
    say_what_is_missing(model, examples, f"the split '{split}' of {data}")
    return evaluate_on(model, examples.to_measure(), tile, tta)


def evaluate_on(model: EMTaskModel, examples: Examples, tile: int | None = None, tta: bool = False) -> dict[str, Any]:
    """Predict whole micrographs in memory and compare them with the truth, as `evaluate` does."""
    metrics, reliability = model.new_metrics(), Reliability()
    for index in tqdm(range(len(examples)), unit="image", leave=False):
        truth = model.truth_of(examples, index)
        watch = partial(_count, reliability, truth) if model.calibrates else None
        with naming(examples.names[index]):
            options: dict[str, Any] = {"tta": tta, "compare": False, "precision": "fp32", "watch": watch}
            found = predict(model, examples.images[index], tile, **options)
            model.measure(metrics, found, examples, index)
    answer = model.trivial_figures(examples, metrics)
    sure = {"calibration_error": reliability.error} if model.calibrates else {}
    return {**metrics.result(), **sure, "trivial": {figure.name: answer[figure.name] for figure in model.figures}}


def _count(reliability: Reliability, truth: np.ndarray, row: int, column: int, maps: np.ndarray) -> None:
    """Compare the probabilities (K, h, w) of a block with its part of the truth."""
    reliability.add(maps, truth[row : row + maps.shape[1], column : column + maps.shape[2]])
