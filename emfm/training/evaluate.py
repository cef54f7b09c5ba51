"""Measuring a fine-tuned model on a labelled split."""

from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from emfm.data.datasets import load_em_dataset
from emfm.errors import EMError
from emfm.inference.predict import DEFAULT_TILE, predict, ready_model
from emfm.modeling import EMPreTrainedModel
from emfm.tasks.segmentation import EMForSemanticSegmentation


def evaluate(
    model: EMPreTrainedModel | str | Path, data: str | Path, split: str = "test", tile: int = DEFAULT_TILE
) -> dict[str, Any]:
    """Predict whole micrographs of a split and compare them with the truth.

    Args:
        model: a fine-tuned model, or the name or folder of one.
        data: labelled folder.
        split: which list of its `splits.json`.
        tile: side of a tile in pixels.

    Returns:
        `dice` and `iou` (means over the classes but background), `per_class`, and `n`, the number of micrographs.

    Raises:
        EMError: the model has no task, or its classes are not those of the folder.
    """
    model = ready_model(model)
    if not isinstance(model, EMForSemanticSegmentation):
        raise EMError(f"{type(model).__name__} has no task to evaluate; fine-tune it first: emfm finetune segmentation")
    labelled = load_em_dataset(data, split)
    if labelled.id2label != model.classes:
        raise EMError(
            f"the model's classes are {model.classes}, those of {data} are {labelled.id2label}: evaluate on a "
            "folder with the same labels.json as in training"
        )
    metrics = model.new_metrics()
    pairs = zip(labelled.images, labelled.masks, strict=True)
    for image, mask in tqdm(pairs, total=len(labelled), unit="image", leave=False):
        metrics.add(predict(model, image, tile).output, mask)
    return metrics.result()
