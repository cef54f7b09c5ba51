"""What micrographs are learnt from: masks, targets, or the micrographs themselves, damaged. One class each."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from emfm.data.classes import GreyValues, values_as_classes
from emfm.data.examples import CleanMicrographs, LabelledMicrographs, PairedMicrographs
from emfm.data.labelled_folder import folder_classes
from emfm.data.labelled_hub import hub_labels
from emfm.data.restoration_pairs import Degradation
from emfm.data.sources import is_dataset
from emfm.data.truths import check_target, class_map, target_scale
from emfm.errors import EMError
from emfm.io.reading import Micrograph

# A micrograph, its truth (of a clean one itself), and the name of the truth.
Record = tuple[Micrograph, Micrograph, str]


def _common(records: list[Record]) -> tuple[list[np.ndarray], list[str], list[float | None]]:
    """Return images, names and pixel sizes, as all examples have them."""
    micrographs = [micrograph for micrograph, _, _ in records]
    images = [micrograph.array for micrograph in micrographs]
    return images, [part.name for part in micrographs], [part.pixel_size for part in micrographs]


@dataclass(frozen=True)
class Masks:
    """Class maps.

    Args:
        source: folder or data set, for errors.
        labels: the class of each grey value; None: as the masks themselves have it.
    """

    source: str
    labels: GreyValues | None

    @classmethod
    def of(cls, source: str, scale: int | None, streaming: bool) -> Self:
        """Return how the masks of a folder or data set are read; those of a stream need a `labels.json`."""
        if not is_dataset(source):
            return cls(source, folder_classes(Path(source)))
        labels = hub_labels(source)
        if streaming and labels is None:
            raise EMError(f"the dataset '{source}' has no labels.json, which a stream of masks needs: add it")
        return cls(source, labels)

    def examples(self, records: Iterable[Record]) -> LabelledMicrographs:
        """Return micrographs with class maps."""
        if self.labels is None:
            records = list(records)
            masks = [mask.array for _, mask, _ in records]
            labels = values_as_classes(masks, f"the dataset '{self.source}'", "its labels.json")
        else:
            labels = self.labels
        kept, class_maps = [], []
        for record in records:
            micrograph, mask, name = record
            class_maps.append(class_map(mask.array, micrograph, labels, name))
            kept.append(record)
        return LabelledMicrographs(*_common(kept), class_maps, labels.id2label)


@dataclass(frozen=True)
class Targets:
    """Target images.

    Args:
        scale: their pixels per image pixel and axis; None: as the first pair has it.
    """

    scale: int | None

    @classmethod
    def of(cls, source: str, scale: int | None, streaming: bool) -> Self:
        """Return how the targets of a folder or data set are read."""
        return cls(scale)

    def examples(self, records: Iterable[Record]) -> PairedMicrographs:
        """Return micrographs with targets."""
        scale, kept = self.scale, []
        for record in records:
            micrograph, target, name = record
            scale = scale or target_scale(target.array, micrograph, name)
            check_target(target.array, micrograph, scale, name)
            kept.append(record)
        return PairedMicrographs(*_common(kept), [target.array for _, target, _ in kept], scale or 1)


@dataclass(frozen=True)
class Clean:
    """Clean micrographs that are damaged to make pairs."""

    degradation: Degradation

    def examples(self, records: Iterable[Record]) -> CleanMicrographs:
        """Return clean micrographs."""
        return CleanMicrographs(*_common(list(records)), self.degradation)


Kind = Masks | Targets | Clean
# The folder that holds the truth: how it is read.
KINDS: dict[str, type[Masks] | type[Targets]] = {"masks": Masks, "targets": Targets}
