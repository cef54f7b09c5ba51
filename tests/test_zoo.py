"""The zoo: its cards and lists are rendered from facts, and every figure in them is one that a command measures."""

import dataclasses
import importlib
import json
import re
import shlex
import shutil
import statistics
import tomllib
from pathlib import Path

import pytest
import typer
from huggingface_hub import ModelCard
from test_cli import emfm, last_line  # noqa: F401  (a fixture)

from benchmarks.studies import chosen_rate
from benchmarks.transfer import RESULTS
from benchmarks.transfer_cell import weights_digest
from benchmarks.transfer_report import read_results
from emfm import EMError, list_models
from emfm.backbones import has_norms
from emfm.cli import app
from emfm.hub.privacy import check_private
from emfm.hub.zoo import model_info, read_facts
from emfm.loading.model_files import check_checksums
from emfm.loading.names import BUNDLED
from emfm.pretraining.arguments import PretrainArguments
from model_cards.card import zoo_card, zoo_page
from model_cards.facts import CARDS, ROOT, load_facts
from model_cards.render import rendered

MODELS = list_models()
METRICS = [
    pytest.param(info, metric, id=f"{info.name}-{metric.setting}-{metric.name}")
    for info in MODELS
    for metric in info.metrics
]


def test_every_rendered_file_is_what_rendering_gives_today():
    files = rendered()
    assert {path.name for path in files} == {"models.md", "DATA.md", "README.md", "facts.json"}
    stale = [str(path) for path, text in files.items() if (ROOT / path).read_text(encoding="utf-8") != text]
    assert not stale, f"run python -m model_cards.render: {stale}"


def test_every_folder_of_weights_has_its_facts_and_its_card_changes_no_checksum():
    assert {info.name for info in MODELS} == {path.parent.name for path in BUNDLED.glob("*/config.json")}
    for info in MODELS:
        check_checksums(BUNDLED / info.name)
        check_private(BUNDLED / info.name)


@pytest.mark.parametrize(("info", "metric"), METRICS)
def test_a_figure_is_recomputed_from_the_results_that_its_command_writes(info, metric):
    _, _, module, *words = shlex.split(metric.command)
    arguments = importlib.import_module(module).parse(words)  # exits where an option does not exist
    assert arguments.results == Path(metric.result)
    lines = [json.loads(line) for line in (ROOT / metric.result).read_text().splitlines()]
    rates = read_results(ROOT / RESULTS)
    if module == "benchmarks.restoration":
        assert arguments.model == [info.name]
        mine = [line for line in lines if line["model"] == info.name and line["draw"] < arguments.draws]
        values = [line[metric.name] for line in mine]
        against = {"damaged input": [line[f"{metric.name}_input"] for line in mine]}
        assert f"{mine[0]['crops']} crops" in metric.n and str(len(values)) in metric.repeats
    elif module == "benchmarks.denoising":
        values, against = denoised(info, metric, lines, arguments)
    elif module == "benchmarks.enlarging":
        values, against = enlarged(info, metric, lines, arguments)
    else:
        assert arguments.generator == [info.name]
        images, step, steps = map(int, re.findall(r"\d+", metric.setting))
        data, degrade = re.fullmatch(r"(\S+?)(?: \((\S+)\))?", metric.data).groups()
        wanted = {"generator": info.name, "task": metric.task, "data": data, "degrade": degrade, "num_images": images}
        wanted |= {"steps": steps, "split": "test", "protocol": "strong", "part": "all"}
        same = [line for line in lines if all(line[name] == value for name, value in wanted.items())]
        by_start = {
            start: [
                next(entry[metric.name] for entry in line["curve"] if entry["step"] == step)
                for line in same
                if line["start"] == start and line["learning_rate"] == chosen_rate(metric.task, info.name, start, rates)
            ]
            for start in ("zoo", "random")
        }
        values, against = by_start["zoo"], {"random weights": by_start["random"]}
        against["no network"] = [same[0]["trivial"][metric.name]]
        assert metric.n == f"{same[0]['n']} test micrographs" and metric.repeats == f"{len(values)} seeds"
    assert len(values) >= 3
    assert metric.value == pytest.approx(statistics.fmean(values))
    assert metric.spread == pytest.approx(statistics.stdev(values))
    assert metric.compared.keys() == against.keys()
    for name, (value, spread) in metric.compared.items():
        assert value == pytest.approx(statistics.fmean(against[name]))
        assert spread == (pytest.approx(statistics.stdev(against[name])) if len(against[name]) > 1 else None)


