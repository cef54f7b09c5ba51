"""Prediction of a whole stack: slice after slice, into one volume.

Slices are kept in a hidden folder until all are there, so a run that was stopped goes on with the
next one. Memory holds one slice at a time, or a tile of it.
"""

import json
import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from emfm.errors import EMError
from emfm.files import write_text
from emfm.inference.arguments import PredictArguments
from emfm.inference.domain import place_seen
from emfm.inference.orthoplanes import Orthoplanes, check_cubic
from emfm.inference.predict import Flow
from emfm.inference.processes import ALONE, Processes
from emfm.inference.resampling import check_pixel_size
from emfm.inference.result_files import ResultFile, open_result
from emfm.inference.result_form import hide_no_data, no_data_value, result_form, say_few_levels
from emfm.inference.seen import Seen
from emfm.inference.slice_notes import SliceNotes
from emfm.inference.stated_slices import StatedSlices
from emfm.io.large_images import release_pages
from emfm.io.writing import write_image
from emfm.modeling import EMPreTrainedModel
from emfm.no_data import count_no_data, say_data_bar
from emfm.processing import IntensityStatistics
from emfm.reports.prediction import ObjectClasses, Prediction
from emfm.reports.volumes import VolumeObjects, Voxel, montage, slices_shown
from emfm.tasks import task_of
from emfm.tasks.linking import LinkedSlice, link_slices
from emfm.tasks.separation import Separation
from emfm.tasks.watershed import separate

BAND_PIXELS = 2**22
# What shows the objects of a volume; the picture of slices is there in any case.
TABLES = ("objects.csv", "summary.json", "sizes.png")
# Numbers above this become floats in an MRC file, which hold whole ones up to 2**24.
MRC_LIMITS = (2**16 - 1, 2**24)


