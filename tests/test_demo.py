import json
import re

import pytest

from emfm import EMError
from emfm.demo.run import run_demo
from emfm.tasks import load_model


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Make images and crops smaller than users see them."""
    monkeypatch.setattr("emfm.demo.run.UNSEEN_SHAPE", (256, 384))
    monkeypatch.setattr("emfm.demo.run.SIMULATED_SHAPE", (128, 128))
    monkeypatch.setattr("emfm.demo.run.CROP", 64)


def test_the_demo_leaves_a_report_a_summary_and_a_model(tmp_path):
    output = tmp_path / "demo"
    summary = run_demo(output, None, steps=2, seed=0)
    assert json.loads((output / "summary.json").read_text()) == summary
    assert summary["images"] == {"train": 8, "validation": 2}
    assert summary["unseen"]["shape"] == [256, 384]
    for name in ("pretrained", "scratch"):
        assert f"{summary['unseen'][name]['dice']:.3f}" in summary["table"]
        assert summary["curves"][name][0]["step"] == 0
    report = (output / "report.html").read_text()
    assert len(re.findall(r'src="data:image/jpeg;base64,[A-Za-z0-9+/=]{1000,}"', report)) == 4
    assert len(re.findall(r'src="data:image/png;base64,', report)) == 1
    assert not re.search(r'(src|href)="(?!data:)', report)
    assert load_model(output / "model").config.id2label == {0: "background", 1: "particle"}


def test_the_demo_runs_on_a_labelled_folder_and_replaces_only_its_own_output(labelled_folder, tmp_path):
    summary = run_demo(tmp_path / "demo", str(labelled_folder), steps=1, seed=0)
    assert summary["unseen"]["name"] == "4.png" and summary["data"] == "discs"
    assert run_demo(tmp_path / "demo", str(labelled_folder), steps=1, seed=0)["steps"] == 1


def test_a_folder_that_no_demo_wrote_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(EMError, match="no demo wrote"):
        run_demo(tmp_path, None, steps=1, seed=0)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
