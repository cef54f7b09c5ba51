"""What all model cards share. Cards are rendered from what runs stored; nothing in them is typed by hand."""

import re
from collections.abc import Sequence
from typing import Any

from huggingface_hub import ModelCardData

from emfm.hub.rendering import TEMPLATES, fill_card

TAGS = ["electron-microscopy", "emfm"]
# The Hub's word for a licence that nobody has stated.
UNKNOWN_LICENSE = "unknown"
# How a card calls the model or dataset that it belongs to, until it is known where that will lie.
HERE = "path/to/this/folder"
# The place in the example of a model's card, and in that of a dataset's.
_PLACE = re.compile(r'^(model_id = |rows = load_dataset\()"[^"\n]*"', flags=re.MULTILINE)


def card_for_repo(text: str, repo_id: str) -> str:
    """Return a card whose example loads the model or the dataset from its repository on the Hub.

    Args:
        text: of any card of emfm's; only the place in its example changes.
        repo_id: `owner/name`.
    """
    return _PLACE.sub(rf'\g<1>"{repo_id}"', text)


def model_card_data(tags: Sequence[str] = (), license: str = UNKNOWN_LICENSE, **fields: Any) -> ModelCardData:
    """Return the metadata of a model's card.

    Args:
        tags: beside those that every model has.
        license: of the weights.
        **fields: others of `huggingface_hub.ModelCardData`.
    """
    return ModelCardData(library_name="emfm", license=license, **fields, tags=[*TAGS, *tags])


def plain_card(config: Any, cls: str) -> str:
    """Return the README.md of a model of which nothing but its class is known."""
    return fill_card(
        TEMPLATES / "plain_card.md", model_card_data(), generator=config.generator, class_name=cls, place=HERE
    )


def table(headings: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; a bar inside a cell would end it, and is escaped."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def figure(value: float | None, form: str = ".4f") -> str:
    """Return a figure as text; None is that of a class which did not occur."""
    return "absent" if value is None else format(value, form)


def dataset_slug(name: str) -> str:
    """Return a data set's name in letters that the Hub takes for the type of an evaluation's data."""
    return re.sub(r"[^\w./-]+", "-", name).strip("-") or "unknown"
