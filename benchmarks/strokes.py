"""A head that is fitted to strokes beside a random forest, with a simulated annotator who corrects the largest error.

On a cut-out of one training micrograph of each of six labelled sets strokes are painted along the
middle of true regions, over 0.1 %, 0.3 % and 1 % of its pixels. From those of 0.1 % the annotator
then corrects, ten times, what the head has most wrong. After each step both methods learn from the
same strokes, and are measured on cut-outs of test micrographs that neither has seen. `trained`
fine-tunes the network from the strokes; `suggest` lets either the head or chance choose where the
next stroke is painted. A part of a set and a seed is a line of JSON in the results file; what is
there is not measured again. FOLDER holds one labelled folder per set. Example:

    python -m benchmarks.strokes --data FOLDER --parts strokes suggest
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.json_lines import read_lines
from benchmarks.strokes_cell import PARTS, Cell
from benchmarks.strokes_tables import RESULTS, tables
from benchmarks.studies import SEGMENTATION

SETS = tuple(problem.data for problem in SEGMENTATION)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the settings of a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the labelled folders")
    parser.add_argument("--split", default="test", help="whose micrographs are measured; choose on validation alone")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2), help="of the annotator")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(argv)


def main() -> int:
    """Measure what is missing, and print the tables; returns the exit code."""
    arguments = parse()
    logging.disable(logging.WARNING)
    done = {(line["part"], line["set"], line["seed"]) for line in read_lines(arguments.results)}
    for seed in arguments.seeds:
        for name in arguments.sets:
            parts = [part for part in arguments.parts if (part, name, seed) not in done]
            if not parts:
                continue
            cell = Cell(arguments.data / name, seed, arguments.split)
            for part in parts:
                line = {"part": part, "set": name, "seed": seed, **PARTS[part](cell)}
                with arguments.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                sys.stderr.write(f"{part} of {name}, seed {seed}\n")
    for found in tables(read_lines(arguments.results)).values():
        sys.stdout.write(f"{found}\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
