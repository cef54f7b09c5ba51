"""From a model's TOML file, its run and the committed results to its facts; every figure is computed here."""

import importlib
import json
import shlex
import tomllib
from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from safetensors import safe_open

from benchmarks.transfer_cell import weights_digest
from emfm.config import EMFoundationConfig
from emfm.errors import EMError
from emfm.hub.zoo import DataSource, Metric, ModelInfo, zoo_id
from emfm.loading.model_files import RECORD
from emfm.loading.names import BUNDLED, bundled_names
from emfm.modeling import EMFoundation
from emfm.pretraining.card import pretrain_command

ROOT = Path(__file__).parents[1]
CARDS = ROOT / "model_cards"
SOURCES = CARDS / "data_sources.toml"
READY = ROOT / "hub_scripts" / "recipes" / "ready"
READY_COMMAND = "python hub_scripts/finetune_bundled.py --data FOLDER --only {name}"
# What the simulated micrographs are called among the sources, by the kind that `emfm simulate` knows.
SIMULATED = {"atomic-stem": "simulated_columns"}
TEXTS = ("summary", "license", "pixel_sizes", "intended_use", "limits", "not_tested", "measured")
OPTIONAL = ("pixel_size_range", "size", "parameters", "recommended_for")


def card_names() -> list[str]:
    """Return the names of all models that have a file of facts."""
    return sorted(path.stem for path in CARDS.glob("*.toml") if path != SOURCES)


def load_facts(path: Path, folder: Path) -> ModelInfo:
    """Return the facts of one model.

    Args:
        path: its TOML file, named like the model.
        folder: with `config.json` and, unless the TOML file gives `size` and `parameters`, the
            weights.

    Raises:
        EMError: a fact is missing or unknown, or a figure is not what its command measures.
    """
    name, told = path.stem, tomllib.loads(path.read_text(encoding="utf-8"))
    missing, unknown = set(TEXTS) - set(told), set(told) - {*TEXTS, *OPTIONAL}
    if missing or unknown:
        raise EMError(f"{path}: missing {sorted(missing)}, unknown {sorted(unknown)}; expected {', '.join(TEXTS)}")
    config = EMFoundationConfig.from_pretrained(folder)
    run, tuned = config.pretraining or {}, _finetuning(folder)
    weights = folder / "model.safetensors"
    here = weights.is_file()
    if not here and not {"size", "parameters"} <= set(told):
        raise EMError(f"{path}: {folder} has no weights, so its facts need size (bytes) and parameters")
    return ModelInfo(
        name=name,
        parameters=_count_parameters(weights) if here else told["parameters"],
        receptive_field=_receptive_field(config),
        size=weights.stat().st_size if here else told["size"],
        pixel_size_range=_pixel_size_range(path, told, config),
        data=_sources(path, run["data"] if tuned is None else _ready_sources(name, run)),
        command=pretrain_command(run) if tuned is None else READY_COMMAND.format(name=name),
        hours=(run["seconds"] if tuned is None else tuned["seconds"]) / 3600,
        metrics=[metric for measured in told.pop("measured") for metric in _metrics(path, name, measured)],
        pretraining=run,
        finetuning=tuned,
        recommended_for=told.get("recommended_for", []),
        bundled=name in bundled_names(),
        hub_id=zoo_id(name),
        **{text: told[text] for text in TEXTS if text != "measured"},
    )


def zoo_facts() -> list[ModelInfo]:
    """Return the facts of every model in `model_cards/`, smallest first.

    Raises:
        EMError: a folder of weights has no file of facts, or the other way round.
    """
    folders = {path.parent.name for path in BUNDLED.glob("*/config.json")}
    alone = folders ^ set(card_names())
    if alone:
        raise EMError(f"{', '.join(sorted(alone))}: a model needs a folder in emfm/weights and a file in model_cards")
    found = [load_facts(CARDS / f"{name}.toml", BUNDLED / name) for name in card_names()]
    return sorted(found, key=lambda info: info.parameters)


def _finetuning(folder: Path) -> dict[str, Any] | None:
    record = folder / RECORD
    return json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None


