"""The figures of docs/predicting.md are those that the benchmarks print of their results."""

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FIGURES = [
    path.stem for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")) if path.stem in ("tiling", "seams")
]


@pytest.mark.parametrize("name", FIGURES)
def test_measured_tables_are_what_the_benchmarks_print_of_their_results(name):
    results = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    table = importlib.import_module(f"benchmarks.{name}").table(results)
    assert table in (ROOT / "docs" / "predicting.md").read_text()
