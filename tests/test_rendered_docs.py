"""Tables in the documentation are what the committed results give, and the pictures that it shows are there."""

import re

import pytest

from benchmarks.render import ROOT, pages, rendered
from benchmarks.studies import STUDIES
from benchmarks.transfer import RESULTS
from benchmarks.transfer_report import read_results


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_a_page_is_what_rendering_gives_today(path):
    text = path.read_text()
    assert rendered(text, read_results(ROOT / RESULTS)) == text, "run python -m benchmarks.render"
    for name in re.findall(r"\((?:docs/)?(pictures/[a-z-]+\.png)\)", text):
        assert (ROOT / "docs" / name).is_file()


@pytest.mark.parametrize("name", STUDIES)
def test_what_is_compared_was_computed_in_the_same_precision(name):
    results = read_results(ROOT / RESULTS)
    precisions: dict[tuple, set[str]] = {}
    for cell in STUDIES[name].cells(results):
        precisions.setdefault((cell.task, cell.data, cell.generator), set()).add(results[cell]["precision"])
    assert all(len(found) == 1 for found in precisions.values()), precisions
