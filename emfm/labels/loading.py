"""`load_em_dataset` for everybody: labels of other programs are taken as they lie."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emfm.data import datasets
from emfm.data.classes import GreyValues
from emfm.data.kinds import labelled, numbered
from emfm.data.labelled_folder import OtherLabelsError, Record, named_slice
from emfm.data.splits import names_of_split
from emfm.io.masks import Mask
from emfm.io.reading import FileChoice
from emfm.labels.arguments import ImportArguments
from emfm.labels.painting import Paintings


def load_em_dataset(
    source: str | Path,
    split: str = "train",
    degrade: str | None = None,
    scale: int | None = None,
    truth: str | None = None,
    streaming: bool = False,
    choice: FileChoice | None = None,
) -> Any:
    """Load one split of labelled micrographs, of pairs, or of clean micrographs to damage.

    Args:
        source: a folder, a folder of parquet files, or a dataset's id on the Hub. A folder holds
            `images/` and, with the same file names, `masks/` or `targets/`; a dataset the columns
            `image` and `mask` or `target`. `labels.json` maps grey values of masks to class names,
            "ignore" for pixels without truth; without it they must be 0..K-1. `splits.json` lists
            file names per split; without it sub-folders called as splits hold them, else every
            image belongs to "train". Stacks are taken slice by slice. Or a file or folder of labels
            of labelme, COCO, VIA, QuPath or ImageJ, with its images beside them: the result is that
            of the folder which `import_labels` makes of it, and nothing is written.
        split: "train", "validation", "test" in any usual spelling ("val", "Dev"), or another name.
        degrade: make pairs from the images, taken as clean: "dose", "paper", "background" or
            "downsample". Truth is not read; a plain folder of micrographs will do.
        scale: target pixels per image pixel and axis; by default the pairs', 2 for "downsample".
        truth: "masks", "targets" or "instances", where a folder holds several.
        streaming: read a dataset as it comes, without downloading it first.
        choice: which dataset of HDF5, Zarr, DM and EMD files, and which grey of colour.

    Returns:
        `LabelledMicrographs`, `PairedMicrographs`, `CleanMicrographs`, `LabelledObjects`, or
        `StreamedExamples` of it.

    Raises:
        EMError: a folder, file or split is missing, sizes differ, a mask holds a grey value
            without a class, a file of labels is damaged, or the scale does not fit.
    """
    try:
        return datasets.load_em_dataset(source, split, degrade, scale, truth, streaming, choice)
    except OtherLabelsError:
        if truth == "targets":
            raise
    paintings = Paintings(Path(source), ImportArguments(), choice or FileChoice())
    names_of_split({"train": paintings.names}, split, Path(source))
    records = list(_records(paintings, ids=truth == "instances"))
    if truth == "instances":
        return numbered(records, None)
    labels = paintings.classes.labels(paintings.ignored)
    return labelled(records, str(source), GreyValues({int(value): name for value, name in labels.items()}))


def _records(paintings: Paintings, ids: bool) -> Iterator[Record]:
    """Yield the micrographs with their masks, or with the numbers of their objects."""
    for painted in paintings:
        for micrograph, truth in zip(painted.slices, painted.ids if ids else painted.masks, strict=True):
            found = named_slice(micrograph)
            yield found, Mask(truth, None, painted.mask_name, index=micrograph.index), f"the labels of {found.name}"
