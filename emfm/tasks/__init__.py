"""The tasks, one in a file: head, loss, data, metrics, and what is shown of results."""

from pathlib import Path
from typing import Any

from emfm.errors import EMError
from emfm.loading.names import HUB_ARGUMENTS, model_folder
from emfm.loading.strict import read_config
from emfm.modeling import EMFoundation, EMPreTrainedModel
from emfm.tasks.background_removal import EMForBackgroundRemoval
from emfm.tasks.denoising import EMForDenoising
from emfm.tasks.instances import EMForInstanceSegmentation
from emfm.tasks.restoration import EMForImageRestoration
from emfm.tasks.segmentation import EMForSemanticSegmentation
from emfm.tasks.super_resolution import EMForSuperResolution
from emfm.tasks.task import EMTaskModel

TASKS: dict[str, type[EMTaskModel]] = {
    "segmentation": EMForSemanticSegmentation,
    "instances": EMForInstanceSegmentation,
    "denoising": EMForDenoising,
    "super-resolution": EMForSuperResolution,
    "background-removal": EMForBackgroundRemoval,
}


def task_of(model: EMPreTrainedModel) -> type[EMTaskModel]:
    """Return a model's task; a pretrained generator restores."""
    return type(model) if isinstance(model, EMTaskModel) else EMForImageRestoration


def load_model(name_or_path: str | Path, **kwargs: Any) -> EMPreTrainedModel:
    """Load a model as the class that it was saved from.

    Args:
        name_or_path: zoo name, local folder or Hub id.
        **kwargs: as in `from_pretrained`.

    Raises:
        EMError: nothing goes by this name, or it was saved by a class that emfm does not have.
    """
    hub = {key: kwargs.pop(key) for key in HUB_ARGUMENTS if key in kwargs}
    folder = model_folder(name_or_path, **hub)
    config, _ = read_config(folder)
    known: list[type[EMPreTrainedModel]] = [EMFoundation, *TASKS.values()]
    classes = {cls.__name__: cls for cls in known}
    saved = (config.architectures or ["nothing"])[0]
    if saved not in classes:
        raise EMError(f"{name_or_path} was saved by {saved}; emfm has {', '.join(classes)}")
    model = classes[saved].from_pretrained(folder, **kwargs)
    model.name_or_path = str(name_or_path)
    return model
