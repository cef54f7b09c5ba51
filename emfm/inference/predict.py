"""Prediction on one micrograph of any size: statistics once, tiles, a blended result of the input's shape."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from emfm.inference.blocks import Blocks, with_progress
from emfm.inference.pixel_size import check_pixel_size, matched
from emfm.inference.plan import plan
from emfm.inference.resampling import Resampled, as_dtype, blocks_of
from emfm.io.reading import Micrograph, read_micrograph
from emfm.modeling import EMPreTrainedModel
from emfm.processing import IntensityStatistics
from emfm.reports.prediction import Prediction
from emfm.tasks import load_model, task_of


def predict(
    model: EMPreTrainedModel | str | Path,
    micrograph: Micrograph | np.ndarray | str | Path,
    tile: int | None = None,
    progress: bool = False,
    match_pixel_size: bool = False,
) -> Prediction:
    """Run a model on one micrograph; the result is an array. `predict_files` writes results of any size to files.

    Intensity statistics are taken once over the whole micrograph. A large one is cut into tiles that overlap by twice
    the model's reach, or by half a tile where that is less, and fade into each other. With an overlap of twice the
    reach the result equals that of the whole image, whatever the tile. What instance norm needs to know is measured
    once, too: over the whole of a micrograph of up to 1024 x 1024 pixels, over squares spread over a larger one.

    Args:
        model: a model, or the name or folder of one.
        micrograph: a file, a 2-D array, or what `read_micrograph` returned.
        tile: largest side of a tile in pixels; None chooses by the free memory.
        progress: show a bar.
        match_pixel_size: resample a micrograph to the pixel sizes that the model was trained at, and the result back.

    Raises:
        EMError: the micrograph cannot be read or used, the tile is too small for the model, or the pixel size is to
            be matched and not known.
    """
    model = ready_model(model)
    if isinstance(micrograph, (str, Path)):
        micrograph = read_micrograph(micrograph)
    elif not isinstance(micrograph, Micrograph):
        micrograph = Micrograph(np.asarray(micrograph), None, "array")
    given = micrograph
    if match_pixel_size:
        micrograph = matched(model, micrograph)
    else:
        check_pixel_size(model, micrograph)
    image = micrograph.image
    statistics = model.processor.statistics(image)
    blocks = Blocks(model, image, statistics, plan(model, image.shape, tile))
    output = np.empty(enlarged(model, image), dtype=result_dtype(model, image.dtype))
    for row, column, maps in with_progress(blocks, progress):
        block = model.result(maps, statistics, output.dtype)
        output[row : row + block.shape[0], column : column + block.shape[1]] = block
    if micrograph is not given:
        back = Resampled(output, enlarged(model, given.image), nearest=task_of(model).nearest)
        output = np.empty(back.shape, dtype=result_dtype(model, given.image.dtype))
        for region in blocks_of(back.shape):
            output[region] = as_dtype(back[region], output.dtype)
    pixel_size = None if given.pixel_size is None else given.pixel_size / model.scale
    return Prediction(np.asarray(given.image), output, model.classes, pixel_size, given.name)


def enlarged(model: EMPreTrainedModel, image: Any) -> tuple[int, int]:
    """Return height and width of a model's result on an image."""
    return image.shape[0] * model.scale, image.shape[1] * model.scale


def result_dtype(model: EMPreTrainedModel, dtype: Any) -> np.dtype:
    """Return the dtype of a model's result on a micrograph of some dtype."""
    pixel = np.zeros((len(model.classes) if model.classes else 1, 1, 1), dtype=np.float32)
    return model.result(pixel, IntensityStatistics(0.0, 1.0), np.dtype(dtype).newbyteorder("=")).dtype


def ready_model(model: EMPreTrainedModel | str | Path) -> EMPreTrainedModel:
    """Return a model as it is, or load one by its name or folder onto the machine's GPU, where it has one."""
    if isinstance(model, EMPreTrainedModel):
        return model
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return load_model(model).to(device or torch.device("cpu"))
