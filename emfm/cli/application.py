"""The application that the verbs belong to, and how they answer, to wrong input too."""

import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Annotated, Any

import typer

from emfm.cli.faults import WORLD, end_bars, fault_line
from emfm.cli.words import UsageError, check_words, usage_line
from emfm.errors import EMError
from emfm.files import reason_of

app = typer.Typer(
    name="emfm",
    help="Foundation models for electron microscopy.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Model = Annotated[str, typer.Argument(help="Zoo name, folder or Hub id.")]
INTERRUPTED = 130  # what shells expect after Ctrl-C
PIPE_CLOSED = 141  # and of a program whose reader has gone, as after `| head`


class ReaderGone(Exception):  # noqa: N818
    """Nobody reads standard output any more, as after `| head`."""


def answer(as_json: bool, result: Any, text: str, indent: int | None = None) -> None:
    """Print a result: as JSON, each level indented by so many blanks, or as text."""
    say(json.dumps(result, indent=indent) if as_json else text)


def say(text: str) -> None:
    """Print text, now.

    Raises:
        EMError: standard output does not take it.
        ReaderGone: nobody reads it any more.
    """
    try:
        typer.echo(text)
    except BrokenPipeError as error:
        raise ReaderGone from error
    except OSError as error:
        raise EMError(f"cannot write to standard output: {reason_of(error)}") from error


def figures(result: dict[str, Any]) -> str:
    """Return the figures of merit of the task that they belong to, with their names."""
    from emfm.hub.card import figure
    from emfm.tasks import TASKS

    of_tasks = [task.figures for task in TASKS.values()]
    shown = next(known for known in of_tasks if all(measure.name in result for measure in known))
    return "  ".join(f"{measure.name} {figure(result[measure.name], measure.form)}" for measure in shown)


def _tell_version(asked: bool) -> None:
    if asked:
        from emfm import __version__

        say(__version__)
        raise typer.Exit


@app.callback()
def start(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_tell_version)
    ] = False,
) -> None:
    """Foundation models for electron microscopy."""


class _BesideBars(logging.StreamHandler):
    """Writes a warning on a line of its own, above a progress bar that is drawn again below."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if "tqdm" not in sys.modules:
            return super().emit(record)
        with sys.modules["tqdm"].tqdm.external_write_mode(self.stream):
            return super().emit(record)


def main() -> None:
    """Run the command line; what a user or the world did wrong becomes one line and exit code 2."""
    _prepare_streams()
    # the libraries' bars and advice stay off the terminal; of their log, errors alone are shown
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|accelerate)\..*")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(torch|accelerate|peft|transformers)\..*")
    logging.basicConfig(level=logging.WARNING, format="emfm: %(message)s", handlers=[_BesideBars()])
    threading.excepthook = _tell_of_thread
    code, message = _run(sys.argv[1:])
    if message:
        end_bars()
        with suppress(OSError):
            sys.stderr.write(f"emfm: {' '.join(message.split())}\n")
    _drop_output()
    sys.exit(code)


def _tell_of_thread(failed: threading.ExceptHookArgs) -> None:
    """Tell in one line what the machine did to a thread that writes in the background."""
    line = fault_line(failed.exc_value, None) if isinstance(failed.exc_value, WORLD) else None
    if line is None:
        threading.__excepthook__(failed)
    else:
        logging.getLogger(__name__).warning("%s", line)


def _prepare_streams() -> None:
    """Let any name be printed, whatever the terminal's character set; closed streams take all."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _verbs(group: Any) -> dict[str, tuple[Any, Callable[..., Any] | None]]:
    """Return every verb by its name, of two words in a group, with the function that it calls."""
    callbacks = (known.callback for known in app.registered_commands)  # which stand before the groups
    pairs = zip(group.commands.items(), callbacks, strict=False)
    found: dict[str, tuple[Any, Callable[..., Any] | None]] = {name: (verb, call) for (name, verb), call in pairs}
    for known in app.registered_groups:
        assert known.typer_instance is not None
        name = str(known.typer_instance.info.name)
        found[name] = (group.commands[name], None)
        inner = zip(group.commands[name].commands.items(), known.typer_instance.registered_commands, strict=True)
        found |= {f"{name} {word}": (verb, command.callback) for (word, verb), command in inner}
    return found


def _named(words: list[str], verbs: Collection[str]) -> str:
    """Return the name of the verb that words begin with, whether there is one or not."""
    in_group = len(words) > 1 and words[1][:1] != "-" and any(name.startswith(f"{words[0]} ") for name in verbs)
    return " ".join(words[: 2 if in_group else 1])


def _run(words: list[str]) -> tuple[int, str]:
    """Do what the words of the command line say; return exit code and error, empty if none."""
    group: Any = typer.main.get_command(app)
    verbs = _verbs(group)
    if words[:1] == ["help"]:
        words = [*words[1:3], "--help"]
    name = _named(words, verbs)
    verb, function = verbs.get(name, (None, None))
    try:
        if function is not None:
            check_words(name, verb, function, words[len(name.split()) :])
        # not app(), which ends the program without a word where any pipe is broken
        with group.make_context("emfm", list(words) or ["--help"]) as context:
            group.invoke(context)
    except typer.Exit as leaving:
        return leaving.exit_code, ""
    except UsageError as error:
        return 2, usage_line(error, name, {name: verb for name, (verb, _) in verbs.items()})
    except EMError as error:
        return 2, str(error)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED, "stopped"
    except ReaderGone:
        return PIPE_CLOSED, ""
    except WORLD as error:
        line = fault_line(error, verb)
        if line is None:
            raise
        return 2, line
    return 0, ""


def _drop_output() -> None:
    """Forget what standard output no longer takes, of which Python would complain as it ends."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
