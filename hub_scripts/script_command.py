"""What all scripts share: the dry run, one-line errors with exit code 2, and the options of a push."""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any, get_args, get_origin

from emfm.cli.faults import WORLD, fault_line
from emfm.errors import EMError
from emfm.hub.arguments import PushArguments
from emfm.settings import field_of, flag_of, help_of, options_in

PUSH_OPTIONS = ("private", "branch", "tag", "create_pr")


def script_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the option that all scripts have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="check, say what would be done, and stop")
    return parser


def run_script(
    parser: argparse.ArgumentParser, work: Callable[[argparse.Namespace], None], argv: Sequence[str] | None
) -> int:
    """Do the work of a script; returns the exit code: 2 after an error, told in one line; 130 after Ctrl-C."""
    arguments = parser.parse_args(argv)
    try:
        work(arguments)
    except (EMError, *WORLD) as error:
        line = str(error) if isinstance(error, EMError) else fault_line(error, None)
        if line is None:
            raise
        sys.stderr.write(f"{parser.prog}: {' '.join(line.split())}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"{parser.prog}: stopped\n")
        return 130
    return 0


def say(text: str) -> None:
    """Write a line to standard output."""
    sys.stdout.write(f"{text}\n")


def add_settings(parser: argparse.ArgumentParser, settings: type, names: Sequence[str]) -> None:
    """Add options for some settings of a dataclass; one without a default is required."""
    for known in (field_of(settings, name) for name in names):
        required = known.default is dataclasses.MISSING
        default = None if required else known.default
        (kind,) = options_in(known.type)
        options: dict[str, Any] = {"type": kind}
        if get_origin(kind) is tuple:
            options = {"type": get_args(kind)[0], "action": "append"}
        elif kind is bool:
            options = {"action": argparse.BooleanOptionalAction if default else "store_true"}
        shown = "" if default is None or default is False else " (default %(default)s)"
        text = help_of(known).replace("%", "%%") + shown
        parser.add_argument(flag_of(known), dest=known.name, default=default, required=required, help=text, **options)


def given_settings(arguments: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Return the values of some settings by name."""
    values = {name: getattr(arguments, name) for name in names}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def add_push_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a push; the token is that of `hf auth login` or of HF_TOKEN."""
    add_settings(parser, PushArguments, PUSH_OPTIONS)


def push_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a push as keywords."""
    return given_settings(arguments, PUSH_OPTIONS)
