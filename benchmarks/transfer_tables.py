"""The tables and the sentences that say what the studies of `benchmarks.transfer` found."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from benchmarks.studies import Study
from benchmarks.transfer_cell import MARKS, TUNING_SEED, Cell
from benchmarks.transfer_report import Curve, Results, better, curves, describe, digits, merit, table

EARLY, LAST = 0.1, 1.0
BASELINE = "random"


def verdict(cell: Cell, curve: Curve, random: Curve) -> list[str]:
    """Return what is wrong with a start beside random weights; nothing where it keeps what pretraining promises.

    It shall be better at 10 % of the steps, and at the end not worse by more than the larger of the
    two spreads.
    """
    early, last = MARKS.index(EARLY), MARKS.index(LAST)
    wrong = []
    if not better(cell.task, curve.mean[early], random.mean[early]):
        wrong.append("not above at 10 %")
    distance = abs(curve.mean[last] - random.mean[last])
    if better(cell.task, random.mean[last], curve.mean[last]) and distance > max(
        curve.spread[last], random.spread[last]
    ):
        wrong.append("below at the end")
    return wrong


def compared(study: Study, results: Results) -> list[tuple[Cell, Curve, Curve]]:
    """Return each kind of run of a study that does not start from random weights, with its curve and the random one."""
    found = curves(study.cells(results), results)
    pairs = []
    for cell, curve in found.items():
        if cell.start != BASELINE:
            random = found[replace(cell, start=BASELINE, part="all")]
            pairs.append((cell, curve, random))
    return pairs


def reached(curve: Curve, random: Curve) -> float | None:
    """Return the share of the steps after which a start is as good as random weights are at the end."""
    return curve.reaches(float(random.mean[-1]))


def comparison(study: Study, results: Results, shares: Sequence[float] = (EARLY, LAST)) -> str:
    """Return a row for each problem and network: random weights and the other start after some shares of the steps."""
    rows = []
    for cell, curve, random in compared(study, results):
        share = reached(curve, random)
        figures = [part.at(mark) for mark in shares for part in (random, curve)]
        wrong = ", ".join(verdict(cell, curve, random)) or "yes"
        after = "never" if share is None else f"{share:.0%}"
        trivial = f"{curve.trivial:{digits(cell.task)}}"
        rows.append([describe(cell), cell.generator, trivial, *figures, after, wrong])
    name = "Dice" if study.problems[0].task == "segmentation" else "L1"
    marks = [heading for share in shares for heading in (f"{name} at {share:.0%}: random", "pretrained")]
    ends = ["random's end reached after", "as promised"]
    return table(["data", "network", f"{name} without a network", *marks, *ends], rows)


def summary(study: Study, results: Results) -> str:
    """Return one sentence for each network: in how many problems the promise is kept, and how much sooner."""
    sentences = []
    for generator in study.generators:
        pairs = [pair for pair in compared(study, results) if pair[0].generator == generator]
        wrong = [verdict(*pair) for pair in pairs]
        early = sum("not above at 10 %" not in found for found in wrong)
        late = sum("below at the end" not in found for found in wrong)
        shares = [reached(curve, random) for _, curve, random in pairs]
        steps = np.mean([1.0 if share is None else share for share in shares])
        never = sum(share is None for share in shares)
        text = (
            f"`{generator}`: above random weights at 10 % of the steps in {early} of {len(pairs)} "
            f"problems, not below them at the end in {late}; it reaches what they end with after "
            f"{steps:.0%} of the steps on average"
        )
        sentences.append(text + (f" (never in {never}, counted as all steps)." if never else "."))
    return "\n".join(f"- {sentence}" for sentence in sentences)


def averages(study: Study, results: Results) -> str:
    """Return a row for each start, and for what else a study varies, averaged over its problems, at every mark."""
    found = curves(study.cells(results), results)
    groups: dict[str, list[Cell]] = {}
    for cell in found:
        groups.setdefault(", ".join(label_of(study, cell).values()), []).append(cell)
    rows = []
    for key, cells in groups.items():
        members = [found[cell] for cell in cells]
        mean = np.mean([curve.mean for curve in members], axis=0)
        spread = np.sqrt(np.mean([curve.spread**2 for curve in members], axis=0))
        shares = [reached(found[cell], found[replace(cell, start=BASELINE, part="all")]) for cell in cells]
        steps = np.mean([1.0 if share is None else share for share in shares])
        form = digits(cells[0].task)
        figures = [f"{value:{form}} ± {s:{form}}" for value, s in zip(mean, spread, strict=True)]
        rows.append([key, *figures, f"{steps:.0%}"])
    return table(["start", *(f"{share:.0%}" for share in MARKS), "random's end reached after"], rows)


def labels_needed(study: Study, results: Results) -> str:
    """Return for each problem how many labelled images do for a start what all of them do for random weights."""
    sentences = []
    cells = study.cells(results)
    found = curves(cells, results)
    for problem in study.problems:
        mine = {cell: curve for cell, curve in found.items() if (cell.task, cell.data) == (problem.task, problem.data)}
        every = next(results[c]["images"] for c in cells if c.num_images is None and c.data == problem.data)
        wanted = next(curve for cell, curve in mine.items() if cell.start == BASELINE and cell.num_images is None)
        enough = [
            cell.num_images or every
            for cell, curve in mine.items()
            if cell.start != BASELINE and not better(problem.task, wanted.mean[-1], curve.mean[-1])
        ]
        start = f"{min(enough)} of {every} images are enough" if enough else f"not even all {every} images are enough"
        sentences.append(f"- `{problem.data}`: {start} for the pretrained network to equal random weights with all.")
    return "\n".join(sentences)


def cost(results: Results) -> str:
    """Return how long all runs took and what they computed in, in a sentence."""
    hours = sum(result["seconds"] for result in results.values()) / 3600
    precisions = Counter(result["precision"] for result in results.values())
    parts = " and ".join(f"{count} in {name}" for name, count in sorted(precisions.items()))
    return f"{len(results)} runs, {parts}: {hours:.1f} hours of one processor core in all."


def label_of(study: Study, cell: Cell) -> dict[str, str]:
    """Return what tells a kind of run from the others of its problem, by field: start, and what else varies."""
    parts = {"start": "pretrained" if cell.start == "zoo" else cell.start}
    if len(study.generators) > 1:
        parts["generator"] = cell.generator
    if len(study.images) > 1:
        count = "all" if cell.num_images is None else str(cell.num_images)
        parts["num_images"] = f"{count} image" if count == "1" else f"{count} images"
    if len(study.parts) > 1:
        parts["part"] = cell.part
    return parts


def panel_of(study: Study, cell: Cell) -> str:
    """Return the title of the panel in which a study's picture shows a kind of run."""
    return "\n".join([describe(cell), *(text for name, text in label_of(study, cell).items() if name in study.panels)])


