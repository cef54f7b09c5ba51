"""The card of a dataset, from what was said about its source and what was counted in its rows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from huggingface_hub import DatasetCardData

from emfm.data.hub_images import PIXEL_SIZE
from emfm.hub.card import HERE, TAGS, UNKNOWN_LICENSE
from emfm.hub.datasets.encoded_image import EncodedImage
from emfm.hub.rendering import TEMPLATES, fill_card

# Size categories of the Hub, and the number of rows from which the next one holds.
SIZES = {"n<1K": 1e3, "1K<n<10K": 1e4, "10K<n<100K": 1e5, "100K<n<1M": 1e6, "1M<n<10M": 1e7}
Row = Mapping[str, EncodedImage]


@dataclass(frozen=True)
class DatasetCard:
    """What the card says beside the figures that are counted."""

    title: str  # heading
    summary: str  # one paragraph: what is on the images
    task: str  # the Hub's name of the task, as "image-segmentation"
    # the Hub's name of the licence, as "cc0-1.0"; "unknown" where the source names none
    license: str
    source: str  # where the images are from
    citation: str  # one line, or BibTeX
    made_by: str  # the command that made the dataset
    notes: str  # how images were chosen, changed and split


@dataclass
class ImageCounts:
    """What is counted while rows are written, for the card."""

    columns: list[str] = field(default_factory=list)  # of images
    dtypes: set[str] = field(default_factory=set)  # of the images, without their truth
    heights: set[int] = field(default_factory=set)  # in pixels
    widths: set[int] = field(default_factory=set)  # in pixels
    # of each image in nm, None where it is not known
    pixel_sizes: list[float | None] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Count one row."""
        self.columns = list(row)
        image = row["image"]
        self.dtypes.add(image.dtype)
        self.heights.add(image.shape[0])
        self.widths.add(image.shape[1])
        self.pixel_sizes.append(image.pixel_size)


def dataset_card(
    card: DatasetCard, rows: Mapping[str, int], counts: ImageCounts, labels: Mapping[str, str] | None
) -> str:
    """Return the README.md of a dataset.

    Args:
        card: what is known beside the figures.
        rows: split: number of its images.
        counts: what was counted.
        labels: grey value of the masks: class name.
    """
    total = sum(rows.values())
    # no `configs`: `datasets` finds data/SPLIT-* anyway, and with them its cache confuses folders of the same name
    data = DatasetCardData(
        license=card.license,
        task_categories=[card.task],
        size_categories=[next((name for name, limit in SIZES.items() if total < limit), "n>10M")],
        pretty_name=card.title,
        tags=TAGS,
    )
    return fill_card(
        TEMPLATES / "dataset_card.md",
        data,
        card=card,
        place=HERE,
        rows=rows,
        columns=[*counts.columns, PIXEL_SIZE],
        dtypes=sorted(counts.dtypes),
        heights=_interval(counts.heights),
        widths=_interval(counts.widths),
        pixel_sizes=_pixel_sizes(counts.pixel_sizes),
        labels=labels or {},
        no_license=card.license == UNKNOWN_LICENSE,
        citation=_citation(card.citation.strip()),
    )


def _interval(values: Iterable[float]) -> str:
    values = set(values)
    return f"{min(values):g}" if len(values) == 1 else f"{min(values):g} to {max(values):g}"


def _pixel_sizes(sizes: list[float | None]) -> str:
    known = [size for size in sizes if size is not None]
    if not known:
        return "not known of any image"
    share = "all" if len(known) == len(sizes) else f"{len(known):,} of {len(sizes):,}"
    return f"{_interval(known)}, known of {share}"


def _citation(text: str) -> str:
    return f"```bibtex\n{text}\n```" if "\n" in text else f"> {text}"
