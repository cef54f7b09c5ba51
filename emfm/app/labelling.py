"""What the tab "Label" asks for, and the answers; the page itself holds nothing that matters."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from emfm.app.jobs import Jobs
from emfm.app.models import STROKES, SessionModels
from emfm.app.reading import check_upload
from emfm.app.session import LabelSession
from emfm.app.views import Box, colours, grey, grey_limits, heat, overview, part_at, tinted
from emfm.class_names import is_background
from emfm.defaults import DEFAULT_FOR_STROKES
from emfm.errors import EMError
from emfm.files import whole_folder
from emfm.finetuning.left_out import can_leave_out
from emfm.finetuning.strokes import StrokeSegmenter
from emfm.io.reading import Micrograph, list_micrographs
from emfm.tasks import load_model

Answer = dict[str, Any]
SUGGESTED_PIXELS = 4 * 2**20  # in a larger micrograph a place is looked for in the part that is shown


class Labelling:
    """A session, the head that learns from it, and the work in the background.

    Args:
        folder: of the session.
        uploads: folder of the files that the page uploads; no others are taken.
        local: whether whoever sees the page may name folders of this machine.
        model: whose trunk makes the features: zoo name, folder or Hub id.
    """

    def __init__(self, folder: str | Path, uploads: Path, local: bool = True, model: str = DEFAULT_FOR_STROKES):
        self.session = LabelSession(folder)
        self._uploads, self._local, self._model_name = uploads.resolve(), local, model
        self._segmenter: StrokeSegmenter | None = None
        self._lock, self._jobs = RLock(), Jobs()
        self._models = SessionModels(self.session.folder)
        self._limits: dict[str, tuple[float, float]] = {}
        self._segmented: dict[str, tuple[Box, str, str]] = {}
        self._verbs: dict[str, Callable[..., Answer]] = {
            "state": self.state,
            "open": self.open,
            "view": self.view,
            "stroke": self.stroke,
            "undo": self.undo,
            "labels": self.labels,
            "classes": self.name_classes,
            "segment": self.segment,
            "show": self.show,
            "suggest": self.suggest,
            "train": self.train,
            "predict": self.predict,
            "push": self.push,
            "stop": self.stop,
        }

    def ask(self, question: dict[str, Any]) -> Answer:
        """Answer the page: `verb` and its arguments; what is wrong is an `error` of one line."""
        given = dict(question)
        verb = self._verbs.get(str(given.pop("verb", "")))
        if verb is None:
            return {"error": f"the page asked for '{question.get('verb')}', which is nothing: reload it"}
        try:
            return verb(**given)
        except EMError as error:
            return {"error": str(error)}
        except TypeError as error:  # a page of another version
            return {"error": f"the page asked in a way that is not understood ({error}): reload it"}

    def state(self) -> Answer:
        """Return classes, micrographs, models and work, as every page shows them."""
        session = self.session
        names = session.names()
        painted = {name: session.counts(name) for name in names if self.session.painted(name)}
        pixels = np.sum(list(painted.values()), axis=0).tolist() if painted else [0] * len(session.classes)
        shades = colours(len(session.classes))
        classes = [
            {"name": label, "colour": shade, "pixels": count}
            for label, shade, count in zip(session.classes, shades, pixels, strict=True)
        ]
        job = self._jobs.latest
        return {
            "folder": str(session.folder) if self._local else session.folder.name,
            "local": self._local,
            "classes": classes,
            "images": [{"name": name, "painted": sum(painted.get(name, []))} for name in names],
            "models": self._models.names(),
            "curve": self._models.curve(),
            "job": None if job is None else job.state(),
        }

    def open(self, paths: list[str] | None = None, folder: str = "") -> Answer:
        """Copy uploaded files, or the micrographs of a folder of this machine, into the session."""
        uploaded = [self._uploaded(path) for path in paths or []]
        files = list(uploaded)
        if folder:
            if not self._local:
                raise EMError("this page is open to the network: it takes uploaded files, no folders of its machine")
            place = Path(folder).expanduser()
            files = [place] if place.is_file() else list_micrographs(place)
        if not files:
            raise EMError("choose micrographs first")
        added, errors = [], []
        for file in files:
            try:
                if file in uploaded:  # of a stranger's file nothing is decoded here before it was elsewhere
                    check_upload(file)
                added.append(self.session.add(file))
            except EMError as error:
                errors.append(str(error).replace(str(file), file.name))
        return {"added": added, "error": "; ".join(errors[:3]) or None, "state": self.state()}

    def view(self, name: str, row: float | None = None, column: float | None = None) -> Answer:
        """Return the part of a micrograph around a place, by default its middle."""
        image = self.session.micrograph(name).image
        height, width = image.shape
        row, column = (height / 2 if row is None else row), (width / 2 if column is None else column)
        if not (math.isfinite(row) and math.isfinite(column)):
            raise EMError(f"the place ({row}, {column}) is none: reload the page")
        box = part_at(image.shape, row, column)
        with self._lock:
            if name not in self._limits:
                self._limits[name] = grey_limits(image)
        limits = self._limits[name]
        answer = {"name": name, "shape": [height, width], "box": box, "pixel_size": self._pixel_size(name)}
        answer |= {"image": grey(image, box, limits), "overview": overview(image, limits)}
        found = self._segmented.get(name)
        if found is not None and found[0] == box:
            answer |= {"classes": found[1], "doubt": found[2]}
        return answer | self._painted(name, box)

    def stroke(self, name: str, label: str | None, radius: float, points: list[list[float]], box: list[int]) -> Answer:
        """Paint a stroke; `label` is a class, or nothing to erase."""
        met = self.session.paint(name, label, float(radius), [(float(x), float(y)) for x, y in points])
        note = None if met else "the stroke lies beside the micrograph: nothing is painted"
        return self._painted(name, self._box(name, box)) | {"note": note}

    def undo(self, name: str, box: list[int]) -> Answer:
        """Take the last stroke back."""
        note = None if self.session.undo(name) else "there is no stroke to take back"
        return self._painted(name, self._box(name, box)) | {"note": note}

    def labels(self, name: str, box: list[int]) -> Answer:
        """Return what is painted by now, on other pages too."""
        return self._painted(name, self._box(name, box))

    def name_classes(self, names: list[str]) -> Answer:
        """Rename the classes, or add some; the head learns them anew."""
        with self._lock:
            self.session.name_classes([str(name) for name in names])
            if self._segmenter is not None:
                self._segmenter = StrokeSegmenter(self._segmenter.model, self.session.classes)
            self._segmented.clear()
        return self.state()

    def segment(self, name: str, box: list[int]) -> Answer:
        """Fit the head to all that is painted, and classify the part that is shown."""
        started, part = time.perf_counter(), self._box(name, box)
        with self._lock:
            segmenter = self._fitted(name)
            classes, probability = segmenter.segment(name, part)
            hidden = [index for index, label in enumerate(segmenter.classes) if is_background(label)]
            shown = tinted(classes, len(segmenter.classes), hidden), heat(probability)
            self._segmented = {name: (part, *shown)}
        empty = [label for label, count in zip(segmenter.classes, self._totals(), strict=True) if not count]
        note = f"without strokes, so not learnt: {', '.join(empty)}" if empty else None
        seconds = round(time.perf_counter() - started, 2)
        return {"classes": shown[0], "doubt": shown[1], "seconds": seconds, "note": note}

    def show(self, name: str, box: list[int], model: str) -> Answer:
        """Classify the part that is shown with one of the session's models."""
        started, part = time.perf_counter(), self._box(name, box)
        micrograph = self.session.micrograph(name)
        pixels = np.asarray(micrograph.image[part[0] : part[2], part[1] : part[3]])
        self._model(model)  # which that of the strokes is made for
        with self._lock:
            labels = self.session.classes
            found = self._models.see(model, Micrograph(pixels, micrograph.pixel_size, name), labels)
            hidden = [index for index, label in enumerate(labels) if is_background(label)]
            shown = tinted(found, len(labels), hidden)
            self._segmented = {name: (part, shown, "")}
        return {"classes": shown, "doubt": "", "seconds": round(time.perf_counter() - started, 2)}

    def suggest(self, name: str, box: list[int]) -> Answer:
        """Return the place that is worth labelling next."""
        height, width = self.session.micrograph(name).image.shape
        part = None if height * width <= SUGGESTED_PIXELS else self._box(name, box)
        with self._lock:
            row, column = self._fitted(name).suggest(name, part)
        return {"row": row, "column": column}

    def train(self, steps: int = 300, start: str = "") -> Answer:
        """Fine-tune the network, or go on from a model, in the background."""
        if not 1 <= int(steps) <= 100_000:
            raise EMError(f"steps are {steps}; expected 1 to 100000")
        if sum(count > 0 for count in self._totals()) < 2:
            raise EMError("paint two classes or more before training")
        output, model = self._models.new("trained"), str(self._model(start)) if start else self._model_name
        command = ["finetune", "segmentation", "--model", model, "--data", str(self.session.folder)]
        command += ["--output", str(output), "--steps", str(int(steps)), "--all-scales"]
        if can_leave_out(self.session.folder):
            command += ["--leave-one-out"]
        self._jobs.start("training", command, self.session.folder / "logs" / f"{output.name}.log", output)
        return self.state()

    def predict(self, model: str, folder: str = "", paths: list[str] | None = None) -> Answer:
        """Predict a folder of this machine, uploaded files, or all of the session's micrographs."""
        if folder and not self._local:
            raise EMError("this page is open to the network: it predicts uploaded files, no folders of its machine")
        inputs = [str(self._uploaded(path)) for path in paths or []]
        inputs = [str(Path(folder).expanduser())] if folder else inputs or [str(self.session.folder / "images")]
        place = self._model(model)
        output = self.session.folder / "predictions" / model
        command = ["predict", *inputs, "--model", str(place), "--output", str(output)]
        self._jobs.start("predicting", command, self.session.folder / "logs" / f"predict-{model}.log", output)
        return self.state()

    def push(self, model: str, repo_id: str, private: bool = True) -> Answer:
        """Push a model with its card; returns the commit's address."""
        if not repo_id.strip():
            raise EMError("name the repository first: your name or an organization's, a slash, the model's name")
        pushed = load_model(str(self._model(model)))
        return {"address": pushed.push_to_hub(repo_id.strip(), private=bool(private)), "state": self.state()}

    def stop(self) -> Answer:
        """Stop the work in the background; what it has written so far stays."""
        if self._jobs.latest is not None:
            self._jobs.latest.stop()
        return self.state()

    def _fitted(self, name: str) -> StrokeSegmenter:
        """Return the segmenter, fitted to what is painted now; a micrograph of it is named."""
        if self._segmenter is None:
            self._segmenter = StrokeSegmenter(self._model_name, self.session.classes)
        painted = [known for known in self.session.names() if self.session.painted(known)]
        for known in {name, *painted}:
            self._segmenter.look(known, self.session.micrograph(known).image)
        self._segmenter.fit({}, {known: self.session.labels(known) for known in painted})
        return self._segmenter

    def _model(self, name: str) -> Path:
        """Return the folder of a model; that of the strokes is written as it is now."""
        if name != STROKES:
            return self._models.path(name)
        with self._lock:
            if not (names := self.session.names()):
                raise EMError("open a micrograph and paint two classes first")
            segmenter = self._fitted(names[0])
            with whole_folder(self._models.strokes) as folder:
                segmenter.model.save_pretrained(folder)
        return self._models.strokes

    def _painted(self, name: str, box: Box) -> Answer:
        labels = self.session.labels(name, (slice(box[0], box[2]), slice(box[1], box[3])))
        return {"labels": tinted(labels, len(self.session.classes)), "counts": self._totals()}

    def _totals(self) -> list[int]:
        found = [self.session.counts(name) for name in self.session.names() if self.session.painted(name)]
        return np.sum(found, axis=0).tolist() if found else [0] * len(self.session.classes)

    def _box(self, name: str, box: list[int]) -> Box:
        shape = self.session.micrograph(name).image.shape
        return part_at(shape, (box[0] + box[2]) / 2, (box[1] + box[3]) / 2)

    def _pixel_size(self, name: str) -> float | None:
        return self.session.micrograph(name).pixel_size

    def _uploaded(self, path: str) -> Path:
        place = Path(path).resolve()
        if self._uploads not in place.parents:
            raise EMError(f"{Path(path).name} was not uploaded by this page")
        return place
