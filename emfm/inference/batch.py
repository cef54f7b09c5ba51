"""One table and one figure of the objects of many files."""

import csv
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from emfm.errors import EMError
from emfm.reports.object_measures import columns, write_object_table

logger = logging.getLogger(__name__)
TABLE, SIZES = "objects.csv", "sizes.png"


def check_batch_table(output: Path, overwrite: bool) -> None:
    """Raise an EMError where `objects.csv` is there and is no table of objects."""
    path = output / TABLE
    if path.exists() and not overwrite and _heading(path) not in (columns(), columns(classed=True)):
        raise EMError(f"{path} is there, and no table of emfm's: choose another --output, or --overwrite")


def write_batch(output: Path, tables: list[Path]) -> None:
    """Write the rows of all tables, `objects.csv`, and `sizes.png` into the results' folder.

    The figure is left out where some pixel sizes are known and others are not.
    """
    # matplotlib loads slowly
    from emfm.reports.object_sizes import draw_sizes

    path = output / TABLE
    lost = _files(path) - {name for table in tables for name in _files(table)} if path.exists() else set()
    if lost:
        logger.warning("%s: what was found in %s before stands in it no longer", path, ", ".join(sorted(lost)[:5]))
    classed = any("class" in _heading(table) for table in tables)
    write_object_table(path, _rows(tables), classed)
    whole = [row for row in _rows(tables) if row["touches_border"] == "no"]
    in_nm = [row["equivalent_diameter_nm"] != "" for row in whole]
    if any(in_nm) and not all(in_nm):
        return
    unit = "nm" if any(in_nm) else "px"
    groups: dict[str, list[float]] = {}
    for row in whole:
        groups.setdefault(row.get("class", ""), []).append(float(row[f"equivalent_diameter_{unit}"]))
    draw_sizes(output / SIZES, {label: np.array(sizes) for label, sizes in sorted(groups.items())}, unit)


def _rows(tables: list[Path]) -> Iterator[dict[str, Any]]:
    for table in tables:
        with table.open(newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)


def _heading(table: Path) -> list[str]:
    with table.open(newline="", encoding="utf-8", errors="replace") as file:
        return next(csv.reader(file), [])


def _files(table: Path) -> set[str]:
    return {row.get("file", "") for row in _rows([table])}
