"""Write into the documentation what the studies of `benchmarks.transfer` found: tables between marks, and pictures.

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`, where NAME is one of `BLOCKS`; pictures
are those of the studies that a page shows. Everything comes from committed result files.

    python -m benchmarks.render [--check]
"""

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import (
    adaptation,
    denoising,
    denoising_tables,
    enlarging,
    inference,
    instances,
    objects,
    recipe,
    rivals,
    strokes_tables,
    volumes,
)
from benchmarks.json_lines import read_lines
from benchmarks.rival_report import read_rivals
from benchmarks.settings_tables import TABLES, settings_table
from benchmarks.studies import BIOLOGY, MATERIALS, STUDIES
from benchmarks.transfer import RESULTS
from benchmarks.transfer_plots import plot
from benchmarks.transfer_report import Results, curves, read_results
from benchmarks.transfer_tables import averages, comparison, cost, labels_needed, line_of, panel_of, rates, summary
from emfm.files import write_text

ROOT = Path(__file__).parents[1]
PICTURES = Path("docs/pictures")
# Studies of which every problem is shown, not the mean over them.
COMPARED = ("segmentation", "restoration", "generators")
STROKES = ("strokes", "strokes-sets", "strokes-suggest")
# What stands between the marks of a name: the tables of the study of that name, or its sentences.
BLOCKS: dict[str, Callable[[Results], str]] = {
    **{name: partial(averages, study) for name, study in STUDIES.items()},
    **{name: partial(comparison, STUDIES[name]) for name in COMPARED},
    # those of the paper's Table 2
    "generators": partial(comparison, STUDIES["generators"], shares=(0.05, 0.5, 1.0)),
    **{f"{name}-summary": partial(summary, STUDIES[name]) for name in COMPARED},
    "cost": cost,
    "rates": rates,
    "labels-needed": partial(labels_needed, STUDIES["labels"]),
    "fields-biology": partial(averages, replace(STUDIES["fields"], problems=BIOLOGY)),
    **{name: lambda _, owner=owner: settings_table(owner) for name, owner in TABLES.items()},  # type: ignore[misc]
    "adaptation": lambda _: adaptation.adaptation_table(read_lines(ROOT / adaptation.RESULTS)),
    "inference": lambda _: inference.table(inference.read_results(ROOT / inference.RESULTS)),
    "denoising": lambda _: denoising_tables.table(denoising_tables.untrained(_denoised())),
    "denoising-learnt": lambda _: denoising_tables.learnt_table(_denoised()),
    "denoising-early": lambda _: denoising_tables.learnt_table(_denoised(), early=True),
    "enlarging": lambda _: enlarging.table(read_lines(ROOT / enlarging.RESULTS)),
    "recipe": lambda _: recipe.recipe_table(read_lines(ROOT / recipe.RESULTS)),
    **{
        name: lambda _, name=name: strokes_tables.tables(read_lines(ROOT / strokes_tables.RESULTS))[name]
        for name in STROKES
    },  # type: ignore[misc]
    "rivals": lambda _: rivals.tables(read_rivals(ROOT / rivals.RESULTS)),
    "instances": lambda _: instances.table(instances.read_results(ROOT / instances.RESULTS)),
    "objects": lambda _: objects.table(objects.read_results(ROOT / objects.RESULTS)),
    "stacks": lambda _: volumes.stack_table(read_lines(ROOT / volumes.RESULTS)),
    "planes": lambda _: volumes.plane_table(read_lines(ROOT / volumes.RESULTS)),
    "fields-materials": partial(averages, replace(STUDIES["fields"], problems=MATERIALS)),
}


def _denoised() -> list[dict[str, Any]]:
    return denoising.read_results(ROOT / denoising.RESULTS)


def rendered(text: str, results: Results) -> str:
    """Return a page with what stands between its marks written anew."""

    def block(match: re.Match[str]) -> str:
        return f"<!-- {match[1]} -->\n{BLOCKS[match[1]](results)}\n<!-- /{match[1]} -->"

    return re.sub(r"<!-- ([a-z-]+) -->\n.*?<!-- /\1 -->", block, text, flags=re.DOTALL)


def pages() -> list[Path]:
    """Return the pages that have marks."""
    return [
        path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if "<!-- /" in path.read_text()
    ]


def pictured() -> list[str]:
    """Return the names of the pictures that the pages show."""
    shown = {name for path in pages() for name in re.findall(r"pictures/([a-z-]+)\.png", path.read_text())}
    return [name for name in STUDIES if name in shown]


def draw(name: str, results: Results) -> None:
    """Draw the picture of a study."""
    study = STUDIES[name]
    cells = sorted(study.cells(results), key=lambda cell: study.generators.index(cell.generator))
    plot(curves(cells, results), partial(panel_of, study), partial(line_of, study), ROOT / PICTURES / f"{name}.png")


def main() -> int:
    """Write what has changed, or only tell; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a page would change")
    arguments = parser.parse_args()
    results = read_results(ROOT / RESULTS)
    stale = [path for path in pages() if rendered(path.read_text(), results) != path.read_text()]
    for path in stale:
        if not arguments.check:
            write_text(path, rendered(path.read_text(), results))
        sys.stdout.write(f"{path.relative_to(ROOT)} {'is not as rendered' if arguments.check else 'rendered'}\n")
    if not arguments.check:
        (ROOT / PICTURES).mkdir(exist_ok=True)
        for name in pictured():
            draw(name, results)
    return int(arguments.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