@dataclass(frozen=True)
class Stack:
    """A stack to predict, slice by slice.

    Attributes:
        slices: of the stack.
        target: file of the volume (Z, H, W).
        made_from: input, model and settings: slices of others are not used.
        flow: how a slice is predicted, and by which models.
        arguments: of the prediction.
    """

    slices: StatedSlices
    target: Path
    made_from: dict[str, Any]
    flow: Flow
    arguments: PredictArguments

    @property
    def model(self) -> EMPreTrainedModel:
        """Of which the results are; the first of several."""
        return self.flow.model

    @property
    def slices_folder(self) -> Path:
        """The hidden folder of the slices that are done."""
        return self.target.with_name(f".{self.target.stem}.slices")

    @cached_property
    def notes(self) -> SliceNotes:
        """What is learnt of each slice."""
        models, arguments = (self.model, *self.flow.others), self.arguments
        return SliceNotes(self.slices_folder, len(self.slices), models, arguments.confidence, arguments.uncertainty)

    @cached_property
    def _form(self) -> tuple[tuple[int, int], np.dtype]:
        return result_form(self.model, self.slices[0].image)

    @property
    def _pixel_size(self) -> float | None:
        return None if self.slices.pixel_size is None else self.slices.pixel_size / self.model.scale

    def predict(self, processes: Processes) -> dict[str, Any]:
        """Predict what is not there yet, put it together, and return what the record says of it.

        Raises:
            EMError: a slice cannot be read or used.
        """
        processes.together(lambda: self._check() if processes.rank == 0 else None)
        processes.together(lambda: self._prepare() if processes.rank == 0 else None)
        if self.arguments.orthoplanes:
            self._predict_planes(processes)
        else:
            numbers = range(processes.rank, len(self.slices), processes.count)
            for number in tqdm(numbers, unit="slice", disable=processes.rank > 0, leave=False):
                if not self.notes.done(number):
                    self._predict_slice(number)
        processes.gather(None)  # all slices are there
        record = processes.together(lambda: self._finish() if processes.rank == 0 else {})
        processes.together(lambda: shutil.rmtree(self.slices_folder) if processes.rank == 0 else None)
        return processes.gather(record)[0]

    def _check(self) -> None:
        first = self.slices[0]
        if self.arguments.orthoplanes:
            check_cubic(self.model, first, len(self.slices))
        elif not self.flow.match_pixel_size:
            check_pixel_size(self.model, first)
        if not task_of(self.model).separates:  # which must not be found out at the end
            ResultFile(self.target, self._form[0], self._form[1], None)
        if first.data_bar:
            say_data_bar(first.name, first.data_bar)
        say_few_levels(first.image, self._form[1], first.name)

    def _prepare(self) -> None:
        """Keep the slices of the same input, model and settings; those of others are removed."""
        record, wanted = self.slices_folder / "made_from.json", json.dumps(self.made_from, indent=1)
        if record.is_file() and record.read_text(encoding="utf-8") == wanted:
            return
        shutil.rmtree(self.slices_folder, ignore_errors=True)
        self.slices_folder.mkdir(parents=True)
        write_text(record, wanted)

    def _path(self, number: int) -> Path:
        return self.slices_folder / f"{number:06d}.npy"

    def _doubt(self, number: int) -> ResultFile | None:
        """Return what takes in how unsure each pixel of a slice is, if that was asked for."""
        if not self.arguments.uncertainty:
            return None
        return ResultFile(self.notes.doubt_of(number), self._form[0], np.float32, None)

    def _predict_slice(self, number: int) -> None:
        """Write a slice, and what is learnt of it."""
        seen, result = self.notes.seen(), ResultFile(self._path(number), *self._form, None)
        kinds = replace(self.flow, seen=seen, doubt=self._doubt(number)).run(self.slices[number], result)
        self.notes.write(number, seen, place_seen(seen), kinds)

    def _predict_planes(self, processes: Processes) -> None:
        """Predict the planes of three directions, and make each slice of their mean maps."""
        planes = Orthoplanes(self.flow, self.slices, self.notes)
        planes.predict(processes)
        step = planes.slices_at_a_time
        starts = range(processes.rank * step, len(self.slices), processes.count * step)
        for start in tqdm(starts, unit="block", disable=processes.rank > 0, leave=False):
            numbers = range(start, min(start + step, len(self.slices)))
            if all(map(self.notes.done, numbers)):
                continue
            means, unsure = planes.mean_maps(start, numbers.stop)
            for place, number in enumerate(numbers):
                seen, kinds = self._make(number, means[place], None if unsure is None else unsure[place])
                self.notes.write(number, seen, planes.place(number), kinds)

    def _make(self, number: int, maps: np.ndarray, unsure: np.ndarray | None) -> tuple[Seen, ObjectClasses | None]:
        """Write the slice that maps (C, H, W) stand for; those of intensities have their units."""
        model, image, result = self.model, self.slices[number].image, ResultFile(self._path(number), *self._form, None)
        values = model.result(maps, IntensityStatistics(0.0, 1.0), result.dtype)
        values, seen, kinds = hide_no_data(values, model, image, (0, 0)), self.notes.seen(), None
        with result.filling(ALONE):
            if task_of(model).separates:
                how = Separation.of(model.config.separation)
                votes = separate(values, result.write, len(model.object_classes), how)
                kinds = ObjectClasses.by_votes(votes, model.object_classes) if model.object_classes else None
            else:
                result.write(0, 0, values)
        confidence = task_of(model).confidence(maps)
        if confidence is not None:
            seen.add(confidence, np.zeros_like(values) if task_of(model).separates else values)
        if (doubt := self._doubt(number)) is not None and unsure is not None:
            with doubt.filling(ALONE):
                doubt.write(0, 0, hide_no_data(unsure, model, image, (0, 0)))
        return seen, kinds

    def _finish(self) -> dict[str, Any]:
        """Join the slices, write what shows them, and return what the record says."""
        links: list[np.ndarray] | None = None
        objects, (shape, dtype) = None, self._form
        if task_of(self.model).separates:
            links, count = link_slices(len(self.slices), lambda number: open_result(self._path(number)))
            names, voxel = self.model.object_classes, Voxel(self._pixel_size, self.slices.slice_distance)
            classes = self.notes.classes(links, count, names) if names else None
            objects = VolumeObjects(count, len(self.slices), voxel, classes)
            dtype = self._dtype_of_numbers(count)
        whole = (len(self.slices), *shape)
        volume = ResultFile(self.target, whole, dtype, self._pixel_size, self.slices.slice_distance)
        missing = self._join(volume, links, objects)
        shown = self._show(links, None if objects is None else objects.classes)
        if objects is not None:
            shown |= objects.write(self.target.parent, self.target.stem, self.slices[0].name)
        form: dict[str, Any] = {"shape": list(whole), "dtype": str(volume.dtype), **self._tell(shown)}
        if missing:
            form["no_data"] = {"pixels": missing, "value": str(no_data_value(dtype))}
        sides = {"pixel_size": self._pixel_size, "slice_distance": self.slices.slice_distance}
        return {**form, **sides, "shown": shown}

    def _tell(self, shown: dict[str, str]) -> dict[str, Any]:
        """Write the table of the slices and how unsure they are; return what all of them say.

        What is written is added to `shown`.
        """
        table = f"{self.target.stem}_slices.csv"
        if self.notes.write_table(self.target.with_name(table), self.slices[0].name):
            shown["slices_table"] = table
        if self.arguments.uncertainty:
            shape, sides = (len(self.slices), *self._form[0]), (self._pixel_size, self.slices.slice_distance)
            path = self.target.with_name(f"{self.target.stem}_uncertainty{self.target.suffix}")
            volume = ResultFile(path, shape, np.float32, *sides)
            with volume.filling(ALONE):
                for number in range(len(self.slices)):
                    self._copy(open_result(self.notes.doubt_of(number)), volume, number)
            shown["uncertainty"] = path.name
        found = self.notes.summary()
        self.notes.warn_outside(found.get("domain"), self.slices[0].name)
        return found

    @staticmethod
    def _copy(image: Any, volume: ResultFile, number: int) -> None:
        """Write an image (H, W) as a slice of a volume, in bands."""
        height, width = volume.shape[-2:]
        step = max(1, BAND_PIXELS // width)
        for top in range(0, height, step):
            volume.write(number * height + top, 0, np.asarray(image[top : top + step]))
            release_pages(image)

    def _join(self, volume: ResultFile, links: list[np.ndarray] | None, objects: VolumeObjects | None) -> int:
        """Write the slices, measure the objects, and return how many pixels hold no data."""
        missing = 0
        with volume.filling(ALONE):
            for number in tqdm(range(len(self.slices)), unit="slice", leave=False):
                given, result = self.slices[number], self._result(number, links)
                self._copy(result, volume, number)
                if objects is not None:
                    objects.add(number, result, given.image)
                missing += count_no_data(given.image)
                if self.model.classes is not None:
                    missing += given.data_bar * given.image.shape[1]
        return missing

    def _dtype_of_numbers(self, count: int) -> np.dtype:
        """Return what holds the numbers of so many objects in the volume's format."""
        if self.target.suffix != ".mrc":
            return np.dtype(np.uint32)
        if count > MRC_LIMITS[1]:
            raise EMError(f"{self.target}: an MRC file cannot hold {count} objects: choose --format tif or zarr")
        return np.dtype(np.uint16 if count <= MRC_LIMITS[0] else np.float32)

    def _result(self, number: int, links: list[np.ndarray] | None) -> Any:
        """Return a slice of the volume (H, W), read as far as it is used."""
        done = open_result(self._path(number))
        return done if links is None else LinkedSlice(done, links[number])

    def _show(self, links: list[np.ndarray] | None, classes: ObjectClasses | None) -> dict[str, str]:
        """Write the pictures of the middle slice and of several; return their names."""
        report = task_of(self.model).report()

        def prediction(number: int) -> Prediction:
            given = self.slices[number]
            image: Any = given.image  # what shows the result reads it in parts, too
            output = self._result(number, links)
            unsure: Any = open_result(self.notes.doubt_of(number)) if self.arguments.uncertainty else None
            found = image, output, self.model.classes, self._pixel_size, given.name
            return Prediction(*found, uncertainty=unsure, object_classes=classes)

        pictures = report.pictures(prediction(len(self.slices) // 2))
        pictures["slices"] = montage(
            report, ((number, prediction(number)) for number in slices_shown(len(self.slices)))
        )
        names = {kind: f"{self.target.stem}_{kind}.png" for kind in pictures}
        for kind, picture in pictures.items():
            write_image(self.target.with_name(names[kind]), picture)
        return {"picture": names["slices"], **names}


def stack_endings(model: EMPreTrainedModel) -> tuple[str, ...]:
    """Return the endings of what is written beside a volume: `NAME_` stands before them."""
    report = task_of(model).report()
    pictures = tuple(ending for ending in report.endings if ending in ("compare.png", "overlay.png"))
    return (*pictures, "slices.png", "slices.csv", *(TABLES if task_of(model).separates else ()))
