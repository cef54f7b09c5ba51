"""The one exception that emfm raises for what a user can mend."""

from collections.abc import Iterable
from difflib import get_close_matches


class EMError(ValueError):
    """Wrong input: the message says what was given, what was expected and how to fix it.

    The command line prints it as one line and leaves with exit code 2.
    """


class UnsupportedFileError(EMError):
    """A sound file of a kind that emfm does not read, such as ink colours or an animation."""


class MissingSplitError(EMError):
    """A folder or data set has no split of the name that was asked for."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint with the known names closest to `name`, or with all if none is close."""
    known = list(known)
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"known names: {', '.join(known)}"
