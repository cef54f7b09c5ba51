"""Prediction from files to files."""

import json
from dataclasses import replace
from pathlib import Path

from tqdm.auto import tqdm

from emfm.data.io import read_micrograph, write_image, write_text
from emfm.errors import EMError
from emfm.inference.pictures import picture_of
from emfm.inference.predict import DEFAULT_TILE, predict, ready_model
from emfm.modeling import EMPreTrainedModel


def predict_files(
    model: EMPreTrainedModel | str | Path,
    inputs: list[Path],
    output: Path,
    tile: int = DEFAULT_TILE,
    pixel_size: float | None = None,
) -> list[dict[str, str]]:
    """Predict micrographs one after the other.

    For each input `NAME.tif` (class indices, or the restored micrograph; pixel size kept) and `NAME_overlay.png`
    (segmentation) or `NAME_compare.png` (restoration) are written. All files are read once before the first is
    predicted, so a bad one stops the run before it has written anything.

    Args:
        model: a model, or the name or folder of one.
        inputs: micrograph files.
        output: folder for the results; made if needed.
        tile: side of a tile in pixels.
        pixel_size: nm per pixel, where a file does not say.

    Returns:
        One entry per input with the paths `input`, `output` and `picture`.

    Raises:
        EMError: a file cannot be read, two inputs have one name, or the model does not load.
    """
    stems = [path.stem for path in inputs]
    doubled = sorted({stem for stem in stems if stems.count(stem) > 1})
    if doubled:
        raise EMError(
            f"several inputs are called {', '.join(doubled)} and would overwrite each other: predict them apart"
        )
    model = ready_model(model)
    for path in inputs:
        model.processor.statistics(read_micrograph(path).array)
    written = []
    for path in tqdm(inputs, unit="image", disable=len(inputs) == 1, leave=False):
        micrograph = read_micrograph(path)
        if micrograph.pixel_size is None and pixel_size is not None:
            micrograph = replace(micrograph, pixel_size=pixel_size)
        prediction = predict(model, micrograph, tile, progress=True)
        result = output / f"{path.stem}.tif"
        picture = output / f"{path.stem}_{'overlay' if prediction.id2label else 'compare'}.png"
        write_image(result, prediction.output, prediction.pixel_size)
        write_image(picture, picture_of(prediction))
        written.append({"input": str(path), "output": str(result), "picture": str(picture)})
    if model.classes is not None:
        write_text(output / "labels.json", json.dumps(model.classes, indent=1))
    return written
