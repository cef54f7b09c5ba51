"""The application that the verbs belong to, and how they answer, to wrong input too."""

import json
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
Model = Annotated[str, typer.Argument(help="Zoo name, folder or Hub id.")]


def answer(as_json: bool, result: Any, text: str, indent: int | None = None) -> None:
    """Print a result: as JSON, each level indented by so many blanks, or as text."""
    typer.echo(json.dumps(result, indent=indent) if as_json else text)


def figures(result: dict[str, Any]) -> str:
    """Return the figures of merit of the task that they belong to, with their names."""
    from emfm.hub.card import figure
    from emfm.tasks import TASKS

    of_tasks = [task.figures for task in TASKS.values()]
    shown = next(known for known in of_tasks if all(measure.name in result for measure in known))
    return "  ".join(f"{measure.name} {figure(result[measure.name], measure.form)}" for measure in shown)


def main() -> None:
    """Run the command line; an EMError or an unusable file becomes one line and exit code 2."""
    # the libraries' bars and advice stay off the terminal; of their log, errors alone are shown
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|accelerate)\..*")
    logging.basicConfig(level=logging.WARNING, format="emfm: %(message)s")
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