def denoised(info, metric, lines, arguments):
    """Return the mean PSNR of every draw of the noise, of a model and of what it is compared with."""
    assert arguments.model == [info.name]
    noise = "lines" if "lines" in metric.setting else metric.setting.split()[0]
    means = {}
    for name in (info.name, *arguments.method):
        same = [line for line in lines if (line["method"], line["noise"]) == (name, noise)]
        weights = weights_digest(BUNDLED / info.name)
        same = [line for line in same if name != info.name or line["weights"] == weights]
        draws = sorted({line["draw"] for line in same})
        means[name] = [statistics.fmean(line["psnr"] for line in same if line["draw"] == draw) for draw in draws]
        assert len(same) / len(draws) == int(metric.n.split()[0])
    return means.pop(info.name), means


def enlarged(info, metric, lines, arguments):
    """Return the mean figure of every set, of a model and of what it is compared with."""
    assert arguments.model == [info.name]
    weights = weights_digest(BUNDLED / info.name)
    means = {}
    for name in dict.fromkeys(line["method"] for line in lines if line["weights"] in (None, weights)):
        same = [line for line in lines if line["method"] == name and line["weights"] in (None, weights)]
        sets = dict.fromkeys(line["set"] for line in same)
        means[name] = [statistics.fmean(line[metric.name] for line in same if line["set"] == one) for one in sets]
        assert len(same) == int(metric.n.split()[0])
    return means.pop(info.name), means


READY = [info for info in MODELS if info.task]
GENERATORS = [info for info in MODELS if not info.task]


@pytest.mark.parametrize("info", READY, ids=lambda info: info.name)
def test_a_model_that_is_used_as_it_is_was_trained_by_its_recipe(info):
    recipe = tomllib.loads((ROOT / "hub_scripts" / "recipes" / "ready" / f"{info.name}.toml").read_text())
    assert recipe.pop("model") == info.finetuning["start"] and recipe.pop("simulated") == ["atomic-stem"]
    assert set(recipe.pop("data")) <= {source.name for source in info.data}
    assert {name: info.finetuning[name] for name in recipe} == recipe
    assert info.command.endswith(f"--only {info.name}")


@pytest.mark.parametrize("info", GENERATORS, ids=lambda info: info.name)
def test_the_command_of_a_recipe_gives_the_settings_that_the_run_stored(info):
    program, verb, *words = shlex.split(info.command)
    assert program == "emfm"
    command = typer.main.get_command(app).commands[verb]
    params = command.make_context(verb, words).params
    fields = {name: value for name, value in params.items() if name in PretrainArguments.__dataclass_fields__}
    recipe = PretrainArguments(**{**fields, "data": tuple(params["data"]), "weights": None}).recipe()
    stored = info.pretraining
    chosen = {"norm"} if has_norms(stored["generator"]) else set()
    for name in recipe.keys() & stored.keys() - {"strength", "norm"} | chosen:
        assert recipe[name] == stored[name], name
    for name in recipe["strength"].keys() & stored["strength"].keys():
        assert recipe["strength"][name] == stored["strength"][name], name


