"""How Sphinx makes the site: README, the pages of `docs/`, the cards and the reference. `make docs` calls it."""

import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from typer.testing import CliRunner

from emfm.cli import app as command_line

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = PROJECT["name"]
author = "The emfm authors"
project_copyright = f"{author}. Licence: {PROJECT['license']}"
release = PROJECT["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "README"
include_patterns = ["*.md", "docs/**.md", "hub_scripts/**.md", "emfm/weights/**.md"]
exclude_patterns = [".*", "build", "runs", "demo_output"]

# Markdown as GitHub shows it: every heading has an anchor, and a link to a missing one is a
# warning.
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # cards begin below the first level

highlight_language = "text"
smartquotes = False  # which would make one dash of the two before an option

# The reference shows what the docstrings say; types stand in the signatures.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
maximum_signature_line_length = 90
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"emfm {release}"
html_extra_path = ["index.html"]  # leads to the first page
html_show_sphinx = False
html_copy_source = False

# What GitHub would show as text is added here: the tables of contents, by the page that leads to
# them.
CONTENTS = {
    "README": """
```{toctree}
:hidden:
:caption: Guides

docs/predicting
docs/volumes
docs/trust
docs/finetuning
docs/objects
docs/pretraining
docs/formats
docs/datasets
docs/hub
docs/transformers
docs/export
```

```{toctree}
:hidden:
:caption: What it is worth

docs/models
docs/results
docs/findings
```

```{toctree}
:hidden:
:caption: Reference

docs/settings
docs/reference/index
docs/architecture
CHANGELOG
```

```{toctree}
:hidden:
:caption: Taking part

CONTRIBUTING
SECURITY
hub_scripts/README
```
""",
    "docs/models": """
```{toctree}
:hidden:
:glob:

/emfm/weights/*/README
/emfm/weights/DATA
```
""",
    "docs/reference/index": """
```{toctree}
:hidden:

models
data
training
prediction
sharing
command-line
```
""",
    "hub_scripts/README": """
```{toctree}
:hidden:

space/README
```
""",
}


def verbs() -> str:
    """Return what `--help` prints of every verb, in Markdown."""
    plain = {"COLUMNS": "88", "TERMINAL_WIDTH": "88", "TERM": "dumb", "NO_COLOR": "1"}
    runner = CliRunner(env=plain)
    names = [verb.name or verb.callback.__name__ for verb in command_line.registered_commands if verb.callback]
    pages = {name: runner.invoke(command_line, [name, "--help"], prog_name="emfm").output for name in names}
    return "".join(f"\n## emfm {name}\n\n```text\n{text.strip()}\n```\n" for name, text in pages.items())


def add_contents(app: Sphinx, name: str, source: list[str]) -> None:
    """Add to a page its table of contents, or what the command line says of itself."""
    source[0] += verbs() if name == "docs/reference/command-line" else CONTENTS.get(name, "")


def add_settings(app: Sphinx, what: str, name: str, documented: Any, options: Any, lines: list[str]) -> None:
    """Add to a dataclass of settings what its own fields say: meaning, and the values they take."""
    if what != "class" or not is_dataclass(documented):
        return
    for field in fields(documented):
        if field.name in vars(documented).get("__annotations__", {}) and "help" in field.metadata:
            allowed = field.metadata.get("allowed")
            lines.append(f":param {field.name}: {field.metadata['help']}" + (f" ({allowed})" if allowed else ""))


def setup(app: Sphinx) -> None:
    """Connect what is above."""
    app.connect("source-read", add_contents)
    app.connect("autodoc-process-docstring", add_settings)
