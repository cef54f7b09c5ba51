"""`load_em_dataset`: what fine-tuning trains and measures on, from a folder or from a dataset of the Hub."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emfm.data.classes import GreyValues, values_as_classes
from emfm.data.examples import CleanMicrographs, Examples, LabelledMicrographs, PairedMicrographs
from emfm.data.labelled_folder import TRUTHS, folder_classes, folder_records, folder_truth
from emfm.data.labelled_hub import hub_labels, open_rows, row_record
from emfm.data.restoration_pairs import SCALES, Degradation
from emfm.data.sources import is_dataset
from emfm.data.streamed_examples import StreamedExamples
from emfm.data.truths import class_map, target, target_scale
from emfm.errors import EMError
from emfm.io.reading import Micrograph

Record = tuple[Micrograph, Micrograph | None, str]


def load_em_dataset(
    source: str | Path,
    split: str = "train",
    degrade: str | None = None,
    scale: int | None = None,
    truth: str | None = None,
    streaming: bool = False,
) -> Any:
    """Load one split of labelled micrographs, of pairs, or of clean micrographs from which pairs are made.

    Args:
        source: a folder, a folder of parquet files, or a dataset's id on the Hub. A folder holds `images/` and, with
            the same file names, `masks/` or `targets/`. `labels.json` maps a grey value of the masks to a class name,
            "ignore" for pixels without truth; without it the values must be 0..K-1. `splits.json` lists file names per
            split; without it every image belongs to "train". A dataset has the columns `image` and `mask` or `target`.
        split: "train", "validation", "test" or another name.
        degrade: make pairs from the images, taken as clean: "dose", "paper", "background" or "downsample". Masks and
            targets are not read; a plain folder of micrographs will do.
        scale: target pixels per image pixel and axis; by default what the pairs have, and 2 for "downsample".
        truth: "masks" or "targets", where a folder holds both.
        streaming: read a dataset as it comes, without downloading it first.

    Returns:
        `LabelledMicrographs`, `PairedMicrographs` or `CleanMicrographs`; `StreamedExamples` of these with `streaming`.

    Raises:
        EMError: a folder, file or split is missing, sizes differ, a mask holds a grey value without a class, or the
            scale does not fit.
    """
    if truth is not None and truth not in TRUTHS:
        raise EMError(f"truth is '{truth}'; expected {' or '.join(TRUTHS)}")
    degradation = None
    if degrade is not None:
        degradation = Degradation(degrade, scale or (SCALES[0] if degrade == "downsample" else 1))
    kind = _Kind(str(source), degradation, scale)
    if is_dataset(str(source)):
        return _from_dataset(kind, split, truth, streaming)
    if streaming:
        raise EMError(f"{source} is a folder of image files; --streaming reads datasets (parquet files, or on the Hub)")
    folder = Path(source)
    truth = None if degradation else truth or folder_truth(folder)
    records = folder_records(folder, split, truth)
    return kind.examples(truth, records, folder_classes(folder) if truth == "masks" else None)


def _from_dataset(kind: "_Kind", split: str, truth: str | None, streaming: bool) -> Examples | StreamedExamples:
    rows, found = open_rows(kind.source, split, streaming)
    if kind.degradation is None and (found is None or truth not in (None, found)):
        wanted = {"masks": "'mask'", "targets": "'target'", None: "'mask' or 'target'"}[truth]
        raise EMError(
            f"the dataset '{kind.source}' has no column {wanted} beside 'image'; pairs can be made with --degrade"
        )
    found = None if kind.degradation else found
    labels = hub_labels(kind.source) if found == "masks" else None
    if streaming:
        if found == "masks" and labels is None:
            raise EMError(f"the dataset '{kind.source}' has no labels.json, which a stream of masks needs: add it")

        def examples(some: list[tuple[str, dict]]) -> Examples:
            records = (row_record(row, f"{kind.source}, {name}", found) for name, row in some)
            return kind.examples(found, records, labels)

        first = examples([("row 0", next(iter(rows)))])
        return StreamedExamples(rows, first.part(0, 0), examples)
    records = [row_record(row, f"{kind.source}, {split}, row {i}", found) for i, row in enumerate(rows)]
    if found == "masks" and labels is None:
        masks = [mask.array for _, mask, _ in records if mask is not None]
        labels = values_as_classes(masks, f"the dataset '{kind.source}'", "its labels.json")
    return kind.examples(found, records, labels)


@dataclass(frozen=True)
class _Kind:
    """What to make of records of micrographs and their truth."""

    source: str
    degradation: Degradation | None
    scale: int | None

    def examples(self, truth: str | None, records: Iterable[Record], labels: GreyValues | None) -> Examples:
        common: dict[str, list] = {"images": [], "names": [], "pixel_sizes": []}
        truths: list[np.ndarray] = []
        scale = self.scale
        for micrograph, wanted, name in records:
            common["images"].append(micrograph.array)
            common["names"].append(micrograph.name)
            common["pixel_sizes"].append(micrograph.pixel_size)
            if wanted is not None and labels is not None:
                truths.append(class_map(wanted.array, micrograph, labels, name))
            elif wanted is not None:
                scale = scale or target_scale(wanted.array, micrograph, name)
                truths.append(target(wanted.array, micrograph, scale, name))
        if self.degradation is not None:
            return CleanMicrographs(**common, degradation=self.degradation)
        if labels is not None:
            return LabelledMicrographs(**common, masks=truths, id2label=labels.id2label)
        return PairedMicrographs(**common, targets=truths, scale=scale or 1)
