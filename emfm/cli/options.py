"""The options of a verb, made from the dataclass of its settings: names, defaults and help stand there alone."""

import functools
import inspect
from collections.abc import Callable, Collection
from dataclasses import MISSING, Field
from types import GenericAlias
from typing import Annotated, Any, get_args, get_origin

import typer

from emfm.settings import check_setting, flag_of, help_of, options_in, settings_of

Verb = Callable[..., None]


def takes(
    settings: type, *, arguments: Collection[str] = (), only: Collection[str] = (), unset: Collection[str] = ()
) -> Callable[[Verb], Verb]:
    """Give a verb an option for each setting of a dataclass.

    They stand in the place of the verb's parameter `given`, which receives their values by name. Each value is
    checked, and an error names its option.

    Args:
        settings: the dataclass, made with `emfm.settings.setting`.
        arguments: settings that are given by their place.
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
                parameters += [_parameter(field, field.name in arguments, field.name in unset) for field in known]
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
                    check_setting(field, value, field.name if field.name in arguments else flag_of(field))
                given[field.name] = value
            verb(given=given, **values)

        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate


def _parameter(field: Field[Any], by_place: bool, unset: bool) -> inspect.Parameter:
    """Return what typer makes an argument or an option of."""
    (kind,) = options_in(field.type)
    if get_origin(kind) is tuple:
        kind = GenericAlias(list, get_args(kind)[:1])
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    if unset:
        default = None
    if default is None:
        kind = kind | None
    shown: Any
    if by_place:
        shown = typer.Argument(help=help_of(field))
    else:
        # of itself typer gives what is False by default a second form with --no-, which says nothing new
        names = [flag_of(field)] if field.metadata["flag"] or default is False else []
        shown = typer.Option(*names, help=help_of(field), show_default=field.metadata["shown"] or True)
    annotation = Annotated[kind, shown]  # type: ignore[valid-type]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
