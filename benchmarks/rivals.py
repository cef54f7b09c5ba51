"""emfm's networks beside what a user would take instead: quality, and what it costs, in one run.

Everybody learns from the same images and crops with the same seeds, and is measured alike on test micrographs. Each
network's learning rate, and a forest's size of leaf, are chosen on validation micrographs, by runs of a seed of their
own with three images of the sets `--tuning-sets`, one value for all sets. A run is one line of JSON in the results
file, appended when it is done; a stopped benchmark goes on where it was. Seconds are those of the processor: run it
alone all the same, for a budget of minutes is measured by the clock.

Examples:
    python -m benchmarks.rivals --data DOWNSTREAM
    python -m benchmarks.rivals --data DOWNSTREAM --regimes steps --images 3 --rivals hrnet-w18-small smp-imagenet
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.rival_cell import FOREST, REGIMES, Rival, RivalCell, build, run_rival, tuned_as
from benchmarks.rival_networks import register
from benchmarks.rival_report import RivalResults, cost_table, quality_tables, read_rivals
from benchmarks.studies import RESTORATION, SEEDS, SEGMENTATION, Problem
from benchmarks.transfer_cell import TUNING_SEED, Places, examples_of
from benchmarks.transfer_report import better, merit
from emfm import list_models
from emfm.errors import EMError

RESULTS = Path("benchmarks/results/rivals.jsonl")
# That which emfm recommends for segmentation, and a network of each of its own two families.
RECOMMENDED = [info.name for info in list_models() if "segmentation" in info.recommended_for]
OWN = tuple(dict.fromkeys([*RECOMMENDED, "unet4-rf200-w16", "hrnet-w18-small"]))
RIVALS = {
    **{name: Rival(f"`{name}`, pretrained", name, "zoo") for name in OWN},
    "smp-imagenet": Rival("SMP U-Net, EfficientNet-Lite0, ImageNet weights", "smp-unet-lite0", "imagenet"),
    "smp-random": Rival("SMP U-Net, EfficientNet-Lite0, random weights", "smp-unet-lite0", "random"),
    FOREST: Rival("random forest on multi-scale features", FOREST, "random"),
    "hrnet-imagenet": Rival("timm's HRNet-W18-small, ImageNet weights", "hrnet-w18-small", "imagenet"),
    "unet-random": Rival("`unet4-rf200-w16`, random weights", "unet4-rf200-w16", "random"),
    "dncnn": Rival("DnCNN, random weights", "dncnn", "random"),
    "nafnet": Rival("NAFNet of the U-Net's size, random weights", "nafnet-w16", "random"),
}
RESTORERS = ("dncnn", "nafnet", "unet-random", *OWN)
# Among these validation chooses.
RATES, LEAVES = (3e-4, 1e-3, 3e-3), (1, 10, 100)
PROBLEMS = {
    **{problem.data: problem for problem in SEGMENTATION},
    **{f"{problem.task}-{problem.data}": problem for problem in RESTORATION},
}
# Three images of emps_particles teach nobody anything, so no rate shows there.
TUNING_SETS = ("vnc_mitochondria", "alumina_pt", *(f"{p.task}-{p.data}" for p in RESTORATION[:3]))
NUM_TUNING = 3


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the settings of a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = partial(parser.add_argument, nargs="+")
    parser.add_argument("--data", type=Path, required=True, help="folder with one labelled folder per data set")
    add("--regimes", choices=REGIMES, default=list(REGIMES), help="how long everybody may learn")
    add("--sets", choices=PROBLEMS, default=list(PROBLEMS), help="a data set, or TASK-SET for restoration")
    add("--rivals", choices=RIVALS, default=list(RIVALS))
    add("--images", type=_count, default=[1, 3, None], help="labelled images; numbers, or all")
    add("--augment", type=float, default=[0.0, 1.0], help="strengths of the augmentation; 1 is about nnU-Net's")
    add("--seeds", type=int, default=list(SEEDS))
    add("--tuning-sets", choices=PROBLEMS, default=list(TUNING_SETS), help="on these, rates are chosen by validation")
    parser.add_argument("--untuned", action="store_true", help="the middle rate for all, without the runs that choose")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(argv)


def _count(text: str) -> int | None:
    return None if text == "all" else int(text)


def takes(name: str, problem: Problem, augment: float) -> bool:
    """Tell whether a rival is one for a problem, with this strength of the augmentation."""
    if problem.task != "segmentation":
        return name in RESTORERS and augment == 0
    return name not in ("dncnn", "nafnet") and (name != FOREST or augment == 0)


def tuning(name: str, task: str, regime: str, arguments: argparse.Namespace) -> dict[float, list[RivalCell]]:
    """Return the runs that choose a rival's rate for a task, by rate."""
    regime = tuned_as(regime)
    problems = [PROBLEMS[key] for key in arguments.tuning_sets if PROBLEMS[key].task == task]
    if not problems:
        raise EMError(f"--tuning-sets has no set of {task}: on which shall rates be chosen?")
    return {
        rate: [
            RivalCell(task, p.data, p.degrade, name, regime, 0.0, NUM_TUNING, rate, TUNING_SEED, "validation")
            for p in problems
        ]
        for rate in (LEAVES if name == FOREST else RATES)
    }


