"""The card of a dataset, from what was said about its source and what was counted in its rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from huggingface_hub import DatasetCardData

from emfm.hub.card import HERE, TAGS, TEMPLATES, UNKNOWN_LICENSE, fill_card
from emfm.hub.datasets.encoded_image import EncodedImage

# Size categories of the Hub, and the number of rows from which the next one holds.
SIZES = {"n<1K": 1e3, "1K<n<10K": 1e4, "10K<n<100K": 1e5, "100K<n<1M": 1e6, "1M<n<10M": 1e7}
Row = Mapping[str, EncodedImage]


@dataclass(frozen=True)
class DatasetCard:
    """What the card says beside the figures that are counted."""

    title: str  # heading
    summary: str  # one paragraph: what is on the images
    task: str  # the Hub's name of the task, as "image-segmentation"
    license: str  # the Hub's name of it, as "cc0-1.0"; "unknown" where the source names none
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
    pixel_sizes: list[float | None] = field(default_factory=list)  # in nm, where known

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
    """Return a dataset's README.md; `rows` counts images by split, `labels` names grey values."""
    total = sum(rows.values())
    # no `configs`: `datasets` finds data/SPLIT-* anyway, and with them its cache confuses folders of the same name
    data = DatasetCardData(
        license=card.license,
        task_categories=[card.task],
        size_categories=[next((name for name, limit in SIZES.items() if total < limit), "n>10M")],
        pretty_name=card.title,
        tags=TAGS,
    )
    values = {"card": card, "place": HERE, "rows": rows, "counts": counts, "labels": labels, "unknown": UNKNOWN_LICENSE}
    return fill_card(TEMPLATES / "dataset_card.md", data, **values)
