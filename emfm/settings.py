"""One place for a setting: a dataclass's field holds default, meaning and the values it takes.

Checks in Python, the command line, the scripts of `hub_scripts` and the documentation read it.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, dataclass, field, fields
from difflib import get_close_matches
from inspect import formatannotation
from numbers import Integral, Real
from os import PathLike
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from emfm.errors import EMError

# Without a default a setting has to be given.
REQUIRED = MISSING
# What Python takes for these types, beside the types themselves.
KINDS: dict[type, type | tuple[type, ...]] = {int: Integral, float: Real, str: (str, PathLike)}


@dataclass(frozen=True)
class Range:
    """The numbers that a setting takes, `least` and `most` among them, `above` and `below` not."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        bounds = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return " and ".join(f"{name} {bound}" for name, bound in bounds.items() if bound is not None)


@dataclass(frozen=True)
class OneOf:
    """The values that a setting takes, or a function that returns them where it imports much."""

    names: Iterable[Any] | Callable[[], Iterable[Any]]

    def known(self) -> list[Any]:
        """Return the values."""
        return list(self.names() if callable(self.names) else self.names)

    def __contains__(self, value: object) -> bool:
        return value in self.known()

    def __str__(self) -> str:
        return f"one of {', '.join(map(str, self.known()))}"


# NumPy takes no other seeds.
SEEDS = Range(least=0, most=2**32 - 1)
COUNT = Range(least=1)
NOT_NEGATIVE = Range(least=0)


def setting(
    default: Any,
    help: str,
    allowed: Range | OneOf | None = None,
    *,
    flag: str | None = None,
    on_command_line: bool = True,
) -> Any:
    """Return a dataclass's field for a setting.

    Args:
        default: its value where none is given, or REQUIRED.
        help: what it means, in a sentence.
        allowed: the values it takes, never infinity or NaN; of a tuple, each of its parts.
        flag: its option on the command line, where that is not its name; one without dashes is
            given by its place.
        on_command_line: whether it has an option there.
    """
    metadata = {"help": help, "allowed": allowed, "flag": flag, "on_command_line": on_command_line}
    return field(default=default, metadata=metadata)


def same_setting(owner: type, name: str, **changes: Any) -> Any:
    """Return a field like that of another dataclass, perhaps with another `default`."""
    known = field_of(owner, name)
    return field(**{"default": known.default, "metadata": known.metadata, **changes})


def settings_of(owner: type) -> list[Field[Any]]:
    """Return the fields of a dataclass that `setting` made."""
    return [known for known in fields(owner) if "allowed" in known.metadata]


def field_of(owner: type, name: str) -> Field[Any]:
    """Return the field of a dataclass by its name."""
    return next(known for known in fields(owner) if known.name == name)


def flag_of(known: Field[Any]) -> str:
    """Return a setting's option on the command line."""
    return known.metadata["flag"] or f"--{known.name.replace('_', '-')}"


def help_of(known: Field[Any]) -> str:
    """Return what a setting means, with the values it takes where its help does not name them."""
    text, allowed = known.metadata["help"], known.metadata["allowed"]
    if not isinstance(allowed, OneOf) or callable(allowed.names) or all(str(name) in text for name in allowed.known()):
        return text
    return f"{text} {str(allowed).capitalize()}."


@dataclass(frozen=True)
class Settings:
    """Base of dataclasses of settings.

    Raises:
        EMError: a setting has a value that it does not take.
    """

    def __post_init__(self):
        check_settings(self)


def check_settings(settings: Any) -> None:
    """Check each setting of a dataclass's instance; an EMError names the first wrong one."""
    for known in settings_of(type(settings)):
        check_setting(known, getattr(settings, known.name), known.name)


def check_setting(known: Field[Any], value: Any, name: str) -> None:
    """Check a value that was given for a setting; an EMError calls it `name`."""
    if not _fits(value, known.type):
        raise EMError(f"{name} is {value!r}; expected {formatannotation(known.type)}")
    allowed = known.metadata["allowed"]
    if isinstance(value, str) and not value.strip():
        raise EMError(f"{name} is empty: give it a value, or leave it out")
    for part in value if isinstance(value, (tuple, list)) else (value,):
        if isinstance(part, Real) and not math.isfinite(part):
            raise EMError(f"{name} is {value}; expected a finite number")
        if allowed is not None and part is not None and part not in allowed:
            raise EMError(f"{name} is {value!r}; expected {allowed}{_near(part, allowed)}")


def _near(value: Any, allowed: Range | OneOf) -> str:
    """Return a hint with the names like one that was given."""
    names = [name for name in allowed.known() if isinstance(name, str)] if isinstance(allowed, OneOf) else []
    close = get_close_matches(value, names, n=2) if isinstance(value, str) else []
    return f"; did you mean {' or '.join(close)}?" if close else ""


def options_in(annotation: Any) -> list[Any]:
    """Return the types that an annotation allows beside None."""
    found = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return [kind for kind in found if kind is not NoneType]


def _fits(value: Any, annotation: Any) -> bool:
    kinds = get_args(annotation)
    if isinstance(annotation, UnionType):
        return any(_fits(value, kind) for kind in kinds)
    if get_origin(annotation) is tuple:
        if not isinstance(value, (tuple, list)) or (... not in kinds and len(value) != len(kinds)):
            return False
        return all(_fits(part, kinds[0]) for part in value)
    if isinstance(value, bool):  # which Python counts as a whole number
        return annotation is bool
    return isinstance(value, KINDS.get(annotation, annotation))
