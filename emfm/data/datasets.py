"""What fine-tuning trains and measures on, from a folder or the Hub."""

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emfm.data.classes import GreyValues, read_labels
from emfm.data.examples import Examples
from emfm.data.hub_images import PIXEL_SIZE, decode, load_split
from emfm.data.json_files import find_json
from emfm.data.kinds import clean, labelled, numbered, paired
from emfm.data.labelled_folder import TRUTHS, Record, folder_classes, folder_truth, open_labelled_folder, truths_of
from emfm.data.restoration_pairs import SCALES, Degradation
from emfm.data.sources import is_dataset
from emfm.data.streamed_examples import StreamedExamples
from emfm.errors import EMError
from emfm.io.masks import decode_mask
from emfm.io.reading import FileChoice, decode_micrograph

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

logger = logging.getLogger(__name__)
# Makes examples of one kind from micrographs with their truth.
Kind = Callable[[Iterable[Record]], Examples]


def load_em_dataset(
    source: str | Path,
    split: str = "train",
    degrade: str | None = None,
    scale: int | None = None,
    truth: str | None = None,
    streaming: bool = False,
    choice: FileChoice | None = None,
) -> Any:
    """Load one split; arguments and result are those of `emfm.load_em_dataset`.

    Raises:
        EMError: a folder, file or split is missing, sizes differ, a mask holds a grey value
            without a class, or the scale does not fit.
        OtherLabelsError: there are labels of another program in the place of masks.
    """
    if truth is not None and truth not in TRUTHS:
        raise EMError(f"truth is '{truth}'; expected {' or '.join(TRUTHS)}")
    degraded: Kind | None = None
    if degrade is not None:
        usual = SCALES[0] if degrade == "downsample" else 1
        degraded = partial(clean, degradation=Degradation(degrade, scale or usual))
    name, choice = str(source), choice or FileChoice()
    if is_dataset(name):
        if choice.dataset is not None:
            raise EMError(f"dataset is '{choice.dataset}', but {name} holds rows of one image each: leave it out")
        rows, found = _open_rows(name, split, streaming, truth)
        kind = degraded or _kind_of_dataset(name, truth, found, scale, streaming)
        found = None if degraded else found
        if streaming:
            return _stream(rows, kind, name, found, choice.colour)
        named = ((f"{split}, row {number}", row) for number, row in enumerate(rows))
        return _of_rows(kind, name, found, choice.colour, named)
    if streaming:
        raise EMError(f"{source} is a folder of image files; --streaming reads datasets (parquet files, or on the Hub)")
    folder = Path(name)
    if degraded:
        if truths := truths_of(folder):
            logger.warning("%s: --degrade makes pairs of images/ alone; %s is not used", folder, " and ".join(truths))
        return degraded(open_labelled_folder(folder, None, choice).records(split))
    opened = open_labelled_folder(folder, truth or folder_truth(folder), choice)
    records = opened.records(split)  # a missing split is found before masks are read
    assert opened.truth is not None
    if opened.truth.kind == "targets":
        return paired(records, scale)
    if opened.truth.kind == "instances":
        # beside masks the labels are those of the masks
        return numbered(records, None if "masks" in truths_of(folder) else folder_labels(folder))
    return labelled(records, name, folder_classes(folder, opened.truth))


def _open_rows(
    source: str, split: str, streaming: bool, truth: str | None
) -> tuple["Dataset | IterableDataset", str | None]:
    """Open a split, undecoded; return it with "masks" or "targets", None for images alone."""
    rows, images = load_split(source, split, streaming)
    truths = [known for known, column in TRUTHS.items() if column in images]
    truths = [truth] if truth in truths else truths
    if "image" not in images or len(truths) > 1:
        raise EMError(
            f"the dataset '{source}' has the image columns {', '.join(images)}; "
            "expected 'image' and one of 'mask' (segmentation), 'target' (restoration) and 'instance'"
        )
    return rows, truths[0] if truths else None


def _kind_of_dataset(source: str, truth: str | None, found: str | None, scale: int | None, streaming: bool) -> Kind:
    """Return how the truth is read: `found` is what the columns hold, `truth` what was meant."""
    if found is None or truth not in (None, found):
        wanted = f"'{TRUTHS[truth]}'" if truth else "'mask' or 'target'"
        raise EMError(f"the dataset '{source}' has no column {wanted} beside 'image'; pairs can be made with --degrade")
    if found == "targets":
        return partial(paired, scale=scale)
    labels = _hub_labels(source)
    if found == "instances":
        return partial(numbered, labels=labels)
    if streaming and labels is None:
        raise EMError(f"the dataset '{source}' has no labels.json, as a stream needs it: add it")
    return partial(labelled, source=source, labels=labels)


def folder_labels(folder: Path) -> GreyValues | None:
    """Return what `labels.json` of a folder says, None where there is none."""
    path = find_json(folder, "labels.json")
    return None if path is None else read_labels(path)


def _hub_labels(source: str) -> GreyValues | None:
    """Return what the dataset's `labels.json` says, None where it has none."""
    if Path(source).is_dir():
        path = find_json(Path(source), "labels.json")
        return None if path is None else read_labels(path)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    try:
        return read_labels(Path(hf_hub_download(source, "labels.json", repo_type="dataset")))
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError) as error:
        raise EMError(f"cannot read labels.json of the dataset '{source}': {error}") from error


def _record(row: dict[str, Any], name: str, truth: str | None, colour: str | None) -> Record:
    """Decode a row; a pixel size in its column stands above that of the image."""
    read = partial(decode_micrograph, colour=colour)
    micrograph = decode(row["image"], f"{name}, image", read)
    size = row.get(PIXEL_SIZE)
    if isinstance(size, (int, float)) and 0 < size < math.inf:
        micrograph = replace(micrograph, pixel_size=float(size))
    if truth is None:
        return micrograph, micrograph, ""
    column = TRUTHS[truth]
    where = f"{name}, {column}"
    return micrograph, decode(row[column], where, read if truth == "targets" else decode_mask), where


def _stream(rows: Any, kind: Kind, source: str, truth: str | None, colour: str | None) -> StreamedExamples:
    examples = partial(_of_rows, kind, source, truth, colour)  # a module's: it reaches spawned workers
    first = examples([("row 0", next(iter(rows)))])
    return StreamedExamples(rows, first.part(0, 0), examples)


def _of_rows(
    kind: Kind, source: str, truth: str | None, colour: str | None, some: Iterable[tuple[str, dict]]
) -> Examples:
    return kind(_record(row, f"{source}, {name}", truth, colour) for name, row in some)
