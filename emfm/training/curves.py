"""Learning curves as a picture."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from emfm.files import write_atomically


def plot_curves(curves: dict[str, list[dict[str, Any]]], path: str | Path, figure_of_merit: str = "dice") -> None:
    """Draw validation curves, one line a start, into a PNG file.

    Args:
        curves: name of the start: entries of a trainer's `curve`.
        path: where the picture goes.
        figure_of_merit: which metric of the entries: "dice" is shown from 0 to 1, others from 0 up.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot([e["step"] for e in curve], [e[figure_of_merit] for e in curve], marker="o", markersize=4, label=name)
    axes.set(xlabel="training steps", ylabel=f"validation {figure_of_merit}")
    axes.set_ylim(0, 1 if figure_of_merit == "dice" else None)
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=120))
