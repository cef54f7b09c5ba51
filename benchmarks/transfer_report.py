"""Results of `benchmarks.transfer`: read, gathered over seeds, and printed as tables."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.transfer_cell import MARKS, Cell

Results = dict[Cell, dict[str, Any]]
MERIT = {"segmentation": "dice"}  # every other task: l1
ANY_SEED, ANY_RATE = -1, 0.0


def read_results(path: Path) -> Results:
    """Return every line of a results file by its cell; an empty dictionary where there is no file."""
    names = [field.name for field in fields(Cell)]
    lines = path.read_text().splitlines() if path.exists() else []
    results = [json.loads(line) for line in lines]
    return {Cell(**{name: result[name] for name in names}): result for result in results}


def merit(task: str) -> str:
    """Return the figure by which a task is judged: Dice (higher is better) or L1 (lower is better)."""
    return MERIT.get(task, "l1")


def better(task: str, first: float, second: float) -> bool:
    """Tell whether the first figure of merit is above the second in quality."""
    return first > second if merit(task) == "dice" else first < second


def digits(task: str) -> str:
    """Return the format of a task's figure of merit."""
    return ".3f" if merit(task) == "dice" else ".4f"


@dataclass(frozen=True)
class Curve:
    """The figure of merit of one kind of run over its steps.

    Attributes:
        task: whose figure of merit it is.
        values: (seeds, marks), at the shares `MARKS` of the steps.
        trivial: what the answer without a network has: the best single class, the input itself or
            its enlargement.
    """

    task: str
    values: np.ndarray
    trivial: float

    @property
    def mean(self) -> np.ndarray:
        """Mean over the seeds at each mark."""
        return self.values.mean(axis=0)

    @property
    def spread(self) -> np.ndarray:
        """Standard deviation over the seeds at each mark; 0 of a single one."""
        return self.values.std(axis=0, ddof=1) if len(self.values) > 1 else np.zeros(self.values.shape[1])

    def at(self, share: float) -> str:
        """Return mean and spread at a mark, as text."""
        index = MARKS.index(share)
        form = digits(self.task)
        return f"{self.mean[index]:{form}} ± {self.spread[index]:{form}}"

    def reaches(self, value: float) -> float | None:
        """Return the share of the steps after which the mean is as good as a value, linear between marks; or None."""
        sign = 1 if merit(self.task) == "dice" else -1
        gains = sign * (self.mean - value)
        if gains[0] >= 0:
            return 0.0
        for index in range(1, len(MARKS)):
            if gains[index] >= 0:
                way = gains[index - 1] / (gains[index - 1] - gains[index])
                return float(MARKS[index - 1] + way * (MARKS[index] - MARKS[index - 1]))
        return None


def kind(cell: Cell) -> Cell:
    """Return the cell without its seed and rate: what all runs of one row of a table share."""
    return replace(cell, seed=ANY_SEED, learning_rate=ANY_RATE)


def curves(cells: Iterable[Cell], results: Results) -> dict[Cell, Curve]:
    """Gather the runs of some cells over their seeds, by kind and in the order of the cells."""
    gathered: dict[Cell, list[dict[str, Any]]] = {}
    for cell in cells:
        gathered.setdefault(kind(cell), []).append(results[cell])
    return {row: _curve(merit(row.task), row, runs) for row, runs in gathered.items()}


def _curve(name: str, row: Cell, runs: list[dict[str, Any]]) -> Curve:
    values = np.array([[entry[name] for entry in run["curve"]] for run in runs])
    return Curve(row.task, values, float(np.mean([run["trivial"][name] for run in runs])))


def beside(row: Cell, start: str, found: dict[Cell, Curve]) -> Curve | None:
    """Return the curve of the same kind of run from another start."""
    return found.get(replace(row, start=start))


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def describe(cell: Cell) -> str:
    """Return data set and task of a cell in words."""
    return cell.data if cell.task == "segmentation" else f"{cell.task}, {cell.data}"