def _ready_sources(name: str, run: dict[str, Any]) -> list[str]:
    """Return what a model that is used as it is has seen, in pretraining and after."""
    recipe = tomllib.loads((READY / f"{name}.toml").read_text(encoding="utf-8"))
    simulated = [SIMULATED[kind] for kind in recipe["simulated"]]
    return list(dict.fromkeys([*run["data"], *recipe["data"], *simulated]))


def _receptive_field(config: EMFoundationConfig) -> int:
    with torch.device("meta"):  # no memory is taken for weights
        return EMFoundation(config).receptive_field


def _count_parameters(weights: Path) -> int:
    """Count trained numbers from the file's header; batch norm's running statistics are not among them."""
    with safe_open(weights, framework="np") as file:
        trained = [key for key in file.keys() if ".running_" not in key and not key.endswith("num_batches_tracked")]  # noqa: SIM118
        return sum(prod(file.get_slice(key).get_shape()) for key in trained)


def _pixel_size_range(path: Path, told: dict[str, Any], config: EMFoundationConfig) -> tuple[float, float] | None:
    given, stored = told.get("pixel_size_range"), config.pixel_size_range
    if given and stored and list(given) != list(stored):
        raise EMError(f"{path}: pixel_size_range is {given}, but the weights were saved with {list(stored)}")
    found = stored or given
    return (float(found[0]), float(found[1])) if found else None


def _sources(path: Path, names: Sequence[str]) -> list[DataSource]:
    known = tomllib.loads(SOURCES.read_text(encoding="utf-8"))
    missing = [name for name in names if name not in known]
    if missing:
        raise EMError(f"{path.stem} was trained on {', '.join(missing)}, of which {SOURCES.name} says nothing")
    return [DataSource(name=name, **{"pixel_size": None, **known[name]}) for name in names]


def _metrics(path: Path, name: str, measured: dict[str, str]) -> list[Metric]:
    """Return the figures of one benchmark, from the lines of its results that its command asks for."""
    if set(measured) != {"kind", "command", "result"} or measured["kind"] not in KINDS:
        raise EMError(f"{path}: each [[measured]] has a kind ({' or '.join(KINDS)}), a command and a result")
    words = shlex.split(measured["command"])
    module = f"benchmarks.{measured['kind']}"
    if words[:3] != ["python", "-m", module]:
        raise EMError(f"{path}: '{measured['command']}' does not run {module}")
    benchmark = importlib.import_module(module)
    try:
        arguments = benchmark.parse(words[3:])
    except SystemExit as error:
        raise EMError(f"{path}: {module} does not take '{' '.join(words[3:])}'") from error
    if arguments.results.as_posix() != measured["result"]:
        raise EMError(f"{path}: the command writes {arguments.results}, not {measured['result']}")
    lines = [json.loads(line) for line in (ROOT / measured["result"]).read_text().splitlines()]
    cells = [_result(path, cell, lines) for cell in benchmark.cells(arguments)]
    strangers = {cell.get("model", cell.get("generator", name)) for cell in cells} - {name}
    strangers |= set(getattr(arguments, "model", None) or [name]) - {name}
    if strangers:
        raise EMError(f"{path}: the command measures {', '.join(sorted(strangers))}")
    bound = [cell for cell in cells if cell.get("start") == "zoo" or cell.get("method") == name]
    if {cell["weights"] for cell in bound} - {weights_digest(BUNDLED / name)}:
        raise EMError(f"{path}: {measured['result']} was measured with other weights than those bundled: run it again")
    origin = {"command": measured["command"], "result": measured["result"]}
    return [Metric(**fields, **origin) for fields in KINDS[measured["kind"]](cells)]