def chosen(runs: dict[float, list[RivalCell]], results: RivalResults) -> float:
    """Return the rate that is best on average; each problem's figures are divided by their mean first."""
    scores = dict.fromkeys(runs, 0.0)
    for same in zip(*runs.values(), strict=True):
        found = [results[cell][merit(cell.task)] for cell in same]
        for cell, value in zip(same, found, strict=True):
            scores[cell.tuned] += value / (sum(found) or 1.0)
    task = next(iter(runs.values()))[0].task
    best, *others = runs
    for rate in others:
        best = rate if better(task, scores[rate], scores[best]) else best
    return best


def cells(arguments: argparse.Namespace, names: Iterable[str], results: RivalResults) -> Iterator[RivalCell]:
    """Yield the runs that are reported: one seed of everything first, so that a stopped run is worth something."""
    problems = [PROBLEMS[key] for key in arguments.sets]
    parts = product(arguments.regimes, arguments.images, arguments.augment, arguments.seeds, problems, names)
    for regime, images, augment, seed, problem, name in parts:
        if takes(name, problem, augment):
            runs = tuning(name, problem.task, regime, arguments)
            rate = list(runs)[len(runs) // 2] if arguments.untuned else chosen(runs, results)
            fields = problem.task, problem.data, problem.degrade, name, regime, augment
            yield RivalCell(*fields, images, rate, seed, "test")


def available(arguments: argparse.Namespace) -> list[str]:
    """Return the rivals that can be had; of each that cannot, one line says why."""
    places, found = Places(arguments.data, Path()), []
    for name in arguments.rivals:
        why = _why_not(name, places, PROBLEMS[arguments.sets[0]])
        if why is None:
            found.append(name)
        else:
            sys.stderr.write(f"{name} is left out: {why}\n")
    return found


@cache
def _why_not(name: str, places: Places, problem: Problem) -> str | None:
    """Return why a rival cannot be had here, None if it can."""
    rival = RIVALS[name]
    cell = RivalCell(problem.task, problem.data, problem.degrade, name, "steps", 0.0, 1, RATES[0], 0, "test")
    try:
        if rival.generator == FOREST:
            import sklearn  # noqa: F401
        else:
            build(cell, rival, examples_of(cell, places)[0])
    except (EMError, ImportError) as error:
        return str(error)
    return None


def run(asked: Iterable[RivalCell], places: Places, path: Path, results: RivalResults) -> None:
    """Run those that the results lack, one after the other; each is added and written when it is done."""
    missing = [cell for cell in dict.fromkeys(asked) if cell not in results]
    for cell in tqdm(missing, unit="run"):
        found = run_rival(cell, RIVALS[cell.rival], places)
        with path.open("a") as file:
            file.write(json.dumps(found) + "\n")
        results[cell] = found


def benchmark(arguments: argparse.Namespace) -> RivalResults:
    """Choose rates, run what is asked for, and return all results.

    Raises:
        EMError: data do not fit; what was done is kept.
    """
    register()
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    results, places = read_rivals(arguments.results), Places(arguments.data, Path())
    names = available(arguments)
    problems = [PROBLEMS[key] for key in arguments.sets]
    tasks = {(name, p.task) for name, p in product(names, problems) if takes(name, p, min(arguments.augment))}
    for regime, (name, task) in product([] if arguments.untuned else arguments.regimes, sorted(tasks)):
        for runs in tuning(name, task, regime, arguments).values():
            run(runs, places, arguments.results, results)
    run(cells(arguments, names, results), places, arguments.results, results)
    return results


def tables(results: RivalResults) -> str:
    """Return what is known, as the pages show it."""
    if not any(cell.seed != TUNING_SEED for cell in results):
        return "No run is committed yet."
    labels: dict[str, Any] = {name: rival.label for name, rival in RIVALS.items()}
    return quality_tables(results, labels, OWN) + "\n\n" + cost_table(results, labels)


def main() -> int:
    """Run the benchmark and print its tables; returns the exit code."""
    try:
        sys.stdout.write(tables(benchmark(parse())) + "\n")
    except EMError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
