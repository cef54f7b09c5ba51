"""The tables of `benchmarks.strokes`, from its results."""

from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean, median, pstdev
from typing import Any

from emfm.hub.card import table

RESULTS = Path(__file__).parent / "results" / "strokes.jsonl"
REACHED = 0.95  # of the Dice that random places reach in the end: what both ways are asked for
Line = dict[str, Any]


def tables(found: list[Line]) -> dict[str, str]:
    """Return all tables as Markdown, by the name of their place in the documentation."""
    return {"strokes": courses(found), "strokes-sets": sets(found), "strokes-suggest": suggestions(found)}


def courses(found: list[Line]) -> str:
    """Return the Dice of both methods after each step, mean of the sets, and seconds."""
    lines, trained = _of(found, "strokes"), _of(found, "trained")
    if not lines:
        return "Not measured."
    rows = []
    for index, step in enumerate(lines[0]["course"]):
        head, forest = (_mean(lines, lambda line, i=index, m=m: line["course"][i][m]) for m in ("head", "forest"))
        number = str(step.get("round", 0 if index == 0 else "-"))
        after = _mean(trained, lambda line, n=number: line["dice"].get(n)) if number in _rounds(trained) else None
        pixels = median(line["course"][index]["pixels"] for line in lines)
        ahead = f"{head[0] - forest[0]:+.3f}"
        rows.append([_named(step), f"{pixels:.0f}", _figure(head), _figure(forest), ahead, _figure(after)])
    headings = ["strokes", "labelled pixels", "head", "random forest", "head ahead by", "after *Train*"]
    return f"{table(headings, rows)}\n\n{_seconds(lines, trained)}"


def sets(found: list[Line]) -> str:
    """Return how far the head is ahead on each set: after the first strokes, and in the end."""
    lines, rows = _of(found, "strokes"), []
    for name in dict.fromkeys(line["set"] for line in lines):
        own = [line for line in lines if line["set"] == name]
        row = [name]
        for index in _shown(own[0]["course"]):
            head, forest = (_mean(own, lambda line, i=index, m=m: line["course"][i][m]) for m in ("head", "forest"))
            row.append(f"{_figure(head)} / {_figure(forest)}")
        rows.append(row)
    if not rows:
        return "Not measured."
    return table(["set", *(_named(lines[0]["course"][index]) for index in _shown(lines[0]["course"]))], rows)


def suggestions(found: list[Line]) -> str:
    """Return how many strokes each way to choose their places takes to a given Dice."""
    lines = _of(found, "suggest")
    if not lines:
        return "Not measured."
    names = dict.fromkeys(line["set"] for line in lines)
    rows = [_compared(name, [line for line in lines if line["set"] == name]) for name in names]
    rows.append(_compared("**mean of the sets**", lines))
    headings = [
        "set",
        "Dice asked for",
        "strokes, suggested",
        "strokes, random",
        "share",
        "in the end, suggested",
        "random",
    ]
    return table(headings, rows)


WAYS = ("suggested", "random")


def _compared(name: str, lines: list[Line]) -> list[str]:
    """Return a row: what is asked for, the strokes that each way takes, and where both end."""
    course = {way: [fmean(line[way][i] for line in lines) for i in range(len(lines[0][way]))] for way in WAYS}
    wanted = REACHED * max(course["random"])
    needed = {way: _needed(course[way], wanted) for way in WAYS}
    ends = [f"{course[way][-1]:.3f}" for way in WAYS]
    if needed["suggested"] is None:
        return [name, f"{wanted:.3f}", "not reached", f"{needed['random']:.1f}", "", *ends]
    shown = [f"{needed[way]:.1f}" for way in WAYS]
    return [name, f"{wanted:.3f}", *shown, f"{needed['suggested'] / needed['random']:.0%}", *ends]


def _needed(course: list[float], wanted: float) -> float | None:
    """Return after how many strokes a course reaches a figure, between two of them by a line."""
    for number, value in enumerate(course):
        if value >= wanted:
            before = course[number - 1] if number else value
            part = (wanted - before) / (value - before) if value > before else 1.0
            return max(number - 1 + part, 0.5)
    return None


def _of(found: Iterable[Line], part: str) -> list[Line]:
    return [line for line in found if line["part"] == part]


def _rounds(trained: list[Line]) -> set[str]:
    return set(trained[0]["dice"]) if trained else set()


def _mean(lines: list[Line], value: Callable[[Line], float]) -> tuple[float, float | None]:
    """Return the mean over the sets, and the spread over the seeds of that mean; one has none."""
    seeds = sorted({line["seed"] for line in lines})
    means = [fmean(value(line) for line in lines if line["seed"] == seed) for seed in seeds]
    return fmean(means), pstdev(means) if len(means) > 1 else None


def _figure(found: tuple[float, float | None] | None) -> str:
    if found is None:
        return ""
    return f"{found[0]:.3f}" if found[1] is None else f"{found[0]:.3f} ± {found[1]:.3f}"


def _named(step: dict[str, Any]) -> str:
    return f"{step['share']:.1%} of the pixels" if "share" in step else f"0.1% and {step['round']} corrections"


def _shown(course: list[dict[str, Any]]) -> list[int]:
    return [index for index, step in enumerate(course) if "share" in step or step["round"] in (5, 10)]


def _seconds(lines: list[Line], trained: list[Line]) -> str:
    each = {
        way: [median(line["seconds"][way][i] / line["megapixels"] for line in lines) for i in range(2)]
        for way in ("head", "forest")
    }
    text = "; ".join(f"{way} {first:.1f} s, then {following:.2f} s" for way, (first, following) in each.items())
    after = median(second for line in trained for second in line["seconds"]) if trained else None
    more = "" if after is None else f" *Train*: {after:.0f} s."
    return f"Processor seconds of one core for a megapixel, until the first answer and until the next: {text}.{more}"