@pytest.mark.parametrize("info", MODELS, ids=lambda info: info.name)
def test_a_card_holds_every_figure_with_its_spread_and_parses_as_the_hub_reads_it(info):
    text = (BUNDLED / info.name / "README.md").read_text(encoding="utf-8")
    data = ModelCard(text).data
    assert (data.library_name, data.license, data.pipeline_tag) == ("emfm", info.license, "image-to-image")
    assert {"electron-microscopy", "emfm"} <= set(data.tags)
    assert len(data.eval_results) == len(info.metrics)
    for result in data.eval_results:
        told = (result.metric_type, result.task_name, result.dataset_name)
        same = [m for m in info.metrics if told == (m.name, m.task, m.data) and result.metric_name.endswith(m.setting)]
        (metric,) = same
        assert result.metric_value == pytest.approx(metric.value, abs=0.006)
        assert result.metric_args["spread"] == pytest.approx(metric.spread, abs=0.006)
        assert f"{result.metric_value:g}"[:5] in text and metric.result in text
    for metric in info.metrics:
        if "no network" in metric.compared:
            sign = -1 if metric.name == "l1" else 1
            useless = sign * metric.value <= sign * metric.compared["no network"][0]
            assert useless == (f"{metric.data} ({metric.setting})" in _warnings(text)), metric
    for fact in (*info.limits, *info.not_tested, *info.intended_use, info.pixel_sizes, info.summary):
        assert fact in text
    assert all(source.license in text and source.what in text for source in info.data)


def _warnings(text: str) -> str:
    """Return what a card says of settings in which the model is of no use."""
    return " ".join(re.findall(r"\*\*Not better than no network\*\* in: (.*)", text))


def new_model(tmp_path: Path, changes: dict[str, str] | None = None) -> tuple[Path, Path]:
    """Write a model of another name that differs in its facts alone: one folder, one file."""
    folder, facts = tmp_path / "unet4-new", tmp_path / "unet4-new.toml"
    shutil.copytree(BUNDLED / "unet4-rf200", folder)
    text = (CARDS / "unet4-rf200.toml").read_text()
    for old, new in (changes or {}).items():
        assert old in text
        text = text.replace(old, new)
    facts.write_text(text)
    return facts, folder


def test_adding_a_model_takes_a_folder_of_weights_and_a_file_of_facts(tmp_path):
    facts, folder = new_model(tmp_path)
    text = facts.read_text()
    facts.write_text("measured = []\npixel_size_range = [0.5, 4]\n" + text[: text.index("[[measured]]")])
    info = load_facts(facts, folder)
    assert (info.name, info.parameters, info.metrics, info.bundled) == ("unet4-new", 130_677, [], False)
    card = zoo_card(info)
    assert 'model_id = "unet4-new"' in card and "Nothing was measured." in card
    assert ModelCard(card).data.eval_results is None
    assert "0.5 to 4 nm" in zoo_page([info]) and "not to be had: set EMFM_ZOO" in zoo_page([info])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--draws 5": "--draws 5 --fast"}, "does not take"),
        ({"--draws 5": "--draws 6"}, "nothing was measured for .*'draw': 5"),
        ({"benchmarks.restoration": "benchmarks.guess"}, "does not run benchmarks.restoration"),
        ({"--model unet4-rf200": "--model unet4-rf200-w16"}, "the command measures unet4-rf200-w16"),
        ({'result = "benchmarks/results/restoration.jsonl"': 'result = "benchmarks/results/transfer.jsonl"'}, "writes"),
        ({'command = "python': 'by = "python'}, "has a kind"),
        ({"limits = [": "boundaries = ["}, "missing .*limits.*unknown .*boundaries"),
        ({"[[measured]]": "pixel_size_range = [1, 2]\nvalue = 0.9\n[[measured]]"}, "unknown .*value"),
    ],
)
def test_a_figure_that_no_command_measures_and_a_fact_that_is_missing_are_errors(tmp_path, changes, message):
    facts, folder = new_model(tmp_path, changes)
    facts, folder = facts.rename(tmp_path / "unet4-rf200.toml"), folder.rename(tmp_path / "unet4-rf200")
    with pytest.raises(EMError, match=message):
        load_facts(facts, folder)


