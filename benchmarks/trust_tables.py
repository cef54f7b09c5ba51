"""The tables of `benchmarks.trust`, from its results."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

RESULTS = Path(__file__).parent / "results" / "trust.jsonl"
COSTS = "costs"


def table(found: list[dict[str, Any]]) -> str:
    """Return all tables as Markdown, of the lines of a results file."""
    sets = [line for line in found if line["set"] != COSTS]
    costs = [line for line in found if line["set"] == COSTS]
    parts = [calibration(sets), uncertainty(sets), domain(sets), changed(sets), *map(cost, costs)]
    return "\n".join(parts)


def read() -> list[dict[str, Any]]:
    """Return the committed results."""
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def calibration(sets: list[dict[str, Any]]) -> str:
    """Return calibration error and Dice of each set, with and without offsets and temperature."""
    rows = []
    for line in sets:
        found = line["calibration"]
        offsets = found["class_offsets"] or []
        shown = ", ".join(f"{value - offsets[0]:+.1f}" for value in offsets[1:]) or "none"
        rows.append([line["set"], str(line["images"]), *_both(lambda *keys, found=found: found[keys[0]][keys[1]])])
        rows[-1] += [f"{found['temperature']:.2f}", shown]
    means = _both(lambda *keys: mean(line["calibration"][keys[0]][keys[1]] for line in sets))
    headings = ["set", "test micrographs", "error without", "with", "Dice without", "with", "temperature"]
    return _markdown([*headings, "offsets against the first class"], [*rows, ["**mean**", "", *means, "", ""]])


def _both(value: Callable[[str, str], float]) -> list[str]:
    return [f"{value(way, figure):.3f}" for figure in ("error", "dice") for way in ("without", "with")]


def uncertainty(sets: list[dict[str, Any]]) -> str:
    """Return how well each kind of uncertainty finds wrong pixels, mean and worst of the sets."""
    rows = []
    for kind in dict.fromkeys(kind for line in sets for kind in line["uncertainty"]):
        known = [value for line in sets if (value := line["uncertainty"].get(kind)) is not None]
        rows.append([kind, str(len(known)), f"{mean(known):.3f}", f"{min(known):.3f}"])
    return _markdown(["passes: measure", "sets", "AUROC, mean of the sets", "worst set"], rows)


def domain(sets: list[dict[str, Any]]) -> str:
    """Return how well others' micrographs are told from those of each set."""
    rows = []
    for line in sets:
        found = line["domain"]
        shares = [f"{found[key]:.0%}" for key in ("at_5_percent", "flagged", "false_alarms")]
        rows.append([line["set"], f"{found['auroc']:.3f}", *shares])
    keys = ("at_5_percent", "flagged", "false_alarms")
    means = [f"{mean(line['domain'][key] for line in sets):.0%}" for key in keys]
    rows.append(["**mean**", f"{mean(line['domain']['auroc'] for line in sets):.3f}", *means])
    headings = ["fine-tuned on", "AUROC", "others flagged at 5 % false alarms", "others flagged as shipped"]
    return _markdown([*headings, "own test micrographs flagged"], rows)


def changed(sets: list[dict[str, Any]]) -> str:
    """Return how often each change is flagged for the right reason, mean of the sets."""
    rows = []
    for name in sets[0]["changed"] if sets else ():
        shares = [mean(line["changed"][name][key] for line in sets) for key in ("flagged", "named", "first")]
        rows.append([name, *(f"{share:.0%}" for share in shares)])
    return _markdown(["own test micrographs", "flagged", "right reason named", "named first"], rows)


def cost(line: dict[str, Any]) -> str:
    """Return processor seconds and memory of a prediction with and without each check."""
    rows = []
    for side, ways in line["rows"].items():
        alone = ways["prediction alone"]["cpu_seconds"]
        for name, figures in ways.items():
            seconds = figures["cpu_seconds"]
            row = [f"{side} px, {name}", f"{seconds:.2f}", f"{seconds / alone:.2f}", f"{figures['peak_mib']:.0f}"]
            rows.append(row)
    return _markdown([line["generator"], "processor seconds", "times", "peak MiB over base"], rows)


def _markdown(headings: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (headings, ["---"] * len(headings), *rows)]
    return "\n".join(lines) + "\n"
