"""Prediction of a whole stack: slice after slice, into one volume.

Slices are kept in a hidden folder until all are there, so a run that was stopped goes on with the
next one. Memory holds one slice at a time, or a tile of it.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from emfm.files import write_text
from emfm.inference.predict import Flow, result_form
from emfm.inference.processes import Processes
from emfm.inference.result_files import ResultFile, open_result
from emfm.io.reading import Micrograph
from emfm.io.writing import write_image
from emfm.modeling import EMPreTrainedModel
from emfm.reports.prediction import Prediction
from emfm.tasks import task_of


@dataclass(frozen=True)
class Stack:
    """A stack to predict, slice by slice.

    Attributes:
        model: of which the results are.
        count: slices that there are.
        target: file of the volume (Z, H, W).
        made_from: input, model and settings: slices of others are not used.
        tile, match_pixel_size, tta: as in `predict`.
        others: models that are predicted together with it.
    """

    model: EMPreTrainedModel
    count: int
    target: Path
    made_from: dict[str, Any]
    tile: int | None
    match_pixel_size: bool
    tta: bool
    others: tuple[EMPreTrainedModel, ...] = ()

    @property
    def slices(self) -> Path:
        """The hidden folder of the slices that are done."""
        return self.target.with_name(f".{self.target.stem}.slices")

    def predict(self, micrographs: Iterator[Micrograph], processes: Processes) -> dict[str, Any]:
        """Predict what is not there yet, put it together, and return what the record says of it.

        Raises:
            EMError: a slice cannot be read or used.
        """
        processes.together(lambda: self._prepare() if processes.rank == 0 else None)
        form, pixel_size, middle = None, None, None
        bar = tqdm(micrographs, total=self.count, unit="slice", disable=processes.rank > 0, leave=False)
        for number, micrograph in enumerate(bar):
            form = result_form(self.model, micrograph.image)
            pixel_size = None if micrograph.pixel_size is None else micrograph.pixel_size / self.model.scale
            if number == self.count // 2:
                middle = micrograph
            if number % processes.count == processes.rank:
                self._one(number, micrograph, form)
        assert form is not None and middle is not None
        processes.gather(None)  # all slices are there
        processes.together(lambda: self._join(form, pixel_size) if processes.rank == 0 else None)
        shown = processes.together(lambda: self._show(middle, pixel_size) if processes.rank == 0 else {})
        processes.together(lambda: shutil.rmtree(self.slices) if processes.rank == 0 else None)
        shape = [self.count, *form[0]]
        return {"shape": shape, "dtype": str(form[1]), "pixel_size": pixel_size, "shown": processes.gather(shown)[0]}

    def _prepare(self) -> None:
        """Keep the slices of the same input, model and settings; those of others are removed."""
        record, wanted = self.slices / "made_from.json", json.dumps(self.made_from, indent=1)
        if record.is_file() and record.read_text(encoding="utf-8") == wanted:
            return
        shutil.rmtree(self.slices, ignore_errors=True)
        self.slices.mkdir(parents=True)
        write_text(record, wanted)

    def _one(self, number: int, micrograph: Micrograph, form: tuple[tuple[int, int], np.dtype]) -> None:
        path = self._path(number)
        if not path.is_file():
            how = self.tile, self.match_pixel_size, False, Processes(0, 1), self.tta
            flow = Flow(self.model, *how, others=self.others)
            flow.run(micrograph, ResultFile(path, *form, None))

    def _path(self, number: int) -> Path:
        return self.slices / f"{number:06d}.npy"

    def _join(self, form: tuple[tuple[int, int], np.dtype], pixel_size: float | None) -> None:
        """Write the slices into one file."""
        volume = ResultFile(self.target, (self.count, *form[0]), form[1], pixel_size)
        alone = Processes(0, 1)
        with volume.filling(alone):
            for number in range(self.count):
                volume.write(number * form[0][0], 0, np.asarray(open_result(self._path(number))))

    def _show(self, middle: Micrograph, pixel_size: float | None) -> dict[str, str]:
        """Write the pictures of the middle slice; return their names."""
        output = open_result(self._path(self.count // 2))
        prediction = Prediction(middle.image, output, self.model.classes, pixel_size, middle.name)  # type: ignore[arg-type]
        report = task_of(self.model).report()
        names = {"picture": f"{self.target.stem}_{report.first}.png"}
        for kind, picture in report.pictures(prediction).items():
            names[kind] = f"{self.target.stem}_{kind}.png"
            write_image(self.target.with_name(names[kind]), picture)
        return names
