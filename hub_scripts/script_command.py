"""What all scripts share: the dry run, one-line errors with exit code 2, and the options of a push."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from emfm.errors import EMError

PUSH_OPTIONS = ("private", "branch", "tag", "create_pr")


def script_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the option that all scripts have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="check, say what would be done, and stop")
    return parser


def run_script(
    parser: argparse.ArgumentParser, work: Callable[[argparse.Namespace], None], argv: Sequence[str] | None
) -> int:
    """Do the work of a script; returns the exit code: 2 after an EMError, told in one line; 130 after Ctrl-C."""
    arguments = parser.parse_args(argv)
    try:
        work(arguments)
    except EMError as error:
        sys.stderr.write(f"{parser.prog}: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"{parser.prog}: stopped\n")
        return 130
    return 0


def say(text: str) -> None:
    """Write a line to standard output."""
    sys.stdout.write(f"{text}\n")


def add_push_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a push; the token is that of `hf auth login` or of HF_TOKEN."""
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    parser.add_argument("--branch", help="to push to, made where it is missing (default main)")
    parser.add_argument("--tag", help="name for this revision, such as v1.0 (default none)")
    parser.add_argument("--create-pr", action="store_true", help="propose the change instead of making it")


def push_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a push as keywords."""
    return {name: getattr(arguments, name) for name in PUSH_OPTIONS}


def add_settings(parser: argparse.ArgumentParser, settings: type, names: Sequence[str]) -> None:
    """Add options for some fields of a dataclass of settings, with its own defaults."""
    for name in names:
        default = settings.__dataclass_fields__[name].default  # type: ignore[attr-defined]
        kind: dict[str, Any] = {"type": type(default)}
        if isinstance(default, bool):
            kind = {"action": argparse.BooleanOptionalAction}
        parser.add_argument(f"--{name.replace('_', '-')}", default=default, help="(default %(default)s)", **kind)