def line_of(study: Study, cell: Cell) -> str:
    """Return what a kind of run is called within its panel."""
    return ", ".join(text for name, text in label_of(study, cell).items() if name not in study.panels)


def rates(results: Results) -> str:
    """Return a row for each task, network and start: the figure on validation at each rate, mean over the data sets."""
    tuning = [cell for cell in results if cell.seed == TUNING_SEED]
    found = sorted({cell.learning_rate for cell in tuning})
    kinds = dict.fromkeys((cell.task, cell.generator, cell.start) for cell in tuning if cell.protocol == "strong")
    rows = []
    for task, generator, start in sorted(kinds, key=lambda kind: (kind[0] != "segmentation", *kind)):
        runs: dict[float, list[float]] = {rate: [] for rate in found}
        for cell in tuning:
            if (cell.protocol, cell.task, cell.generator, cell.start) == ("strong", task, generator, start):
                runs[cell.learning_rate].append(results[cell]["curve"][-1][merit(task)])
        figures = [f"{np.mean(values):{digits(task)}}" if values else "-" for values in runs.values()]
        rows.append([f"{task} ({'Dice' if merit(task) == 'dice' else 'L1'})", generator, start, *figures])
    return table(["task", "network", "start", *(f"{rate:g}" for rate in found)], rows)
