"""One place for a setting: a dataclass's field holds its default, what it means and which values it takes.

Checks in Python, the command line, the scripts of `hub_scripts` and the documentation all read these fields.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, dataclass, field, fields
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
    """The numbers that a setting takes; infinity and NaN are never among them.

    Args:
        least: the smallest.
        most: the largest.
        above: a bound that is too small itself.
        below: a bound that is too large itself.
    """

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
    """The values that a setting takes.

    Args:
        names: all of them, or a function that returns them where importing them takes long.
    """

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


def setting(
    default: Any,
    help: str,
    allowed: Range | OneOf | None = None,
    *,
    flag: str | None = None,
    shown: str | None = None,
    on_command_line: bool = True,
) -> Any:
    """Return a dataclass's field for a setting.

    Args:
        default: its value where none is given, or REQUIRED.
        help: what it means, in a sentence.
        allowed: the values it takes; of a tuple, each of its parts.
        flag: its option on the command line, where that is not its name.
        shown: what the help of the command line shows for a default of None.
        on_command_line: whether it has an option there.
    """
    metadata = {"help": help, "allowed": allowed, "flag": flag, "shown": shown, "on_command_line": on_command_line}
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
    if not isinstance(allowed, OneOf) or callable(allowed.names):
        return text
    if all(str(name) in text for name in allowed.known()):
        return text
    return f"{text} {str(allowed).capitalize()}."


def check_settings(settings: Any) -> None:
    """Check all settings of a dataclass's instance, each alone.

    Raises:
        EMError: a setting has a value that it does not take.
    """
    for known in settings_of(type(settings)):
        check_setting(known, getattr(settings, known.name), known.name)


def check_setting(known: Field[Any], value: Any, name: str) -> None:
    """Check one value.

    Args:
        known: the setting.
        value: given for it.
        name: what the error calls it.

    Raises:
        EMError: it does not take this value.
    """
    if not _has_type(value, known.type):
        raise EMError(f"{name} is {value!r}; expected {formatannotation(known.type)}")
    allowed = known.metadata["allowed"]
    for part in value if isinstance(value, (tuple, list)) else (value,):
        if isinstance(part, Real) and not math.isfinite(part):
            raise EMError(f"{name} is {value}; expected a finite number")
        if allowed is not None and part is not None and part not in allowed:
            raise EMError(f"{name} is {value!r}; expected {allowed}")


def options_in(annotation: Any) -> list[Any]:
    """Return the types that an annotation allows beside None."""
    found = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return [kind for kind in found if kind is not NoneType]


def _has_type(value: Any, annotation: Any) -> bool:
    if value is None:
        return isinstance(annotation, UnionType) and NoneType in get_args(annotation)
    return any(_has_kind(value, kind) for kind in options_in(annotation))


def _has_kind(value: Any, kind: Any) -> bool:
    if get_origin(kind) is tuple:
        part_kind, *others = get_args(kind)
        fits = isinstance(value, (tuple, list)) and (... in others or len(value) == 1 + len(others))
        return fits and all(_has_kind(part, part_kind) for part in value)
    if isinstance(value, bool):  # which Python counts as a whole number
        return kind is bool
    return isinstance(value, KINDS.get(kind, kind))
