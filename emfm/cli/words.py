"""What is wrong with the words of a command line, in one line each."""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from enum import EnumType
from typing import Any, get_args, get_origin

import typer

from emfm.errors import EMError, nearest
from emfm.settings import options_in

# What typer raises for words that it cannot take; its releases keep the class in different places.
UsageError: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "UsageError")
NUMBERS = {int: "a whole number", float: "a number"}


def check_words(name: str, verb: Any, function: Callable[..., Any], words: list[str]) -> None:
    """Check the words after a verb, for what typer takes silently or explains in many lines.

    Args:
        name: of the verb.
        verb: as typer knows it.
        function: what it calls.
        words: of the command line.

    Raises:
        EMError: a value is empty, of another type or itself an option, or two values contradict.
    """
    flags, kinds = _flags(verb), _kinds(function)
    for flag, values in _given(flags, words).items():
        option = flags[flag]
        for value in values:
            if not value.strip():
                raise EMError(f"{flag} is empty: give it a value, or leave it out")
            if value in flags:
                raise EMError(f"{flag} has no value: it is followed by {value}, an option")
            _check_kind(flag, value, kinds[option.name])
        if not option.multiple and len(set(values)) > 1:
            raise EMError(f"{flag} is given as {' and as '.join(values)}: give it once")
    if any(not word.strip() for word in words):
        raise EMError(f"an argument is empty (see emfm {name} --help)")


def _given(flags: Mapping[str, Any], words: list[str]) -> dict[str, list[str]]:
    """Return the values that words give to options, by the options' first names."""
    given: dict[str, list[str]] = {}
    left = iter(words)
    for word in left:
        if word == "--":  # what follows are arguments
            break
        flag, equals, value = word.partition("=")
        if flag not in flags or flags[flag].is_flag:
            continue
        following = value if equals else next(left, None)
        if following is not None:
            given.setdefault(flags[flag].opts[0], []).append(following)
    return given


def _check_kind(flag: str, value: str, kind: Any) -> None:
    if kind in NUMBERS:
        try:
            kind(value)
        except ValueError as error:
            raise EMError(f"{flag} is '{value}'; expected {NUMBERS[kind]}") from error
    elif isinstance(kind, EnumType):
        names = list(map(str, kind.__members__.values()))
        if value not in names:
            raise EMError(f"{flag} is '{value}'; expected one of {', '.join(names)}; {nearest(value, names)}")


def _flags(verb: Any) -> dict[str, Any]:
    """Return a verb's options by all of their names."""
    return {flag: known for known in verb.params for flag in (*known.opts, *known.secondary_opts) if flag[0] == "-"}


def _kinds(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the type of each of a verb's parameters; of lists, that of their parts."""
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        kind = options_in(get_args(parameter.annotation)[0])[0]
        found[name] = get_args(kind)[0] if get_origin(kind) is list else kind
    return found


def usage_line(error: Any, name: str, verbs: Mapping[str, Any]) -> str:
    """Return an error of typer's in one line that says what was given and what was expected."""
    if name not in verbs:
        if name.startswith("-"):
            return f"there is no option {name} before the verb: emfm VERB [OPTIONS]; verbs: {', '.join(verbs)}"
        return f"there is no verb '{name}'; {nearest(name, verbs)} (see emfm --help)"
    told = _told(error, name, verbs[name])
    return f"{told} (see emfm {name} --help)"


def _told(error: Any, name: str, verb: Any) -> str:
    option: str | None = getattr(error, "option_name", None)
    if option is not None and hasattr(error, "possibilities"):
        close = get_close_matches(option, _flags(verb), n=2, cutoff=0.6)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        return f"{name} has no option {option}{hint}"
    if hasattr(error, "param_type"):
        missing = error.param
        what = missing.opts[0] if missing.opts[0].startswith("-") else missing.metavar or missing.name.upper()
        return f"{name} needs {what}{f': {missing.help}' if missing.help else ''}"
    told = error.format_message().rstrip(".")
    repeated = [known.opts[0] for known in verb.params if known.opts[0].startswith("--") and known.multiple]
    if option is None and repeated and not hasattr(error, "param"):
        told += f"; for several values repeat the option, as in {repeated[0]} A {repeated[0]} B"
    return f"{name}: {told[0].lower()}{told[1:]}"
