"""Tables in the documentation are what the committed results give, and the pictures that it shows are there."""

import re

import pytest

from benchmarks.render import ROOT, pages, rendered
from benchmarks.transfer import RESULTS
from benchmarks.transfer_report import read_results


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_a_page_is_what_rendering_gives_today(path):
    text = path.read_text()
    assert rendered(text, read_results(ROOT / RESULTS)) == text, "run python -m benchmarks.render"
    for name in re.findall(r"\((?:docs/)?(pictures/[a-z-]+\.png)\)", text):
        assert (ROOT / "docs" / name).is_file()
