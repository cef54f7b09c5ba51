import json
import re

import pytest

from emfm import EMError
from emfm.demo.run import BUNDLED, run_demo
from emfm.tasks import load_model


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Train on smaller crops than users, with a smaller forest."""
    monkeypatch.setattr("emfm.demo.run.CROP", 64)
    monkeypatch.setattr("emfm.demo.run.UNSEEN", 2)
    monkeypatch.setattr("emfm.demo.forest.PIXELS", 3_000)
    monkeypatch.setattr("emfm.demo.forest.TREES", 10)


def test_the_demo_leaves_a_report_a_summary_and_a_model(tmp_path):
    output = tmp_path / "demo"
    summary = run_demo(output, None, steps=2, seed=0)
    assert json.loads((output / "summary.json").read_text()) == summary
    assert summary["images"] == {"train": 3, "validation": 1}
    assert summary["unseen"]["names"] == ["spot4_0d_3.png", "spot4_180d_2.png"]
    for name in ("pretrained", "scratch", "random forest"):
        assert f"{summary['unseen'][name]['dice']:.3f}" in summary["table"]
        assert len(summary["unseen"][name]["each"]) == 2 and summary["learning_seconds"][name] > 0
    assert summary["curves"]["pretrained"][0]["step"] == 0
    assert summary["unseen"]["random forest"]["dice"] > 0.4  # it learns what is to be seen
    report = (output / "report.html").read_text()
    assert len(re.findall(r'src="data:image/jpeg;base64,[A-Za-z0-9+/=]{1000,}"', report)) == 2 * 5
    assert len(re.findall(r'src="data:image/png;base64,', report)) == 1
    assert not re.search(r'(src|href)="(?!data:)', report)
    assert load_model(output / "model").config.id2label == {0: "matrix", 1: "large precipitate", 2: "small precipitate"}


def test_the_bundled_micrographs_are_divided_by_place_and_bring_their_licence():
    splits = json.loads((BUNDLED / "splits.json").read_text())
    places = {split: {name.partition("_")[0] for name in names} for split, names in splits.items()}
    assert not places["test"] & (places["train"] | places["validation"])
    listed = sorted(name for names in splits.values() for name in names)
    for kind in ("images", "masks"):
        assert sorted(path.name for path in (BUNDLED / kind).iterdir()) == listed
    notice = (BUNDLED / "NOTICE.md").read_text()
    assert "Permission is hereby granted, free of charge" in notice and "nasa/pretrained-microscopy-models" in notice


def test_the_demo_runs_on_a_labelled_folder_and_replaces_only_its_own_output(labelled_folder, tmp_path):
    summary = run_demo(tmp_path / "demo", str(labelled_folder), steps=1, seed=0)
    assert "4.png" in summary["unseen"]["names"] and summary["data"] == "discs"
    assert run_demo(tmp_path / "demo", str(labelled_folder), steps=1, seed=0)["steps"] == 1


def test_a_folder_that_no_demo_wrote_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(EMError, match="no demo wrote"):
        run_demo(tmp_path, None, steps=1, seed=0)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
