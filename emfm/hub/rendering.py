"""Texts from template files: cards with their metadata through the Hub's client, other texts by Jinja."""

from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData, RepoCard

TEMPLATES = Path(__file__).parents[1] / "templates"


def fill(template: Path, **values: Any) -> str:
    """Return the text of a template with its fields filled in, without a line break at the end.

    Args:
        template: file; values are escaped where it is HTML.
        **values: of the fields; each must be given.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=template.suffix == ".html")
    return environment.from_string(template.read_text(encoding="utf-8")).render(values)


def fill_card(template: Path, data: ModelCardData | DatasetCardData, **values: Any) -> str:
    """Return a card: the text of a template below its metadata.

    Args:
        template: file that has `card_data` as its header.
        data: the metadata.
        **values: of the template's fields.
    """
    card: RepoCard
    if isinstance(data, ModelCardData):
        card = ModelCard.from_template(data, template_path=str(template), **values)
    else:
        card = DatasetCard.from_template(data, template_path=str(template), **values)
    return f"{card}\n"
