"""One model or several of one kind, by name or as they are, ready to predict."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from emfm.errors import EMError
from emfm.modeling import EMPreTrainedModel
from emfm.tasks import load_model

Given = EMPreTrainedModel | str | Path


def ready_model(model: Given) -> EMPreTrainedModel:
    """Return a model as it is, or load one by name or folder, onto a GPU where there is one."""
    model = getattr(model, "_orig_mod", model)  # of torch.compile(model); model.compile() stays compiled
    if isinstance(model, EMPreTrainedModel):
        return model
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return load_model(model).to(device or torch.device("cpu"))


def ready_models(given: Given | Sequence[Given]) -> list[EMPreTrainedModel]:
    """Return the models of a prediction, at least one.

    Raises:
        EMError: there is none, one is no model, or they are of different kinds.
    """
    several: Sequence[Any] = given if isinstance(given, (list, tuple)) else [given]
    if not several:
        raise EMError("no model was given: name one, or several of one kind")
    for model in several:
        if not isinstance(model, (EMPreTrainedModel, str, Path)) and not hasattr(model, "_orig_mod"):
            raise EMError(
                f"model is {type(model).__name__}; expected a model, or its name or folder: predict(model, image)"
            )
    models = [ready_model(model) for model in several]
    for model in models[1:]:
        _check_alike(models[0], model)
    return models


def _check_alike(first: EMPreTrainedModel, other: EMPreTrainedModel) -> None:
    """Raise an error that says in what two models differ, of whose maps no mean can be taken."""
    for what, found in (
        ("task", lambda model: type(model).__name__),
        ("classes", lambda model: model.classes),
        ("scale", lambda model: model.scale),
        ("intensities", lambda model: (model.processor.low, model.processor.high, model.processor.clip)),
        ("device", lambda model: str(model.device)),
    ):
        if found(first) != found(other):
            raise EMError(
                f"{_name(other)} and {_name(first)} cannot be predicted together: {what} {found(other)} and "
                f"{found(first)}; expected models of one kind, such as of several seeds"
            )


def _name(model: EMPreTrainedModel) -> str:
    return model.name_or_path or type(model).__name__
