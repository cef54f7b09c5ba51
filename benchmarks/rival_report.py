"""Results of `benchmarks.rivals`: read, gathered over seeds, and printed as tables."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rival_cell import REGIMES, RivalCell, tuned_as
from benchmarks.transfer_cell import TUNING_SEED
from benchmarks.transfer_report import ANY_RATE, ANY_SEED, better, describe, digits, merit, table

RivalResults = dict[RivalCell, dict[str, Any]]
NONE = "-"  # where nothing was measured
ANYBODY, ANY_SET = "", ""


@dataclass(frozen=True)
class Seeds:
    """One kind of run over its seeds.

    Attributes:
        values: figure of merit of each.
        trivial: that of the answer without learning.
        seconds: of training, on average.
        tuned: its rate, or size of leaf, as text; "not chosen" where no validation run chose it.
    """

    values: np.ndarray
    trivial: float
    seconds: float
    tuned: str

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return float(self.values.mean())

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds; 0 of a single one."""
        return float(self.values.std(ddof=1)) if len(self.values) > 1 else 0.0


Found = dict[RivalCell, Seeds]


def read_rivals(path: Path) -> RivalResults:
    """Return every line of a results file by its cell; an empty dictionary where there is no file."""
    names = [field.name for field in fields(RivalCell)]
    lines = path.read_text().splitlines() if path.exists() else []
    return {RivalCell(**{name: line[name] for name in names}): line for line in map(json.loads, lines)}


def gathered(results: RivalResults) -> Found:
    """Return the reported runs over their seeds, by the cell without seed and rate; a rate's later run counts."""
    seeds: dict[RivalCell, dict[int, dict[str, Any]]] = {}
    for cell, result in results.items():
        if cell.seed != TUNING_SEED:
            kind = replace(cell, seed=ANY_SEED, tuned=ANY_RATE)
            seeds.setdefault(kind, {})[cell.seed] = result
    tried: dict[tuple[str, str, str], set[float]] = {}
    for cell in results:
        if cell.seed == TUNING_SEED:
            tried.setdefault((cell.rival, cell.task, cell.regime), set()).add(cell.tuned)
    return {
        kind: _seeds(list(runs.values()), tried.get((kind.rival, kind.task, tuned_as(kind.regime)), set()))
        for kind, runs in seeds.items()
    }


def _seeds(runs: Sequence[dict[str, Any]], tried: set[float]) -> Seeds:
    values = np.array([run[merit(run["task"])] for run in runs])
    trivial, seconds = (float(np.mean([run[key] for run in runs])) for key in ("trivial", "seconds"))
    taken = {run["tuned"] for run in runs}
    chosen = taken <= tried and len(tried) > len(taken)  # a choice has another to choose from
    tuned = ", ".join(sorted(f"{value:g}" for value in taken))
    return Seeds(values, trivial, seconds, tuned if chosen else f"{tuned}, not chosen")


def quality_tables(results: RivalResults, labels: Mapping[str, str], own: Sequence[str]) -> str:
    """Return a table for each task, regime, number of images and augmentation: rivals by sets, and who is ahead.

    Args:
        results: of runs, some of which may be missing.
        labels: what each rival is called.
        own: names of emfm's networks, the recommended one first.
    """
    found = gathered(results)
    parts: dict[RivalCell, None] = {}
    for kind in sorted(found, key=_order):
        task = kind.task if kind.task == "segmentation" else "restoration"
        parts[replace(kind, task=task, data=ANY_SET, degrade=None, rival=ANYBODY)] = None
    return "\n\n".join(_part(part, found, labels, own) for part in parts)


def _order(kind: RivalCell) -> tuple[Any, ...]:
    images = np.inf if kind.num_images is None else kind.num_images
    return kind.task != "segmentation", list(REGIMES).index(kind.regime), images, kind.augment


