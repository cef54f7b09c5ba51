"""The card of a dataset, from what was said about its source and what was counted in its rows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from huggingface_hub import DatasetCardData

from emfm.data.unlabelled import PIXEL_SIZE
from emfm.hub.encoded_image import EncodedImage

# The Hub's word for "nobody knows the licence".
UNKNOWN = "unknown"
UNKNOWN_MEANS = " (none is named: ask the authors before you use the images)"
# Where a dataset lies before it is pushed, in the example of its card.
PLACE = "path/to/this/folder"
# Largest number of rows of each size category of the Hub, by its name.
SIZES = {1e3: "n<1K", 1e4: "1K<n<10K", 1e5: "10K<n<100K", 1e6: "100K<n<1M", 1e7: "1M<n<10M"}

CARD = """\
---
{header}
---

# {card.title}

{card.summary}

| split | images |
|---|---|
{table}

Columns: {columns}. The images are one-channel PNG, JPEG or TIFF files in their own dtype: {dtypes}; \
{heights} pixels high, {widths} wide.{labels} `pixel_size_nm` is the side of a pixel of `image` in nm: {pixel_sizes}.

```python
from datasets import load_dataset

rows = load_dataset("{card.place}", split="{split}", streaming=True)
```

## Source and licence

{card.source}

Licence: {card.license}{unknown}. Cite:

{citation}

## How it was made

`{card.made_by}`

{card.notes}
"""


Row = Mapping[str, EncodedImage]


@dataclass(frozen=True)
class DatasetCard:
    """What the card says beside the figures that are counted.

    Attributes:
        title: heading.
        summary: one paragraph: what is on the images.
        task: the Hub's name of the task, as "image-segmentation".
        license: the Hub's name of the licence, as "cc0-1.0"; "unknown" where the source names none.
        source: where the images are from.
        citation: one line, or BibTeX.
        made_by: the command that made the dataset.
        notes: how images were chosen, changed and split.
        place: of the dataset: its id on the Hub, where it is known.
    """

    title: str
    summary: str
    task: str
    license: str
    source: str
    citation: str
    made_by: str
    notes: str
    place: str = PLACE


@dataclass
class RowFacts:
    """What is counted while rows are written, for the card.

    Attributes:
        columns: of images.
        dtypes: of the images, without their truth.
        heights: in pixels.
        widths: in pixels.
        pixel_sizes: of each image in nm, None where it is not known.
    """

    columns: list[str] = field(default_factory=list)
    dtypes: set[str] = field(default_factory=set)
    heights: set[int] = field(default_factory=set)
    widths: set[int] = field(default_factory=set)
    pixel_sizes: list[float | None] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Count one row."""
        self.columns = list(row)
        image = row["image"]
        self.dtypes.add(image.dtype)
        self.heights.add(image.shape[0])
        self.widths.add(image.shape[1])
        self.pixel_sizes.append(image.pixel_size)


def card_text(card: DatasetCard, counts: Mapping[str, int], facts: RowFacts, labels: Mapping[str, str] | None) -> str:
    """Return the README.md of a dataset.

    Args:
        card: what is known beside the figures.
        counts: split: number of its images.
        facts: what was counted.
        labels: grey value of the masks: class name.
    """
    total = sum(counts.values())
    # no `configs`: `datasets` finds data/SPLIT-* anyway, and with them its cache confuses folders of the same name
    header = DatasetCardData(
        license=card.license,
        task_categories=[card.task],
        size_categories=[next((name for limit, name in SIZES.items() if total < limit), "n>10M")],
        pretty_name=card.title,
        tags=["electron-microscopy", "emfm"],
    )
    named = ", ".join(f"{value} is {name}" for value, name in (labels or {}).items())
    return CARD.format(
        header=header.to_yaml().strip(),
        card=card,
        table="\n".join(f"| {split} | {count:,} |" for split, count in counts.items()),
        columns=", ".join(f"`{column}`" for column in [*facts.columns, PIXEL_SIZE]),
        dtypes=", ".join(sorted(facts.dtypes)),
        heights=_interval(facts.heights),
        widths=_interval(facts.widths),
        pixel_sizes=_pixel_sizes(facts.pixel_sizes),
        split=next(iter(counts)),
        labels=f" `labels.json` names the grey values of the masks: {named}." if named else "",
        unknown=UNKNOWN_MEANS if card.license == UNKNOWN else "",
        citation=_citation(card.citation.strip()),
    )


def _interval(values: Iterable[float]) -> str:
    values = set(values)
    return f"{min(values):g}" if len(values) == 1 else f"{min(values):g} to {max(values):g}"


def _pixel_sizes(sizes: list[float | None]) -> str:
    known = [size for size in sizes if size is not None]
    if not known:
        return "not known of any image"
    of = "all" if len(known) == len(sizes) else f"{len(known):,} of {len(sizes):,}"
    return f"{_interval(known)}, known of {of}"


def _citation(text: str) -> str:
    return f"```bibtex\n{text}\n```" if "\n" in text else f"> {text}"
