"""What pretraining is worth: networks fine-tuned from several starts, measured on test micrographs while they learn.

Runs the named studies of `benchmarks.studies`. Every run is one line of JSON in the results file,
appended when it is done; a stopped benchmark goes on where it was, and studies share their runs.

Example:
    python -m benchmarks.transfer --data DOWNSTREAM segmentation restoration

Two protocols. `paper`: batch norm, Adam at a constant 2e-4, cross-entropy alone, as in
arXiv:2402.18286. `strong`: emfm's defaults, the same for every start, the rate chosen for each
network and start on validation micrographs by runs of a seed of their own.
"""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.studies import STUDIES, Study
from benchmarks.transfer_cell import Cell, Places, run_cell
from benchmarks.transfer_report import Results, read_results

RESULTS = Path("benchmarks/results/transfer.jsonl")


def run_cells(cells: Iterable[Cell], places: Places, path: Path, processes: int) -> Results:
    """Run the cells that the results file lacks, in parallel; returns all results by cell.

    Raises:
        EMError: of the first cell that cannot be run; those that were done are kept.
    """
    results = read_results(path)
    asked = [cell for cell in dict.fromkeys(cells) if cell not in results]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool, tqdm(total=len(asked), unit="run") as bar:
        waiting = {pool.submit(run_cell, cell, places): cell for cell in asked}
        try:
            for done in as_completed(waiting):
                found = done.result()
                with path.open("a") as file:
                    file.write(json.dumps(found) + "\n")
                results[waiting[done]] = found
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return results


def studies(arguments: argparse.Namespace) -> list[Study]:
    """Return the studies that are asked for, of the networks and starts that are asked for."""
    return [
        replace(
            study,
            generators=tuple(arguments.generator or study.generators),
            starts=tuple(arguments.start or study.starts),
        )
        for study in (STUDIES[name] for name in arguments.studies)
    ]


def cells(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return what decides each run that is reported, as in the results file."""
    results = read_results(arguments.results)
    return [asdict(cell) for study in studies(arguments) for cell in study.cells(results)]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the settings of a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", choices=STUDIES, metavar="STUDY", help=f"out of {', '.join(STUDIES)}")
    parser.add_argument("--data", type=Path, required=True, help="folder with one labelled folder per data set")
    parser.add_argument("--generator", action="append", help="these networks alone; by default the study's")
    parser.add_argument("--start", action="append", help="these starts alone; by default the study's")
    parser.add_argument("--weights", type=Path, default=Path("runs/starts"), help="folder START/GENERATOR of models")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, each on one thread")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(argv)


def main() -> None:
    """Run the studies."""
    arguments = parse()
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    places = Places(arguments.data, arguments.weights)
    for study in studies(arguments):
        sys.stderr.write(f"{study.title}\n")
        tuned = run_cells(study.tuning(), places, arguments.results, arguments.processes)
        run_cells(study.cells(tuned), places, arguments.results, arguments.processes)


if __name__ == "__main__":
    main()
