"""Prediction on one micrograph of any size: statistics once, tiles, a blended result of the input's shape."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from emfm.data.io import Micrograph, read_micrograph
from emfm.errors import EMError
from emfm.inference.tiling import Tiling, tiled_bands
from emfm.modeling import EMPreTrainedModel
from emfm.processing import IntensityStatistics
from emfm.tasks import load_model

DEFAULT_TILE = 1024
RAMP = 16


@dataclass(frozen=True)
class Prediction:
    """A model's result on one micrograph.

    Attributes:
        image: (H, W) the micrograph, in its own dtype.
        output: (H, W) class indices (segmentation) or the restored micrograph in the input's units and dtype; with
            `scale` times as many pixels a side (super-resolution).
        id2label: class names of a segmentation, else None.
        pixel_size: nm per pixel of the output, None where it is not known.
        name: the micrograph's file name, or "array".
    """

    image: np.ndarray
    output: np.ndarray
    id2label: dict[int, str] | None
    pixel_size: float | None
    name: str


def predict(
    model: EMPreTrainedModel | str | Path,
    micrograph: Micrograph | np.ndarray | str | Path,
    tile: int = DEFAULT_TILE,
    progress: bool = False,
) -> Prediction:
    """Run a model on one micrograph.

    Intensity statistics are taken once over the whole micrograph. A micrograph larger than `tile` is cut into tiles
    that overlap by twice the model's reach, or by half a tile where that is less, and fade into each other. With batch
    norm and an overlap of twice the reach the result equals that of the whole image. Instance norm takes its
    statistics from each tile, so there large tiles are better, and neighbours differ by what the fade has to hide.

    Args:
        model: a model, or the name or folder of one.
        micrograph: a file, a 2-D array, or what `read_micrograph` returned.
        tile: side of a tile in pixels; smaller ones take less memory and more time.
        progress: show a bar.

    Raises:
        EMError: the micrograph cannot be read or used, or the tile is too small for the model.
    """
    model = ready_model(model)
    if isinstance(micrograph, (str, Path)):
        micrograph = read_micrograph(micrograph)
    elif not isinstance(micrograph, Micrograph):
        micrograph = Micrograph(np.asarray(micrograph), None, "array")
    image = micrograph.image
    statistics = model.processor.statistics(image)
    bands = [
        model.result(band, statistics, image.dtype) for band in _map_bands(model, image, statistics, tile, progress)
    ]
    pixel_size = None if micrograph.pixel_size is None else micrograph.pixel_size / model.scale
    return Prediction(image, np.concatenate(bands), model.classes, pixel_size, micrograph.name)


def ready_model(model: EMPreTrainedModel | str | Path) -> EMPreTrainedModel:
    """Return a model as it is, or load one by its name or folder onto the machine's GPU, where it has one."""
    if isinstance(model, EMPreTrainedModel):
        return model
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return load_model(model).to(device or torch.device("cpu"))


def _map_bands(
    model: EMPreTrainedModel, image: np.ndarray, statistics: IntensityStatistics, tile: int, progress: bool
) -> Any:
    """Yield the model's blended maps (C, rows, W), top to bottom."""
    stride = model.trunk.stride
    if tile < 4 * stride:
        raise EMError(f"a tile of {tile} px is too small for this model: use at least {4 * stride}")
    whole = max(image.shape) <= tile
    ramp = min(RAMP, tile // 16)
    # the margin may take up to a quarter of the tile on each side
    margin = 0 if whole else min(model.reach, (tile - ramp) // 4)
    tiling = Tiling(tile, margin, ramp, stride, model.scale)
    was_training = model.training
    model.eval()
    bar = tqdm(total=tiling.count(*image.shape), unit="tile", disable=not progress, leave=False)

    def network(part: np.ndarray) -> np.ndarray:
        values = torch.from_numpy(model.processor.normalize(part, statistics))[None, None].to(model.device)
        maps = model.maps(values)[0].cpu().numpy()
        bar.update()
        return maps

    try:
        for _, band in tiled_bands(image, tiling, network):
            yield band
    finally:
        bar.close()
        model.train(was_training)
