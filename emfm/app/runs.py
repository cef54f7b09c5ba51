"""What the page does with an upload: read it, predict, write the files to download."""

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from emfm.app.reading import read_upload
from emfm.errors import EMError
from emfm.hub.card import table
from emfm.inference.ensemble import ready_model
from emfm.inference.files import with_pixel_size
from emfm.inference.predict import predict
from emfm.io.reading import Micrograph
from emfm.io.writing import write_image
from emfm.modeling import EMPreTrainedModel
from emfm.reports.prediction import Prediction
from emfm.simulate.nanoparticles import simulate_nanoparticles
from emfm.tasks import task_of

KEPT_SECONDS = 3600
LOADED_MODELS = 3
DIAMETERS = ("mean", "median")  # that are told
# Pictures of the micrograph and of its result, both (H, W, 3) uint8; the files to download, first
# the result as TIFF in its own dtype; and what was found, as Markdown.
Answer = tuple[tuple[np.ndarray, np.ndarray] | None, list[str], str]


class Runner:
    """Runs the models that a page offers, and keeps its files in a temporary folder for an hour.

    Args:
        models: name on the page: zoo name, folder or Hub id; nothing else is ever loaded.
    """

    def __init__(self, models: dict[str, str]):
        self.models = models
        self._folder = tempfile.TemporaryDirectory(prefix="emfm-app-", ignore_cleanup_errors=True)
        self._loaded: dict[str, EMPreTrainedModel] = {}

    def __call__(self, model: str, path: str | None, pixel_size: float | None = None) -> Answer:
        """Predict an uploaded micrograph.

        Args:
            model: a name out of `models`.
            path: the uploaded file.
            pixel_size: nm per pixel, whatever the file says.

        Raises:
            EMError: there is no file, it cannot be used, or the model does not load.
        """
        folder = self.new_folder()
        micrograph = self._read(path, pixel_size, folder)
        network = self._model(model)
        started = time.perf_counter()
        prediction = predict(network, micrograph, progress=True)
        seconds = time.perf_counter() - started
        stem, report = Path(str(path)).stem, task_of(network).report()
        result = folder / f"{stem}.tif"
        write_image(result, prediction.output, prediction.pixel_size)
        written = report.write(prediction, folder, stem)
        files = [str(file) for file in dict.fromkeys([result, *written.values()])]
        found = _json(written.get("summary"))
        told = _told(prediction, found, model, seconds)
        trust = told_of_trust(prediction, _json(written.get("residual")))
        return report.before_and_after(prediction), files, "\n\n".join([told, *trust])

    def unsure(self, model: str, path: str | None, pixel_size: float | None = None) -> np.ndarray:
        """Return a picture (H, W, 3) of where a result is not sure, in eight times the work.

        Raises:
            EMError: as for a prediction.
        """
        micrograph = self._read(path, pixel_size, self.new_folder())
        network = self._model(model)
        prediction = predict(network, micrograph, progress=True, uncertainty=True)
        return task_of(network).report().unsure(prediction)["unsure"]

    def _read(self, path: str | None, pixel_size: float | None, folder: Path) -> Micrograph:
        if not path:
            raise EMError("choose a micrograph first")
        if pixel_size is not None and not 0 < pixel_size < 1e6:
            raise EMError(f"the pixel size is {pixel_size:g}; expected nm per pixel, above 0")
        return with_pixel_size(read_upload(path, folder), pixel_size, Path(path).name)

    def new_folder(self) -> Path:
        """Return a new folder, after those older than an hour are gone."""
        root = Path(self._folder.name)
        for old in root.iterdir():
            if time.time() - old.stat().st_mtime > KEPT_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(dir=root))

    def example(self) -> str:
        """Return the path of a simulated micrograph of gold nanoparticles, to try a model on."""
        drawn = simulate_nanoparticles((768, 1024), 5)
        path = self.new_folder() / "simulated_gold.tif"
        write_image(path, drawn.image, drawn.pixel_size)
        return str(path)

    def _model(self, name: str) -> EMPreTrainedModel:
        if name not in self.models:
            raise EMError(f"this page has no model '{name}'; it has {', '.join(self.models)}")
        if name not in self._loaded:
            while len(self._loaded) >= LOADED_MODELS:
                self._loaded.pop(next(iter(self._loaded)))
            self._loaded[name] = ready_model(self.models[name])
        return self._loaded[name]


def _told(prediction: Prediction, summary: dict[str, Any] | None, model: str, seconds: float) -> str:
    """Return what was done and, of classes and objects, found, as Markdown."""
    height, width = prediction.image.shape
    size = "pixel size not known" if prediction.pixel_size is None else f"{prediction.pixel_size:.4g} nm per pixel"
    if prediction.output.shape != prediction.image.shape:
        size = f"{prediction.output.shape[1]} x {prediction.output.shape[0]} pixels after, {size}"
    line = f"**{width} x {height}** pixels, {prediction.image.dtype}, {size}; {seconds:.1f} s with `{model}`."
    if summary is None:
        return line
    if "objects" in summary:
        return "\n\n".join([line, _objects_told(summary)])
    rows = []
    for label, found in summary["classes"].items():
        row = [as_it_is(label), str(found["regions"]), str(found["touching_border"]), f"{found['area_share']:.1%}"]
        rows.append([*row, *_diameters(found)])
    headings = ["class", "regions", "cut by the border", "area"]
    headings += [f"{kind} diameter ({summary['unit']})" for kind in DIAMETERS]
    note = "Diameters are those of discs of equal area, of regions that the border does not cut."
    return "\n\n".join([line, table(headings, rows), note])


def _objects_told(summary: dict[str, Any]) -> str:
    """Return number and sizes of the objects, and of those of each class, as Markdown."""
    groups = {**{as_it_is(label): found for label, found in summary.get("classes", {}).items()}, "all": summary}
    rows = [
        [label, str(found["objects"]), str(found["touching_border"]), *_diameters(found)]
        for label, found in groups.items()
    ]
    headings = ["objects", "number", "cut by the border"]
    headings += [f"{kind} diameter ({summary['unit']})" for kind in DIAMETERS]
    note = "Diameters are those of discs of equal area, of objects that the border does not cut."
    return "\n\n".join([table(headings, rows), note])


def _diameters(found: dict[str, Any]) -> list[str]:
    diameters = (found[f"{kind}_diameter"] for kind in DIAMETERS)
    return ["none" if diameter is None else f"{diameter:.4g}" for diameter in diameters]


def _json(path: Path | None) -> dict[str, Any] | None:
    return None if path is None else json.loads(path.read_text(encoding="utf-8"))


def told_of_trust(prediction: Prediction, residual: dict[str, Any] | None) -> list[str]:
    """Return sentences on what speaks for or against a result, as Markdown."""
    found = []
    if prediction.domain is not None and not prediction.domain.inside:
        found.append(
            f"**Look twice:** the micrograph is unlike those of the model's training in {prediction.domain.told()}."
        )
    if prediction.confidence is not None:
        below, stated = prediction.confidence["share_below"], prediction.confidence["stated"]
        found.append(f"{below:.1%} of the pixels are less sure than {stated:g}.")
    if residual is not None:
        found.append(f"What was taken away looks like {' and '.join(residual['looks_like'])}.")
    return found


def as_it_is(text: str) -> str:
    """Return text, with names that may be anything in it, for Markdown to show as it is."""
    return "".join(c if c.isalnum() or c in " ,;'/" else f"&#{ord(c)};" for c in text)