def test_damaged_facts_are_an_error_that_names_the_file(tmp_path):
    folder = tmp_path / "unet4-rf200"
    shutil.copytree(BUNDLED / "unet4-rf200", folder)
    stored = json.loads((folder / "facts.json").read_text())
    for broken in ("{", json.dumps({**stored, "metrics": [{"name": "dice"}]}), json.dumps({**stored, "seeds": 3})):
        (folder / "facts.json").write_text(broken)
        with pytest.raises(EMError, match=r"facts\.json is damaged"):
            read_facts(folder)
    (folder / "facts.json").unlink()
    with pytest.raises(EMError, match="no model of the zoo"):
        read_facts(folder)
    with pytest.raises(EMError, match=r"the zoo has no model 'unet9'; it has .*hrnet-w18-small, .*unet2"):
        model_info("unet9")


def test_a_model_whose_weights_lie_on_the_hub_alone_is_listed_with_its_place(tmp_path, monkeypatch):
    folder = tmp_path / "unet4-rf424"
    shutil.copytree(BUNDLED / "unet4-rf200", folder)
    stored = json.loads((folder / "facts.json").read_text()) | {"name": "unet4-rf424"}
    (folder / "facts.json").write_text(json.dumps(stored))
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr("emfm.hub.zoo.BUNDLED", tmp_path)
    monkeypatch.setattr("emfm.loading.names.BUNDLED", tmp_path)
    monkeypatch.setenv("EMFM_ZOO", "lab")
    (info,) = list_models()
    assert (info.bundled, info.place) == (False, "Hub: lab/unet4-rf424")


def test_list_and_info_show_the_facts(emfm, monkeypatch):  # noqa: F811
    code, stdout, _ = emfm("list", "--json")
    listed = json.loads(stdout)
    assert code == 0 and [entry["name"] for entry in listed] == [info.name for info in MODELS]
    wanted = {field.name for field in dataclasses.fields(MODELS[0])} | {"task", "place", "data_licenses"}
    assert all(entry.keys() == wanted for entry in listed)
    code, stdout, _ = emfm("list")
    assert code == 0
    told = " ".join(stdout.split())  # lines are broken to fit a terminal
    assert max(map(len, stdout.splitlines())) <= 100
    for info in MODELS:
        shown = f"{info.name} {info.parameters:,} {info.receptive_field} px", "not known package", "Janelia"
        for part in (*shown, *map(str, info.headlines)):
            assert part in told
    monkeypatch.setattr("emfm.tasks.load_model", None)  # the facts of the zoo need no weights
    code, stdout, _ = emfm("info", "unet4-rf200-w16", "--json")
    facts = json.loads(stdout)
    assert code == 0 and wanted | {"model", "class", "generator", "norm"} == facts.keys()
    (same,) = [entry for entry in listed if entry["name"] == "unet4-rf200-w16"]
    assert facts["metrics"] == same["metrics"] and facts["norm"] == "instance"
    code, stdout, _ = emfm("info", "unet4-rf200-w16")
    measured = model_info("unet4-rf200-w16").metrics
    assert code == 0 and all(str(metric) in stdout for metric in measured) and measured
    assert "emfm pretrain --data fib25_medulla" in stdout


def test_a_model_may_have_its_weights_on_the_hub_alone(tmp_path):
    facts, folder = new_model(tmp_path)
    text = facts.read_text()
    facts.write_text("measured = []\nsize = 1000\nparameters = 250\n" + text[: text.index("[[measured]]")])
    (folder / "model.safetensors").unlink()
    info = load_facts(facts, folder)
    assert (info.size, info.parameters, info.receptive_field) == (1000, 250, 200)
    facts.write_text(facts.read_text().replace("size = 1000\n", ""))
    with pytest.raises(EMError, match="has no weights, so its facts need size"):
        load_facts(facts, folder)
