"""Tables of settings for the documentation, from the dataclasses that hold them."""

import dataclasses
import inspect

from emfm.app import ServeArguments
from emfm.data.corruptions import CorruptionStrength
from emfm.demo import DemoArguments
from emfm.export import PackageArguments
from emfm.finetuning.arguments import FinetuneArguments
from emfm.hub.arguments import PushArguments
from emfm.inference.arguments import PredictArguments
from emfm.labels.arguments import ExportArguments, ImportArguments, ReviewArguments
from emfm.pretraining.arguments import PretrainArguments
from emfm.reports.measure_arguments import MeasureArguments
from emfm.settings import Range, flag_of, help_of, settings_of
from emfm.simulate import SimulateArguments

# What stands between which marks of `docs/settings.md`.
TABLES = {
    "settings-pretrain": PretrainArguments,
    "settings-corruption": CorruptionStrength,
    "settings-finetune": FinetuneArguments,
    "settings-predict": PredictArguments,
    "settings-measure": MeasureArguments,
    "settings-labels-import": ImportArguments,
    "settings-labels-export": ExportArguments,
    "settings-labels-review": ReviewArguments,
    "settings-simulate": SimulateArguments,
    "settings-push": PushArguments,
    "settings-export": PackageArguments,
    "settings-app": ServeArguments,
    "settings-demo": DemoArguments,
}


def settings_table(owner: type) -> str:
    """Return what the settings of a dataclass mean, with their options, types, defaults and ranges."""
    lines = ["| Python | option | type | default | takes | meaning |", "|---|---|---|---|---|---|"]
    for known in settings_of(owner):
        option = f"`{flag_of(known)}`" if known.metadata["on_command_line"] and owner is not CorruptionStrength else ""
        kind = inspect.formatannotation(known.type).rpartition("emfm.data.corruptions.")[2]
        default = _default(known.default)
        allowed = known.metadata["allowed"]
        takes = str(allowed) if isinstance(allowed, Range) else ""
        cells = [f"`{known.name}`", option, f"`{kind}`", default, takes, help_of(known)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _default(value: object) -> str:
    if value is dataclasses.MISSING:
        return "required"
    if dataclasses.is_dataclass(value):
        return "see below"
    return f"`{value}`"