def _part(part: RivalCell, found: Found, labels: Mapping[str, str], own: Sequence[str]) -> str:
    """Return one table, with a line above it and one below."""
    mine = {kind: runs for kind, runs in found.items() if _belongs(kind, part)}
    sets = list(dict.fromkeys(replace(kind, rival=ANYBODY) for kind in mine))
    rows = [
        [
            "one class, or the input",
            *(f"{_trivial(mine, where):{digits(where.task)}}" for where in sets),
            NONE,
            NONE,
            NONE,
        ]
    ]
    for name in labels:
        cells = [mine.get(replace(where, rival=name)) for where in sets]
        if any(cells):
            rows.append([labels[name], *_row(sets, cells)])
    images = "all images" if part.num_images is None else f"{part.num_images} image{'s' * (part.num_images > 1)}"
    varied = f", augmentation {part.augment:g}" if part.augment else ""
    figure = "Dice" if part.task == "segmentation" else "L1"
    above = f"**{REGIMES[part.regime].title}, {images}{varied}**: test {figure}."
    rival = [name for name in labels if name not in own]
    sentences = [_ahead(sets, mine, name, rival) for name in own[:1]]
    shown = table(["", *map(describe, sets), "mean", "seconds of one core", "rate or leaf"], rows)
    return "\n\n".join([above, shown, *filter(None, sentences)])


def _belongs(kind: RivalCell, part: RivalCell) -> bool:
    same = (kind.regime, kind.num_images, kind.augment) == (part.regime, part.num_images, part.augment)
    return same and (kind.task == "segmentation") == (part.task == "segmentation")


def _trivial(mine: Found, where: RivalCell) -> float:
    return next(runs.trivial for kind, runs in mine.items() if replace(kind, rival=ANYBODY) == where)


def _row(sets: Sequence[RivalCell], cells: Sequence[Seeds | None]) -> list[str]:
    shown = []
    for where, runs in zip(sets, cells, strict=True):
        form = digits(where.task)
        text = NONE if runs is None else f"{runs.mean:{form}} ± {runs.spread:{form}}"
        shown.append(text if runs is None or len(runs.values) > 1 else f"{runs.mean:{form}} (one seed)")
    known = [runs for runs in cells if runs is not None]
    whole = len(known) == len(cells)
    mean = f"{np.mean([runs.mean for runs in known]):{digits(sets[0].task)}}" if whole else NONE
    tuned = "; ".join(dict.fromkeys(runs.tuned for runs in known))
    return [*shown, mean, f"{np.mean([runs.seconds for runs in known]):.0f}", tuned]


def _ahead(sets: Sequence[RivalCell], mine: Found, name: str, rivals: Iterable[str]) -> str:
    """Return in a sentence how far a network is ahead of the best rival, and where it is below one."""
    own = {where: mine[kind] for where in sets if (kind := replace(where, rival=name)) in mine}
    whole = {
        rival: np.mean([mine[replace(where, rival=rival)].mean for where in sets])
        for rival in rivals
        if all(replace(where, rival=rival) in mine for where in sets)
    }
    if len(own) < len(sets) or not whole:
        return ""
    task, sign = sets[0].task, 1 if merit(sets[0].task) == "dice" else -1
    best = max(whole, key=lambda rival: sign * whole[rival])
    gain = sign * (np.mean([runs.mean for runs in own.values()]) - whole[best])
    below = [where for where in sets if any(_below(own[where], mine.get(replace(where, rival=r)), task) for r in whole)]
    text = f"`{name}` minus the best rival on average, `{best}`: {gain:+{digits(task)}}."
    return text + (f" Below a rival by more than the spread: {', '.join(map(describe, below))}." if below else "")


def _below(own: Seeds, rival: Seeds | None, task: str) -> bool:
    if rival is None:
        return False
    return better(task, rival.mean, own.mean) and abs(rival.mean - own.mean) > max(own.spread, rival.spread)


def cost_table(results: RivalResults, labels: Mapping[str, str]) -> str:
    """Return a row for each rival: weights, seconds of a step in each regime, and of a megapixel predicted."""
    segmented = [result for cell, result in results.items() if cell.task == "segmentation"]
    rows = []
    for name, label in labels.items():
        runs = [result for result in segmented if result["rival"] == name]
        if runs:
            steps = [
                _median(run.get("step") for run in runs if run["regime"] == regime) for regime in ("steps", "converged")
            ]
            size = f"{runs[0]['size']:,}" if "size" in runs[0] else NONE
            precision = ", ".join(sorted({run["precision"] for run in runs}))
            rows.append([label, size, precision, *steps, _median(run["predict"] for run in runs)])
    headings = ["", "weights", "learns in", "s a step (4 x 128 px)", "s a step (8 x 192 px)", "s a megapixel predicted"]
    return table(headings, rows)


def _median(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.median(known):.3g}" if known else NONE
