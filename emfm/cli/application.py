"""The application that the verbs belong to, and how it answers wrong input."""

import logging
import os
import sys
import warnings
from typing import Annotated, Any

import typer

from emfm.errors import EMError

app = typer.Typer(
    name="emfm",
    help="Foundation models for electron microscopy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def figures(result: dict[str, Any]) -> str:
    """Return what there is of the figures of merit, with their names."""
    from emfm.tasks import TASKS

    forms = {figure.name: figure.form for task in TASKS.values() for figure in task.figures}
    return "  ".join(f"{name} {result[name]:{form}}" for name, form in forms.items() if name in result)


def main() -> None:
    """Run the command line; an EMError or an unusable file becomes one line on standard error and exit code 2."""
    _quieten()
    try:
        app()
    except EMError as error:
        sys.stderr.write(f"emfm: {' '.join(str(error).split())}\n")
        sys.exit(2)
    except OSError as error:  # a folder that cannot be made, a full disk
        if error.filename is None:
            raise
        sys.stderr.write(f"emfm: {error.filename}: {error.strerror}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("emfm: stopped\n")
        sys.exit(130)


def _quieten() -> None:
    """Keep the libraries' own bars and advice off the terminal; their warnings stay in the log at level ERROR."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|accelerate)\..*")
    logging.basicConfig(level=logging.WARNING, format="emfm: %(message)s")
