"""The models of a labelling session: which there are, how well they do, what they see."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from emfm.errors import EMError
from emfm.inference.predict import predict
from emfm.io.reading import Micrograph
from emfm.tasks import load_model

STROKES = "strokes"  # what the model is called whose head was fitted in the page


class SessionModels:
    """The folder `models/` of a session.

    Args:
        folder: of the session.
    """

    def __init__(self, folder: Path):
        self._folder = folder / "models"
        self._loaded: tuple[float, Any] | None = None  # when it was written, and the model

    def names(self) -> list[str]:
        """Return the names of the models that are whole, the newest first."""
        found = [path.parent for path in self._folder.glob("*/config.json")]
        found = [path for path in found if (path / "model.safetensors").is_file()]
        return [path.name for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]

    def path(self, name: str) -> Path:
        """Return the folder of a model.

        Raises:
            EMError: there is none of this name.
        """
        if name not in self.names():
            raise EMError(f"the session has no model '{name}'; it has {', '.join(self.names()) or 'none yet'}")
        return self._folder / name

    @property
    def strokes(self) -> Path:
        """The folder of the model whose head was fitted in the page, there or not."""
        return self._folder / STROKES

    def new(self, kind: str) -> Path:
        """Return a folder that is not there yet."""
        numbers = (number for number in range(1, 10_000) if not (self._folder / f"{kind}-{number}").exists())
        return self._folder / f"{kind}-{next(numbers)}"

    def curve(self) -> dict[str, Any] | None:
        """Return step and Dice of each evaluation of the newest training.

        `note` says of a training that has ended on what its figures were measured.
        """
        found = sorted(self._folder.glob("*/curve.json"), key=lambda path: path.stat().st_mtime)
        if not found:
            return None
        points = [{key: entry.get(key) for key in ("step", "dice")} for entry in _json(found[-1], [])]
        record = _json(found[-1].with_name("finetuning.json"), {})
        note = "on labels that it learnt from" if record.get("validation_trained_on") else None
        left_out = record.get("left_out")
        if left_out and left_out["mean"] is not None:
            spread = f"{left_out['mean']:.2f} ± {left_out['spread']:.2f}"
            unseen = f"{spread} on {left_out['n']} {left_out['of']}, each left out of a short training"
            note = f"{note}; {unseen}" if note else unseen
        return {"model": found[-1].parent.name, "points": points, "note": note}

    def see(self, name: str, part: Micrograph, classes: list[str]) -> np.ndarray:
        """Return what a model finds in a part of a micrograph, as indices (h, w) of classes.

        Raises:
            EMError: there is no such model, or it knows other classes.
        """
        place = self.path(name)
        written = (place / "model.safetensors").stat().st_mtime
        if self._loaded is None or self._loaded[0] != written:
            self._loaded = (written, load_model(str(place)))
        model = self._loaded[1]
        names = list((model.classes or {}).values())
        if unknown := [label for label in names if label not in classes]:
            raise EMError(f"the model '{name}' knows {', '.join(unknown)}, no classes of this session: train again")
        found = predict(model, part).output
        return np.array([classes.index(label) for label in names], dtype=np.int16)[found]


def _json(path: Path, otherwise: Any) -> Any:
    """Return what a file holds, which a training may be writing at this moment."""
    with suppress(OSError, ValueError):
        return json.loads(path.read_text(encoding="utf-8"))
    return otherwise
