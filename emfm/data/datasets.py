"""`load_em_dataset`: what fine-tuning trains and measures on, from a folder or from a dataset of the Hub."""

from functools import partial
from pathlib import Path
from typing import Any

from emfm.data.examples import Examples
from emfm.data.kinds import KINDS, Clean, Kind
from emfm.data.labelled_folder import TRUTHS, folder_records, folder_truth
from emfm.data.labelled_hub import open_rows, row_record
from emfm.data.restoration_pairs import SCALES, Degradation
from emfm.data.sources import is_dataset
from emfm.data.streamed_examples import StreamedExamples
from emfm.errors import EMError


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
    if truth is not None and truth not in KINDS:
        raise EMError(f"truth is '{truth}'; expected {' or '.join(KINDS)}")
    clean = None
    if degrade is not None:
        clean = Clean(Degradation(degrade, scale or (SCALES[0] if degrade == "downsample" else 1)))
    name = str(source)
    if is_dataset(name):
        rows, found = open_rows(name, split, streaming)
        kind = clean or _kind_of_dataset(name, truth, found, scale, streaming)
        found = None if clean else found
        if streaming:
            return _stream(rows, kind, name, found)
        return kind.examples(row_record(row, f"{name}, {split}, row {i}", found) for i, row in enumerate(rows))
    if streaming:
        raise EMError(f"{source} is a folder of image files; --streaming reads datasets (parquet files, or on the Hub)")
    folder = Path(name)
    if clean:
        return clean.examples(folder_records(folder, split, None))
    truth = truth or folder_truth(folder)
    records = folder_records(folder, split, truth)  # at first, so that a missing split is found before masks are read
    return KINDS[truth].of(name, scale, streaming).examples(records)


def _kind_of_dataset(source: str, truth: str | None, found: str | None, scale: int | None, streaming: bool) -> Kind:
    """Return how the truth in a data set's column is read; `found` is what the columns hold, `truth` what was meant."""
    if found is None or truth not in (None, found):
        wanted = f"'{TRUTHS[truth]}'" if truth else "'mask' or 'target'"
        raise EMError(f"the dataset '{source}' has no column {wanted} beside 'image'; pairs can be made with --degrade")
    return KINDS[found].of(source, scale, streaming)


def _stream(rows: Any, kind: Kind, source: str, truth: str | None) -> StreamedExamples:
    examples = partial(_of_rows, kind, source, truth)  # of a module, so that it reaches spawned data workers
    first = examples([("row 0", next(iter(rows)))])
    return StreamedExamples(rows, first.part(0, 0), examples)


def _of_rows(kind: Kind, source: str, truth: str | None, some: list[tuple[str, dict]]) -> Examples:
    return kind.examples(row_record(row, f"{source}, {name}", truth) for name, row in some)
