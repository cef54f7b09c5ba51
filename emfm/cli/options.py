"""The options of a verb, made from the dataclass that holds their names, defaults and help."""

import functools
import inspect
from collections.abc import Callable, Collection
from dataclasses import MISSING, Field
from types import GenericAlias
from typing import Annotated, Any, get_args, get_origin

import typer

from emfm.settings import check_setting, flag_of, help_of, options_in, settings_of

Verb = Callable[..., None]


def takes(settings: type, *, only: Collection[str] = (), unset: Collection[str] = ()) -> Callable[[Verb], Verb]:
    """Give a verb an option for each setting of a dataclass.

    They replace the verb's parameter `given`, which receives their values by name. Each value is
    checked, and an error names its option.

    Args:
        settings: the dataclass, made with `emfm.settings.setting`.
        only: of the dataclass these settings alone; all by default.
        unset: settings that are None where they are not given, for the verb to decide.
    """
    known = [field for field in settings_of(settings) if field.metadata["on_command_line"]]
    if only:
        known = [field for field in known if field.name in only]

    def decorate(verb: Verb) -> Verb:
        parameters = []
        for parameter in inspect.signature(verb).parameters.values():
            if parameter.name == "given":
                parameters += [_parameter(field, field.name in unset) for field in known]
            else:
                parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

        @functools.wraps(verb)
        def command(**values: Any) -> None:
            given = {}
            for field in known:
                value = values.pop(field.name)
                if isinstance(value, list):
                    value = tuple(value)
                if value is not None or field.name not in unset:
                    check_setting(field, value, flag_of(field) if _is_option(field) else field.name)
                given[field.name] = value
            verb(given=given, **values)

        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate


def _is_option(field: Field[Any]) -> bool:
    return flag_of(field).startswith("--")


def _parameter(field: Field[Any], unset: bool) -> inspect.Parameter:
    """Return what typer makes an argument or an option of."""
    (kind,) = options_in(field.type)
    if get_origin(kind) is tuple:
        kind = GenericAlias(list, get_args(kind)[:1])
    default = None if unset else field.default
    if default is None:
        kind = kind | None
    # typer would give what is False by default a second form with --no-, which says nothing new
    names = [flag_of(field)] if field.metadata["flag"] or default is False else []
    if _is_option(field):
        shown: Any = typer.Option(*names, help=help_of(field))
    else:
        shown = typer.Argument(help=help_of(field))
    annotation = Annotated[kind, shown]  # type: ignore[valid-type]
    default = inspect.Parameter.empty if default is MISSING else default
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
