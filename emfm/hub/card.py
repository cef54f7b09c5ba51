"""What all cards share. They are rendered from what runs stored; nothing is typed by hand."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import CardData, ModelCardData, RepoCard

TEMPLATES = Path(__file__).parents[1] / "templates"
TAGS = ["electron-microscopy", "emfm"]
# The Hub's word for a licence that nobody has stated.
UNKNOWN_LICENSE = "unknown"
# How a card calls the model or dataset that it belongs to, until it is known where that will lie.
HERE = "path/to/this/folder"
# The place in the example of a model's card, and in that of a dataset's.
_PLACE = re.compile(r'^(model_id = |rows = load_dataset\()"[^"\n]*"', flags=re.MULTILINE)


def fill(template: Path, **values: Any) -> str:
    """Return a template with all of its fields filled in; values are escaped where it is HTML."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=template.suffix == ".html")
    return environment.from_string(template.read_text(encoding="utf-8")).render(values)


def fill_card(template: Path, data: CardData, **values: Any) -> str:
    """Return a card: a template with `card_data` as its header, filled in."""
    return f"{RepoCard.from_template(data, template_path=str(template), **values)}\n"


def card_for_repo(text: str, repo_id: str) -> str:
    """Return a card of emfm's with an example that loads from the repository `owner/name`."""
    return _PLACE.sub(rf'\g<1>"{repo_id}"', text)


def model_card_data(tags: Sequence[str] = (), license: str = UNKNOWN_LICENSE, **fields: Any) -> ModelCardData:
    """Return the metadata of a model's card; its tags come after those that every model has."""
    return ModelCardData(library_name="emfm", license=license, **fields, tags=[*TAGS, *tags])


def plain_card(generator: str, class_name: str) -> str:
    """Return the README.md of a model of which nothing but its generator and class is known."""
    words = {"generator": generator, "class_name": class_name, "place": HERE}
    return fill_card(TEMPLATES / "plain_card.md", model_card_data(), **words)


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
