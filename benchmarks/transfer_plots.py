"""Curves of `benchmarks.transfer` with bands of one standard deviation: a panel a problem, a colour a start."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.transfer_cell import MARKS, Cell
from benchmarks.transfer_report import Curve, merit
from emfm.files import write_atomically

# Okabe and Ito's colours, which people with any colour vision tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
RANDOM_COLOUR, RANDOM_STYLES = "#7F7F7F", ("-", "--", ":")


def plot(
    found: dict[Cell, Curve], panel: Callable[[Cell], str], line: Callable[[Cell], str], path: Path, columns: int = 3
) -> None:
    """Draw curves into a PNG file.

    Args:
        found: by kind of run, see `benchmarks.transfer_report.curves`.
        panel: title of the panel that a kind belongs to.
        line: what the kind is called within its panel; those that start with "random" are drawn in
            grey.
        path: of the file.
        columns: panels side by side.
    """
    panels: dict[str, dict[str, Curve]] = {}
    for cell, curve in found.items():
        panels.setdefault(panel(cell), {})[line(cell)] = curve
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    grey = [name for name in names if name.startswith("random")]
    looks = {name: (RANDOM_COLOUR, style) for name, style in zip(grey, RANDOM_STYLES, strict=False)}
    coloured = [name for name in names if name not in grey]
    looks |= {name: (colour, "-") for name, colour in zip(coloured, COLOURS, strict=False)}
    rows = -(-len(panels) // columns)
    width = min(columns, len(panels))
    figure = Figure(figsize=(3.4 * width, 2.7 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, width, squeeze=False)
    for axes, (title, curves) in zip(grid.flat, panels.items(), strict=False):
        for name, curve in curves.items():
            _draw(axes, curve, name, *looks[name])
        trivial = next(iter(curves.values())).trivial
        axes.axhline(trivial, color="black", linestyle=(0, (1, 3)), linewidth=1, label="without a network")
        axes.set_title(title, fontsize=9)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), fontsize=9, frameon=False)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110, format="png"))


def _draw(axes: Axes, curve: Curve, name: str, colour: str, style: str) -> None:
    places = range(len(MARKS))  # evenly: what matters happens in the first steps
    axes.plot(places, curve.mean, style, color=colour, marker="o", markersize=3, linewidth=1.5, label=name)
    axes.fill_between(places, curve.mean - curve.spread, curve.mean + curve.spread, color=colour, alpha=0.18, lw=0)
    axes.set_xticks(places, [f"{share:.0%}" for share in MARKS], fontsize=7)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_ylabel("Dice" if merit(curve.task) == "dice" else "L1", fontsize=8)
    axes.grid(alpha=0.25)
