"""What is learnt of each slice of a stack beside its result, and what all slices say together.

A note is a small file beside a slice that is done. It is written last, so a slice with a note is
done with all that belongs to it.
"""

import csv
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from emfm.files import write_atomically, write_text
from emfm.inference.domain import Place
from emfm.inference.result_files import open_result
from emfm.inference.seen import Seen
from emfm.io.large_images import release_pages
from emfm.modeling import EMPreTrainedModel
from emfm.reports.prediction import ObjectClasses

logger = logging.getLogger(__name__)
BAND_PIXELS = 2**21
SHOWN = 10  # numbers of slices in a warning


@dataclass(frozen=True)
class SliceNotes:
    """The notes of the slices of a stack.

    Attributes:
        folder: of the slices.
        count: of them.
        models: of the prediction.
        stated: confidence below which pixels are counted.
        unsure: how unsure each pixel is was asked for.
    """

    folder: Path
    count: int
    models: tuple[EMPreTrainedModel, ...]
    stated: float
    unsure: bool

    def seen(self) -> Seen:
        """Return what takes in the blocks of a slice, or of a plane."""
        return Seen(self.models, self.stated, [one.domain is not None for one in self.models])

    def doubt_of(self, number: int) -> Path:
        """Return where it is kept how unsure each pixel of a slice is."""
        return self.folder / f"{number:06d}_unsure.npy"

    def done(self, number: int) -> bool:
        """Return whether a slice is done."""
        return self._path(number).is_file()

    def write(self, number: int, seen: Seen, place: Place | None, kinds: ObjectClasses | None) -> None:
        """Note what was learnt of a slice, whose result and doubt are in their places."""
        if kinds is not None and kinds.votes is not None:
            np.save(self._votes(number), kinds.votes)
        note: dict[str, Any] = {"counts": seen.counts.tolist(), "confidence": seen.confidence}
        if place is not None:
            note["domain"] = place.to_dict()
        if self.unsure:
            note["uncertainty"] = mean_of(open_result(self.doubt_of(number)))
        write_text(self._path(number), json.dumps(note))

    def classes(self, links: list[np.ndarray], count: int, names: dict[int, str]) -> ObjectClasses:
        """Return the class of each object of the volume: that of the most of its voxels.

        Args:
            links: at the number of each slice's objects those in the volume.
            count: of the objects.
            names: of the classes.
        """
        votes = np.zeros((count + 1, len(names)), dtype=np.int64)
        for number, link in enumerate(links):
            np.add.at(votes, link, np.load(self._votes(number))[: len(link)])
        return ObjectClasses.by_votes(votes, names)

    @cached_property
    def _notes(self) -> list[dict[str, Any]]:
        return [json.loads(self._path(number).read_text(encoding="utf-8")) for number in range(self.count)]

    def summary(self) -> dict[str, Any]:
        """Return what the record says of all slices, as far as it is known.

        `domain` is that of the slice which is the least like the training, with its number, and
        the numbers of all that are outside.
        """
        whole = self.seen()
        found: dict[str, Any] = {}
        for note in self._notes:
            whole.counts += np.array(note["counts"], dtype=np.int64)
            whole.confidence += note["confidence"]
        if (sure := whole.sureness()) is not None:
            found["confidence"] = sure
        places = {number: note["domain"] for number, note in enumerate(self._notes) if "domain" in note}
        if places:
            farthest = max(places, key=lambda number: places[number]["distance"])
            outside = [number for number, place in places.items() if not place["inside"]]
            found["domain"] = {**places[farthest], "slice": farthest, "slices_outside": outside}
        means = [note["uncertainty"] for note in self._notes if note.get("uncertainty") is not None]
        if means:
            found["uncertainty"] = {"mean": float(f"{np.mean(means):.6g}"), "largest": float(f"{max(means):.6g}")}
        return found

    def warn_outside(self, domain: dict[str, Any] | None, name: str) -> None:
        """Warn of slices that are unlike the training, by the `domain` of the summary."""
        if not domain or not domain["slices_outside"]:
            return
        outside = domain["slices_outside"]
        listed = ", ".join(map(str, outside[:SHOWN])) + (", ..." if len(outside) > SHOWN else "")
        logger.warning(
            "%s: %d of %d slices (%s) are unlike the micrographs of the model's training, slice %d the most, in %s, "
            "%.1f times as far as they are: look at the result before you trust it",
            *(name, len(outside), self.count, listed, domain["slice"]),
            *(Place(0.0, domain["unlike"], domain["why"]).told(), domain["distance"]),
        )

    def write_table(self, path: Path, name: str) -> bool:
        """Write a row per slice; return False, and write nothing, where there is nothing to say."""
        rows = list(self._rows(name))
        columns = list(dict.fromkeys(column for row in rows for column in row))
        if columns == ["file", "slice"]:
            return False

        def write(temporary: Path) -> None:
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, columns, restval="")
                writer.writeheader()
                writer.writerows(rows)

        write_atomically(path, write)
        return True

    def _rows(self, name: str) -> Iterator[dict[str, Any]]:
        names = self.models[0].classes or {}
        for number, note in enumerate(self._notes):
            row: dict[str, Any] = {"file": name, "slice": number}
            counts = np.array(note["counts"])
            pixels, below = counts
            if pixels.sum():
                row["share_below"] = f"{below.sum() / pixels.sum():.6g}"
                row["mean_confidence"] = f"{note['confidence'] / pixels.sum():.6g}"
            for index, label in names.items():
                row[f"share_{label}"] = f"{pixels[index] / pixels.sum():.6g}" if pixels.sum() else ""
                row[f"share_below_{label}"] = f"{below[index] / pixels[index]:.6g}" if pixels[index] else ""
            if self.unsure:
                mean = note["uncertainty"]
                row["mean_uncertainty"] = "" if mean is None else f"{mean:.6g}"
            if (place := note.get("domain")) is not None:
                row["distance"], row["inside"] = f"{place['distance']:.4g}", "yes" if place["inside"] else "no"
                row["unlike"] = " ".join(place["unlike"])
            yield row

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.json"

    def _votes(self, number: int) -> Path:
        return self.folder / f"{number:06d}_classes.npy"


def mean_of(image: Any) -> float | None:
    """Return the mean of an image (H, W) that is read in bands, None if all of it is NaN."""
    total, known, step = 0.0, 0, max(1, BAND_PIXELS // image.shape[1])
    for top in range(0, image.shape[0], step):
        band = np.asarray(image[top : top + step])
        total += float(np.nansum(band, dtype=np.float64))
        known += int(np.count_nonzero(~np.isnan(band)))
        release_pages(image)
    return total / known if known else None
