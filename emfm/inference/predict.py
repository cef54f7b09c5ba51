"""Prediction on one micrograph of any size: statistics once, tiles, a blended result of the input's shape."""

from pathlib import Path

import numpy as np
import torch

from emfm.inference.flow import ArrayResult, Flow, result_form
from emfm.inference.processes import Processes
from emfm.io.reading import Micrograph, read_micrograph
from emfm.modeling import EMPreTrainedModel
from emfm.reports.prediction import Prediction
from emfm.tasks import load_model


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
    result = ArrayResult(*result_form(model, micrograph.image))
    Flow(model, tile, match_pixel_size, progress, Processes(0, 1)).run(micrograph, result)
    pixel_size = None if micrograph.pixel_size is None else micrograph.pixel_size / model.scale
    return Prediction(micrograph.array, result.read(), model.classes, pixel_size, micrograph.name)


def ready_model(model: EMPreTrainedModel | str | Path) -> EMPreTrainedModel:
    """Return a model as it is, or load one by its name or folder onto the machine's GPU, where it has one."""
    if isinstance(model, EMPreTrainedModel):
        return model
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return load_model(model).to(device or torch.device("cpu"))
