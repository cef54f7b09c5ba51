"""Old models stay loadable: how the configuration of an earlier version becomes one of today's.

`schema_version` in config.json is raised when a field changes its meaning or its content. Each step
has a name and changes the dictionary that was read, before anything is built from it.
"""

from collections.abc import Callable
from typing import Any

from emfm.errors import EMError

SCHEMA_VERSION = 3


def complete_pretraining_record(fields: dict[str, Any]) -> None:
    """Version 1 left out of `pretraining` what was not chosen: accumulation, and the step at which it was saved."""
    record = fields.get("pretraining")
    if record is not None:
        record.setdefault("gradient_accumulation_steps", 1)
        record.setdefault("step", record["steps"])


def name_pretraining_signals(fields: dict[str, Any]) -> None:
    """Up to version 2 a pretraining learnt to restore micrographs and nothing beside it."""
    record = fields.get("pretraining")
    if record is not None:
        record.setdefault("filters", False)
        record.setdefault("structures", 0)


# Version: the step to the next one.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], None]] = {1: complete_pretraining_record, 2: name_pretraining_signals}


def migrate(fields: dict[str, Any]) -> dict[str, Any]:
    """Bring the fields of config.json to today's version, in place; returns them.

    Raises:
        EMError: there is no version, it is newer than this emfm, or a step cannot be taken.
    """
    version = fields.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise EMError(f"config.json has schema_version {version!r}; expected 1 to {SCHEMA_VERSION}, as emfm writes it")
    if version > SCHEMA_VERSION:
        raise EMError(
            f"this model has schema_version {version}; this emfm reads 1 to {SCHEMA_VERSION}: update emfm, or load an "
            "older revision of the model"
        )
    for step in range(version, SCHEMA_VERSION):
        try:
            MIGRATIONS[step](fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise EMError(
                f"config.json is damaged: {MIGRATIONS[step].__name__}, from schema_version {step}, failed ({error!r})"
            ) from error
    fields["schema_version"] = SCHEMA_VERSION
    return fields
