"""Simulated images a second: drawn alone by one thread, and written to a folder as `emfm simulate` does.

Example: python -m benchmarks.simulate_speed --count 100 --size 256
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from emfm.simulate import KINDS
from emfm.simulate.folder import write_simulated_folder
from emfm.simulate.nanoparticles import simulate_nanoparticles
from emfm.simulate.stem import simulate_stem

DRAW: dict[str, Callable] = {"nanoparticles": simulate_nanoparticles, "atomic-stem": simulate_stem}


def rate(work: Callable[[int], object], count: int, repeats: int) -> float:
    """Return the median number of images a second; `work(repeat)` makes `count` of them."""
    rates = []
    for repeat in range(repeats):
        started = time.perf_counter()
        work(repeat)
        rates.append(count / (time.perf_counter() - started))
    return median(rates)


def measure(kind: str, count: int, size: int, repeats: int) -> dict[str, float]:
    """Return images a second of one kind, drawn and written."""
    shape = (size, size)
    DRAW[kind](shape, 0)  # what is computed once is not counted
    drawn = rate(lambda repeat: [DRAW[kind](shape, repeat * count + i) for i in range(count)], count, repeats)
    with tempfile.TemporaryDirectory() as temporary:
        written = rate(
            lambda repeat: write_simulated_folder(kind, Path(temporary) / str(repeat), count, shape, repeat),
            count,
            repeats,
        )
    return {"drawn_per_second": drawn, "written_per_second": written}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = {kind: measure(kind, arguments.count, arguments.size, arguments.repeats) for kind in KINDS}
    if arguments.json:
        sys.stdout.write(json.dumps(figures, indent=1) + "\n")
        return
    for kind, found in figures.items():
        shown = ", ".join(f"{value:.0f} {name.removesuffix('_per_second')}" for name, value in found.items())
        sys.stdout.write(f"{kind}: {shown} a second\n")


if __name__ == "__main__":
    main()