def _result(path: Path, cell: dict[str, Any], lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the line that holds what was measured for a cell."""
    settings = {key: value for key, value in cell.items() if key != "seeds"}
    for line in lines:
        if all(line.get(key) == value for key, value in settings.items()):
            return line
    raise EMError(f"{path}: nothing was measured for {settings}; run the command")


def _restoration(cells: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    for name in ("l1", "psnr", "ssim"):
        value, spread = _statistics([cell[name] for cell in cells])
        yield {
            "name": name,
            "value": value,
            "spread": spread,
            "repeats": f"{len(cells)} draws of crops and damage",
            "n": f"{cells[0]['crops']} crops of {cells[0]['micrographs']} held-out micrographs",
            "task": "restoration",
            "data": "held out of the pretraining data",
            "setting": "as pretrained",
            "compared": {"damaged input": _statistics([cell[f"{name}_input"] for cell in cells])},
        }


def _transfer(cells: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Return the figure of merit of each problem after a tenth of the steps and after all of them."""
    for problem in dict.fromkeys((cell["task"], cell["data"], cell["degrade"]) for cell in cells):
        runs = [cell for cell in cells if (cell["task"], cell["data"], cell["degrade"]) == problem]
        first, name = runs[0], "dice" if problem[0] == "segmentation" else "l1"
        for share in (0.1, 1.0):
            by_start: dict[str, list[float]] = {}
            for run in runs:
                entry = next(entry for entry in run["curve"] if entry["share"] == share)
                by_start.setdefault(run["start"], []).append(entry[name])
            value, spread = _statistics(by_start["zoo"])
            yield {
                "name": name,
                "value": value,
                "spread": spread,
                "repeats": f"{len(by_start['zoo'])} seeds",
                "n": f"{first['n']} test micrographs",
                "task": first["task"],
                "data": first["data"] + (f" ({first['degrade']})" if first["degrade"] else ""),
                "setting": f"{first['num_images']} images, step {round(share * first['steps'])} of {first['steps']}",
                "compared": {
                    "random weights": _statistics(by_start["random"]),
                    "no network": (first["trivial"][name], None),
                },
            }


def _denoising(cells: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Return the PSNR at each noise: mean over micrographs, and its spread over draws of the noise."""
    mine, *others = dict.fromkeys(cell["method"] for cell in reversed(cells))
    for noise in dict.fromkeys(cell["noise"] for cell in cells):
        by_method: dict[str, list[float]] = {}
        for method in (mine, *reversed(others)):
            draws: dict[int, list[float]] = {}
            for cell in cells:
                if (cell["method"], cell["noise"]) == (method, noise):
                    draws.setdefault(cell["draw"], []).append(cell["psnr"])
            by_method[method] = [mean(values) for values in draws.values()]
        value, spread = _statistics(by_method.pop(mine))
        count = sum((cell["method"], cell["noise"], cell["draw"]) == (mine, noise, 0) for cell in cells)
        sets = len({cell["set"] for cell in cells})
        yield {
            "name": "psnr",
            "value": value,
            "spread": spread,
            "repeats": f"{len({cell['draw'] for cell in cells if cell['method'] == mine})} draws of the noise",
            "n": f"{count} test micrographs",
            "task": "denoising",
            "data": f"{sets} sets",
            "setting": "20 electrons a pixel, unsteady lines" if noise == "lines" else f"{noise} electrons a pixel",
            "compared": {method: _statistics(values) for method, values in by_method.items()},
        }


def _enlarging(cells: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Return PSNR and SSIM beside interpolations: mean over the sets, and their spread."""
    *others, mine = dict.fromkeys(cell["method"] for cell in cells)
    sets, count = dict.fromkeys(cell["set"] for cell in cells), sum(cell["method"] == mine for cell in cells)
    for name in ("psnr", "ssim"):
        found = {
            method: _statistics(
                [mean(c[name] for c in cells if (c["method"], c["set"]) == (method, data)) for data in sets]
            )
            for method in (*others, mine)
        }
        value, spread = found.pop(mine)
        yield {
            "name": name,
            "value": value,
            "spread": spread,
            "repeats": f"{len(sets)} sets",
            "n": f"{count} test micrographs",
            "task": "super-resolution",
            "data": f"{len(sets)} sets",
            "setting": "2 x 2 pixels joined",
            "compared": found,
        }


def _statistics(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and standard deviation; None of one value."""
    return mean(values), stdev(values) if len(values) > 1 else None


KINDS = {"restoration": _restoration, "transfer": _transfer, "denoising": _denoising, "enlarging": _enlarging}
