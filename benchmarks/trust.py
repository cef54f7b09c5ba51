"""How far results can be trusted: probabilities, uncertainty, and micrographs that a model does not know.

On each of six labelled sets a network is fine-tuned, and measured on test micrographs: the calibration error and Dice
with and without offsets and temperature; how well several kinds of uncertainty find wrong pixels; whether micrographs
of the other sets are told apart from its own, and whether changed ones are flagged for the right reason. A set is one
line of JSON in the results file, and so is the cost; what is there is not measured again, nor is a model trained again
that lies in --work.
FOLDER holds one labelled folder per set. Example:

    python -m benchmarks.trust --data FOLDER --work /tmp/trust
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.studies import SEGMENTATION
from benchmarks.trust_cell import measure_costs, measure_set
from benchmarks.trust_tables import COSTS, RESULTS, table

SETS = tuple(problem.data for problem in SEGMENTATION)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the settings of a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the labelled folders")
    parser.add_argument("--work", type=Path, required=True, help="folder for the fine-tuned models, SET-SEED")
    parser.add_argument("--model", default="timm-tf-efficientnet-lite0", help="what is fine-tuned")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=1, help="several are measured as an ensemble, too")
    parser.add_argument("--images", type=int, default=16, help="test micrographs of a set at most, 512 px of each")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(argv)


def main() -> int:
    """Measure what is missing, and print the tables; returns the exit code."""
    arguments = parse()
    logging.disable(logging.WARNING)
    found: list[dict[str, Any]] = []
    if arguments.results.is_file():
        found = [json.loads(line) for line in arguments.results.read_text(encoding="utf-8").splitlines()]
    for name in (*SETS, COSTS):
        if any(line["set"] == name for line in found):
            continue
        line = measure_costs(arguments) if name == COSTS else measure_set(name, SETS, arguments)
        found.append(line)
        with arguments.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        sys.stderr.write(f"{name} measured\n")
    sys.stdout.write(table(found))
    errors = [line["calibration"]["with"]["error"] for line in found if line["set"] != COSTS]
    sys.stdout.write(f"\nMean calibration error {mean(errors):.4f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
