"""Every setting is described and checked in one place; nothing out of its range gets past it, from anywhere."""

import inspect
import math
import subprocess
import sys
from dataclasses import dataclass
from typing import get_args, get_origin

import pytest
import typer
from test_cli import emfm  # noqa: F401  (a fixture)

from emfm.app import ServeArguments
from emfm.cli import app
from emfm.data.corruptions import CorruptionStrength
from emfm.demo import DemoArguments
from emfm.errors import EMError
from emfm.export import PackageArguments
from emfm.finetuning.arguments import FinetuneArguments
from emfm.finetuning.trainer_arguments import EMTrainingArguments
from emfm.hub.arguments import PushArguments
from emfm.inference.arguments import PredictArguments
from emfm.labels.arguments import ExportArguments, ImportArguments, ReviewArguments
from emfm.pretraining.arguments import RECIPES, PretrainArguments, from_recipe
from emfm.reports.measure_arguments import MeasureArguments
from emfm.settings import OneOf, Range, check_settings, field_of, flag_of, options_in, setting, settings_of
from emfm.simulate import SimulateArguments

# What each needs beside the setting that is tried.
NEEDED = {
    PretrainArguments: {"data": ("a",), "output": "b"},
    FinetuneArguments: {"task": "denoising", "data": "a", "output": "b", "scratch": "unet2-rf44"},
    EMTrainingArguments: {"output_dir": "b"},
    PredictArguments: {},
    PushArguments: {"repo_id": "lab/model"},
    PackageArguments: {},
    SimulateArguments: {"kind": "structures"},
    MeasureArguments: {},
    ImportArguments: {},
    ExportArguments: {},
    ReviewArguments: {},
    DemoArguments: {},
    ServeArguments: {},
    CorruptionStrength: {},
}
# Verb: the dataclass of its options, and what else it needs.
VERBS = {
    "pretrain": (PretrainArguments, ["--data", "a", "--output", "OUT"]),
    "finetune": (FinetuneArguments, ["denoising", "--data", "a", "--output", "OUT", "--scratch", "unet2-rf44"]),
    "predict": (PredictArguments, ["a.tif", "--model", "unet4-rf200", "--output", "OUT"]),
    "evaluate": (PredictArguments, ["--model", "unet4-rf200", "--data", "a"]),
    "push": (PushArguments, ["a", "lab/model"]),
    "push-dataset": (PushArguments, ["a", "lab/data"]),
    "export": (PackageArguments, ["unet4-rf200", "--output", "OUT"]),
    "measure": (MeasureArguments, ["a.png", "--output", "OUT"]),
    "simulate": (SimulateArguments, ["structures", "--output", "OUT"]),
    "demo": (DemoArguments, ["--output", "OUT"]),
    "app": (ServeArguments, []),
}
COMMANDS = typer.main.get_command(app).commands


def out_of_range(allowed: Range) -> list[float]:
    """Return a number on each side that a range does not take, where it has such a side."""
    found = [None if allowed.least is None else allowed.least - 1, allowed.above]
    found += [None if allowed.most is None else allowed.most + 1, allowed.below]
    return [number for number in found if number is not None]


def wrong_numbers() -> list[tuple[type, str, float]]:
    """Return every numeric setting of every dataclass with each kind of number that it cannot have."""
    found = []
    for owner in NEEDED:
        for known in settings_of(owner):
            kind = options_in(known.type)[0]
            kind = get_args(kind)[0] if get_origin(kind) is tuple else kind
            if kind not in (int, float):
                continue
            allowed = known.metadata["allowed"]
            numbers = out_of_range(allowed) if isinstance(allowed, Range) else []
            found += [(owner, known.name, number) for number in (*numbers, math.nan, math.inf)]
    return found


def shaped(owner: type, name: str, number: float):
    """Return a number as a setting takes it: alone, or in a tuple."""
    (kind,) = options_in(field_of(owner, name).type)
    if get_origin(kind) is not tuple:
        return number
    return (number,) if ... in get_args(kind) else (number, number)


@pytest.mark.parametrize(("owner", "name", "number"), wrong_numbers())
def test_a_number_that_a_setting_cannot_have_is_refused_by_name(owner, name, number):
    with pytest.raises(EMError, match=rf"^{name} is .*; expected "):
        owner(**{**NEEDED[owner], name: shaped(owner, name, number)})


def numeric_options() -> list[tuple[str, str, type]]:
    """Return every numeric option of every verb, as the command line itself knows them."""
    found = []
    for registered in app.registered_commands:
        verb = registered.name or registered.callback.__name__
        flags = {parameter.name: parameter.opts[0] for parameter in COMMANDS[verb].params}
        for name, parameter in inspect.signature(registered.callback).parameters.items():
            kind = options_in(get_args(parameter.annotation)[0])[0]
            kind = get_args(kind)[0] if get_origin(kind) is list else kind
            if kind in (int, float):
                found.append((verb, flags[name], kind))
    return found


def test_the_numeric_options_of_the_verbs_are_those_of_the_dataclasses():
    for verb, flag, _ in numeric_options():
        owner, _ = VERBS[verb]
        assert flag in [flag_of(known) for known in settings_of(owner)], (verb, flag)
    assert len(numeric_options()) > 35


