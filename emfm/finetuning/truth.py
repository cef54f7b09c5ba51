"""What the truth of a data set cannot teach or measure, said before any work begins."""

import logging

import numpy as np

from emfm.data.examples import Examples, PairedMicrographs
from emfm.errors import EMError
from emfm.io.bar_look import say_seen_bars
from emfm.no_data import say_no_data
from emfm.tasks.metrics import is_constant
from emfm.tasks.task import EMTaskModel, MissingTruth

logger = logging.getLogger(__name__)
SHOWN = 5  # names of many


def check_training_truth(model: EMTaskModel, data: Examples, name: str) -> None:
    """Warn of what the truth of training data cannot teach.

    Raises:
        EMError: it teaches nothing at all, as masks without a pixel of foreground.
    """
    say_no_data(name, data.images, data.names)
    say_seen_bars(data.images, data.names)
    missing = model.missing_truth(data)
    if missing.nothing:
        raise EMError(f"{name} hold nothing to learn: {missing.nothing} ({_some(data.names)})")
    if model.classes is not None and len(missing.classes) == len(model.classes) - 1:
        (only,) = set(model.classes.values()) - set(missing.classes)
        raise EMError(f"{name} hold nothing to tell apart: every labelled pixel is {only} ({_some(data.names)})")
    _say(missing, name)


def check_validation_truth(model: EMTaskModel, data: Examples, name: str) -> None:
    """Warn of what validation data cannot measure; of some no figure can choose the best step."""
    say_no_data(name, data.images, data.names)
    say_seen_bars(data.images, data.names)
    missing = model.missing_truth(data)
    if missing.nothing:
        logger.warning(
            "%s cannot choose the best step, so the last weights will be kept: %s (%s)",
            *(name, missing.nothing, _some(data.names)),
        )
    else:
        _say(missing, name)


def say_what_is_missing(model: EMTaskModel, data: Examples, name: str) -> None:
    """Warn of the figures that will not exist when a model is measured on these data."""
    say_no_data(name, data.images, data.names)
    say_seen_bars(data.images, data.names)
    missing = model.missing_truth(data)
    if missing.nothing:
        logger.warning("%s has no figures: %s (%s)", name, missing.nothing, _some(data.names))
    else:
        _say(missing, name)


def _say(missing: MissingTruth, name: str) -> None:
    if missing.files:
        logger.warning("%s: %s in %s", name, missing.why, _some(missing.files))
    if missing.classes:
        logger.warning("%s: no mask holds a pixel of %s", name, _some(missing.classes))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def say_useless(data: Examples, name: str) -> None:
    """Warn of micrographs without contrast, and of targets that equal their micrographs."""
    constant = [file for image, file in zip(data.images, data.names, strict=True) if is_constant(image)]
    if constant:
        logger.warning("%s: every pixel has the same value in %s", name, _some(constant))
    if isinstance(data, PairedMicrographs):
        pairs = zip(data.images, data.targets, data.names, strict=True)
        equal = [file for image, target, file in pairs if image.shape == target.shape and np.array_equal(image, target)]
        if equal:
            logger.warning("%s: the target is the micrograph itself in %s", name, _some(equal))
