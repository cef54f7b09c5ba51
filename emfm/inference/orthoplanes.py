"""The mean of what a network says of a volume's planes in all three directions.

Every plane is predicted as a micrograph of its own, and its maps go to a file. So what is done
stays done when a run is stopped, and memory holds a few planes, whatever the size of the volume.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from emfm.errors import EMError
from emfm.files import check_space, write_text
from emfm.inference.blocks import Blocks
from emfm.inference.domain import Place, place_seen
from emfm.inference.plan import plan
from emfm.inference.precision import number_format
from emfm.inference.predict import Flow
from emfm.inference.processes import ALONE, Processes
from emfm.inference.result_files import ResultFile, open_result
from emfm.inference.slice_notes import SliceNotes
from emfm.inference.stated_slices import StatedSlices
from emfm.io.large_images import release_pages
from emfm.io.reading import Micrograph
from emfm.modeling import EMPreTrainedModel
from emfm.no_data import no_data
from emfm.tasks import task_of
from emfm.tasks.instances import OUTPUTS

DIRECTIONS = "zyx"
# Bytes of the volume, and of the maps of its slices, that are in memory at a time.
BLOCK_BYTES = 64 << 20
# Sides of a voxel that differ by more than this are no cube's.
CUBIC = 0.02


def check_cubic(model: EMPreTrainedModel, first: Micrograph, count: int) -> None:
    """Raise an error unless the slices are those of a volume that looks alike from all sides.

    Args:
        model: that shall predict its planes.
        first: its first slice, with the voxel's sides as far as they are known.
        count: of its slices.
    """
    name, letters = first.name, first.axes[:-2]
    if count < 2 or len(letters) != 1 or letters in "TC":
        kind = "one image" if count < 2 else f"a stack with the axes {first.axes}"
        raise EMError(f"{name}: {kind}; --orthoplanes needs a volume (Z, Y, X): leave it out")
    side, depth = first.pixel_size, first.slice_distance
    if side is not None and depth is not None and abs(side - depth) > CUBIC * max(side, depth):
        raise EMError(
            f"{name}: voxels of {side:.4g} x {side:.4g} x {depth:.4g} nm; --orthoplanes needs cubes: leave it out, or "
            "say so with --pixel-size and --slice-distance if the file is wrong"
        )
    if first.data_bar:
        raise EMError(f"{name}: its slices have a data bar, which no plane across them has: cut it off first")
    if model.scale != 1:
        raise EMError(f"--orthoplanes needs a result of the micrograph's size; this model makes {model.scale} times it")


@dataclass(frozen=True)
class Orthoplanes:
    """The planes of a volume (Z, Y, X) in three directions.

    Attributes:
        flow: how a micrograph is predicted: models, tile, symmetries and number format.
        slices: of the volume, read one by one.
        notes: of the slices; their folder is for what is kept until the volume is done.
    """

    flow: Flow
    slices: StatedSlices
    notes: SliceNotes

    @property
    def model(self) -> EMPreTrainedModel:
        """That predicts them; the first of several."""
        return self.flow.model

    @property
    def folder(self) -> Path:
        """For what is kept."""
        return self.notes.folder

    @property
    def channels(self) -> int:
        """Maps of the network."""
        if task_of(self.model).separates:
            return len(OUTPUTS) + len(self.model.object_classes)
        return len(self.model.classes or [0])

    @property
    def averaged(self) -> int:
        """How many of the maps, the first ones, are the same seen from any side."""
        return 1 if task_of(self.model).separates else self.channels

    @property
    def dtype(self) -> np.dtype:
        """Of the maps in their files: probabilities need no more, intensities keep their units."""
        return np.dtype(np.float32 if task_of(self.model).doubts_in_units else np.float16)

    def predict(self, processes: Processes) -> None:
        """Predict all planes that have not been; each process does some of them."""
        processes.together(lambda: self._copy() if processes.rank == 0 else None)
        volume = open_result(self._copied)
        missing = sum(
            not self._path(axis, number).is_file() for axis in range(3) for number in range(self.slices.shape[axis])
        )
        with tqdm(total=missing, unit="plane", disable=processes.rank > 0, leave=False) as bar:
            for axis in range(3):
                for number, plane in self._planes(volume, axis, processes):
                    self._one(axis, number, plane)
                    bar.update()
        processes.gather(None)

    def mean_maps(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the maps of the slices `first` to `last - 1`, and how unsure they are.

        The maps (last - first, C, H, W) float32 are means over the three directions. Of objects
        only the foreground is: boundary and distance are those within a slice, and say nothing of
        planes across it. What the directions disagree in, (last - first, H, W), is None where it
        was not asked for.
        """
        total = np.stack([np.asarray(self._maps(0, number), dtype=np.float32) for number in range(first, last)])
        kept = [total[:, : self.averaged].copy()] if self.notes.unsure else []
        for axis in (1, 2):
            part = self._across(axis, first, last)
            total[:, : self.averaged] += part
            if self.notes.unsure:
                kept.append(part)
        total[:, : self.averaged] /= 3
        if not kept:
            return total, None
        return total, task_of(self.model).doubt(torch.from_numpy(np.stack(kept))).numpy()

    def _across(self, axis: int, first: int, last: int) -> np.ndarray:
        """Return maps of slices (last - first, averaged, H, W), made of planes across an axis."""
        found = np.empty((last - first, self.averaged, *self.slices.shape[1:]), dtype=np.float32)
        for number in range(self.slices.shape[axis]):
            part = np.asarray(self._maps(axis, number)[:, first:last], dtype=np.float32).swapaxes(0, 1)
            if axis == 1:
                found[:, :, number] = part
            else:
                found[:, :, :, number] = part
        return found

    def place(self, number: int) -> Place | None:
        """Return where a slice lies against the training's micrographs, None where nobody knows."""
        path = self._place(number)
        if not path.is_file():
            return None
        known = json.loads(path.read_text(encoding="utf-8"))
        return Place(known["distance"], known["unlike"], known["why"])

    def _place(self, number: int) -> Path:
        return self.folder / DIRECTIONS[0] / f"{number:06d}.json"

    @property
    def slices_at_a_time(self) -> int:
        """How many slices `mean_maps` should be asked for."""
        of_each = self.channels + (3 * self.averaged if self.notes.unsure else 0)
        return max(1, BLOCK_BYTES // (4 * of_each * math.prod(self.slices.shape[1:])))

    @property
    def _copied(self) -> Path:
        return self.folder / "volume.npy"

    def _path(self, axis: int, number: int) -> Path:
        return self.folder / DIRECTIONS[axis] / f"{number:06d}.npy"

    def _maps(self, axis: int, number: int) -> np.ndarray:
        """Return the maps of a plane (C, h, w), memory-mapped."""
        return open_result(self._path(axis, number))

    def _copy(self) -> None:
        """Write the volume as one array, whose planes can be read in every direction."""
        if self._copied.is_file():
            return
        first = self.slices[0].image
        voxels = math.prod(self.slices.shape)
        needed = voxels * (first.dtype.itemsize + (self.channels + 2 * self.averaged) * self.dtype.itemsize)
        check_space(self.folder, needed, "what --orthoplanes keeps until the volume is done")
        copy = ResultFile(self._copied, self.slices.shape, first.dtype, None)
        with copy.filling(ALONE):
            for number in range(len(self.slices)):
                copy.write(number * first.shape[0], 0, np.asarray(self.slices[number].image))

    def _planes(self, volume: np.ndarray, axis: int, processes: Processes) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the planes across an axis that this process still has to do: number and image."""
        plane_bytes = volume.nbytes // volume.shape[axis]
        step = max(1, BLOCK_BYTES // plane_bytes)
        for start in range(0, volume.shape[axis], step):
            numbers = range(start, min(start + step, volume.shape[axis]))
            mine = [number for number in numbers if number % processes.count == processes.rank]
            mine = [number for number in mine if not self._path(axis, number).is_file()]
            if not mine:
                continue
            # together: rows of the file hold pixels of many planes
            block = self._block(volume, axis, slice(start, numbers.stop))
            for number in mine:
                yield number, np.ascontiguousarray(block[number - start])

    def _block(self, volume: np.ndarray, axis: int, planes: slice) -> np.ndarray:
        """Return some planes across an axis (N, h, w), read slice by slice."""
        if axis == 0:
            block = np.array(volume[planes])
        else:
            place = (planes, slice(None)) if axis == 1 else (slice(None), planes)
            parts = []
            for image in volume:
                parts.append(np.array(image[place]))
                release_pages(volume)
            block = np.moveaxis(np.stack(parts), axis, 0)
        release_pages(volume)
        return block

    def _one(self, axis: int, number: int, plane: np.ndarray) -> None:
        """Predict a plane (h, w), and write its maps."""
        model = self.model
        channels = self.averaged if axis else self.channels
        result = ResultFile(self._path(axis, number), (channels, *plane.shape), self.dtype, None)
        missing = no_data(plane) if plane.dtype.kind == "f" else None
        with result.filling(ALONE):
            if missing is not None and missing.all():
                return  # zeros: nothing is asked of what has no data
            statistics = model.processor.statistics(plane)
            how = plan(model, plane.shape, self.flow.tile, others=self.flow.others)
            dtype = number_format(model, plane, statistics, self.flow.precision)
            seen = self.notes.seen()
            if axis:
                seen.sums = []  # slices alone are what the training knows
            else:
                seen.look(plane, statistics)
            options: dict[str, Any] = {"dtype": dtype, "others": self.flow.others, "sums": seen.sums}
            for row, column, maps in Blocks(model, plane, statistics, how, None, self.flow.tta, **options):
                if task_of(model).doubts_in_units:
                    # planes have statistics of their own: units are what they share
                    maps = model.processor.denormalize(maps, statistics, np.float32)
                for channel, part in enumerate(maps[:channels]):
                    result.write(channel * plane.shape[0] + row, column, part)
            if not axis and (place := place_seen(seen)) is not None:
                write_text(self._place(number), json.dumps(place.to_dict()))