@pytest.mark.parametrize(("verb", "flag", "kind"), numeric_options())
def test_a_wrong_number_on_the_command_line_is_one_line_and_exit_code_2(verb, flag, kind, emfm, tmp_path):  # noqa: F811
    owner, needed = VERBS[verb]
    known = next(known for known in settings_of(owner) if flag_of(known) == flag)
    allowed = known.metadata["allowed"]
    wrong = [str(number) for number in out_of_range(allowed)] if isinstance(allowed, Range) else []
    wrong += ["3"] if isinstance(allowed, OneOf) else []
    wrong += ["nan", "inf"] if kind is float else []
    assert wrong or flag == "--index"  # whether a stack has a slice is known when it is read
    arguments = [str(tmp_path / "out") if word == "OUT" else word for word in needed]
    for number in wrong:
        code, stdout, stderr = emfm(verb, *arguments, flag, number)
        assert code == 2 and stdout == ""
        assert stderr.startswith(f"emfm: {flag} is ") and "; expected " in stderr and stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", VERBS)
def test_every_setting_of_a_verb_is_an_option_with_its_default_and_help(verb):
    owner, _ = VERBS[verb]
    options = {parameter.name: parameter for parameter in COMMANDS[verb].params}
    shared = {"evaluate": ["tile"]}.get(verb, [known.name for known in settings_of(owner)])
    decided_by_recipe = RECIPES["paper"] if verb == "pretrain" else {}
    for known in settings_of(owner):
        if known.name not in shared or not known.metadata["on_command_line"]:
            continue
        option = options[known.name]
        assert known.metadata["help"] in option.help
        if not option.required and known.name not in decided_by_recipe and not isinstance(known.default, tuple):
            assert option.default == known.default, known.name
    hidden = {known.name for known in settings_of(owner) if not known.metadata["on_command_line"]}
    assert hidden == {PretrainArguments: {"strength"}, PushArguments: {"token"}}.get(owner, set())


def test_the_help_of_a_task_names_all_tasks(emfm):  # noqa: F811
    from emfm.tasks import TASKS

    text = " ".join(emfm("finetune", "--help")[1].split())
    assert all(name in text for name in TASKS)


def test_the_command_line_is_there_before_torch_is():
    code = "import sys, emfm.cli; sys.exit(bool({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("owner", "changes", "message"),
    [
        (FinetuneArguments, {"steps": "10"}, "steps is '10'; expected int"),
        (FinetuneArguments, {"steps": True}, "steps is True; expected int"),
        (FinetuneArguments, {"steps": 2.5}, "steps is 2.5; expected int"),
        (FinetuneArguments, {"learning_rate": "1e-3"}, "learning_rate is '1e-3'; expected float | None"),
        (FinetuneArguments, {"merge": 1}, "merge is 1; expected bool"),
        (FinetuneArguments, {"num_images": "all"}, r"num_images is 'all'; expected int \| None"),
        (FinetuneArguments, {"task": "segmentatoin"}, "task is 'segmentatoin'; expected one of segmentation, "),
        (FinetuneArguments, {"seed": 2**32}, "seed is 4294967296; expected at least 0 and at most 4294967295"),
        (PretrainArguments, {"data": "folder"}, r"data is 'folder'; expected tuple\[str, ...\]"),
        (PretrainArguments, {"strength": {"noise": 1}}, "expected emfm.data.corruptions.CorruptionStrength"),
        (PretrainArguments, {"weights": (1.0, math.nan)}, r"weights is \(1.0, nan\); expected a finite number"),
        (PretrainArguments, {"workers": -1}, "workers is -1; expected at least 0"),
        (EMTrainingArguments, {"crop": 8}, "crop is 8; expected at least 16"),
        (EMTrainingArguments, {"dataloader_num_workers": -1}, "dataloader_num_workers is -1; expected at least 0"),
        (CorruptionStrength, {"blur": (2.0, 1.0)}, r"blur is \(2.0, 1.0\); expected \(lowest, highest\)"),
        (CorruptionStrength, {"blur": (2.0,)}, r"expected tuple\[float, float\]"),
        (ServeArguments, {"port": 70_000}, "port is 70000; expected at least 1 and at most 65535"),
    ],
)
def test_a_value_of_another_type_or_name_is_refused(owner, changes, message):
    with pytest.raises(EMError, match=message):
        owner(**{**NEEDED[owner], **changes})


def test_settings_of_numpy_and_whole_numbers_for_a_rate_are_taken():
    import numpy as np

    arguments = FinetuneArguments(**NEEDED[FinetuneArguments], steps=np.int64(3), learning_rate=1)
    assert arguments.steps == 3 and arguments.learning_rate == 1


def test_both_ways_to_fine_tune_share_what_a_setting_means():
    for name in ("crop", "precision", "backbone_lr_scale", "freeze", "lora", "early_stopping", "intensity_jitter"):
        one, other = field_of(FinetuneArguments, name), field_of(EMTrainingArguments, name)
        assert one.default == other.default and one.metadata == other.metadata
    assert field_of(EMTrainingArguments, "seed").default == 42  # as in transformers


def test_a_recipe_gives_way_to_what_is_given():
    chosen = from_recipe("paper", {"adversarial": "hinge", "filters": None, "steps": 5})
    assert chosen == {**RECIPES["paper"], "adversarial": "hinge", "steps": 5}
    with pytest.raises(EMError, match="recipe is 'papre'; expected one of emfm, paper"):
        from_recipe("papre", {})


def test_a_setting_without_a_range_takes_any_finite_number():
    @dataclass
    class Settings:
        shift: float = setting(0.0, "Any.")

        def __post_init__(self):
            check_settings(self)

    assert Settings(-5.0).shift == -5.0
    with pytest.raises(EMError, match="shift is inf; expected a finite number"):
        Settings(math.inf)
