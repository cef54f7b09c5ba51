"""What the tab "Label" asks and what it is answered, without a browser."""

import sys
import time

import numpy as np
import pytest
import tifffile
from conftest import disc_image

from emfm import EMError, EMForSemanticSegmentation
from emfm import EMFoundationConfig as Config
from emfm.app import jobs, reading
from emfm.app.labelling import Labelling
from emfm.app.views import part_at, tinted
from emfm.inference.predict import predict

PICTURE = "data:image/png;base64,"


@pytest.fixture
def labelling(tmp_path):
    labels = {0: "background", 1: "particle"}
    network = EMForSemanticSegmentation(Config.from_name("unet2-rf44", id2label=labels, all_scales=True))
    network.save_pretrained(tmp_path / "network")
    (tmp_path / "uploads").mkdir()
    tifffile.imwrite(tmp_path / "uploads" / "gold.tif", 40 * disc_image(96, 3)[0].astype(np.uint16))
    labelling = Labelling(tmp_path / "session", tmp_path / "uploads", model=str(tmp_path / "network"))
    answer = labelling.ask({"verb": "open", "paths": [str(tmp_path / "uploads" / "gold.tif")]})
    assert (answer["added"], answer["error"]) == (["gold.tif"], None)
    return labelling


def paint(labelling, label, x, y):
    box = [0, 0, 96, 96]
    question = {"verb": "stroke", "name": "gold.tif", "label": label, "radius": 2, "points": [[x, y]], "box": box}
    return labelling.ask(question)


def test_strokes_are_counted_segmented_and_taken_back(labelling):
    view = labelling.ask({"verb": "view", "name": "gold.tif"})
    assert (view["shape"], view["box"]) == ([96, 96], (0, 0, 96, 96))
    assert all(view[part].startswith(PICTURE) for part in ("image", "labels", "overview"))
    assert paint(labelling, "background", 5, 5)["counts"] == [12, 0]
    box = [0, 0, 96, 96]
    asked = {"name": "gold.tif", "box": box}
    assert "paint two classes" in labelling.ask({"verb": "segment", **asked})["error"]
    assert paint(labelling, "particle", 48, 48)["counts"] == [12, 12]
    answer = labelling.ask({"verb": "segment", **asked})
    assert answer["classes"].startswith(PICTURE)
    assert answer["note"] is None
    place = labelling.ask({"verb": "suggest", **asked})
    assert (0 <= place["row"] < 96, 0 <= place["column"] < 96) == (True, True)
    assert labelling.ask({"verb": "undo", **asked})["counts"] == [12, 0]
    labelling.ask({"verb": "undo", **asked})
    assert "no stroke" in labelling.ask({"verb": "undo", **asked})["note"]


def test_a_class_without_strokes_is_told_and_a_stroke_beside_the_image_too(labelling):
    labelling.ask({"verb": "classes", "names": ["background", "particle", "hole"]})
    paint(labelling, "background", 5, 5)
    paint(labelling, "particle", 48, 48)
    assert "nothing is painted" in paint(labelling, "particle", -50, 20)["note"]
    answer = labelling.ask({"verb": "segment", "name": "gold.tif", "box": [0, 0, 96, 96]})
    assert answer["note"] == "without strokes, so not learnt: hole"


def test_whatever_is_asked_the_answer_is_one_line(labelling, tmp_path):
    asked = [
        {"verb": "format"},
        {"verb": "view"},
        {"verb": "view", "name": "../labels.json"},
        {"verb": "view", "name": "gold.tif", "row": float("nan")},
        {"verb": "open", "paths": ["/etc/hostname"]},
        {"verb": "open"},
        {"verb": "train", "steps": 0},
        {"verb": "train", "steps": 5},
        {"verb": "predict", "model": "../../network"},
        {"verb": "push", "model": "nothing", "repo_id": "owner/name"},
    ]
    for question in asked:
        error = labelling.ask(question)["error"]
        assert error, question
        assert "\n" not in error
    afar = Labelling(tmp_path / "session", tmp_path / "uploads", local=False)
    assert "open to the network" in afar.ask({"verb": "open", "folder": str(tmp_path)})["error"]
    assert str(tmp_path) not in afar.ask({"verb": "state"})["folder"]


def test_an_upload_is_read_in_a_process_of_its_own_before_it_is_taken(labelling, tmp_path, monkeypatch):
    asked = []
    real = reading.Guarded.ask

    def ask(self, name, *given, **more):
        asked.append(name)
        return real(self, name, *given, **more)

    monkeypatch.setattr(reading.Guarded, "ask", ask)
    tifffile.imwrite(tmp_path / "uploads" / "stack.tif", np.zeros((3, 9, 9), dtype=np.uint8), photometric="minisblack")
    (tmp_path / "uploads" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    tifffile.imwrite(tmp_path / "uploads" / "more.tif", np.arange(81, dtype=np.uint8).reshape(9, 9))
    paths = [str(tmp_path / "uploads" / name) for name in ("stack.tif", "cut.png", "more.tif")]
    answer = labelling.ask({"verb": "open", "paths": paths})
    assert (answer["added"], asked) == (["more.tif"], ["stack.tif", "cut.png", "more.tif"])
    assert answer["error"].startswith("stack.tif: a stack of 3 slices; this page takes single images")
    assert "cut.png: the file is damaged" in answer["error"]
    assert str(tmp_path) not in answer["error"]


def test_what_a_model_of_the_session_finds_is_shown_in_the_sessions_classes(labelling, tmp_path):
    labels = {0: "hole", 1: "particle"}
    network = EMForSemanticSegmentation(Config.from_name("unet2-rf44", id2label=labels))
    network.save_pretrained(tmp_path / "session" / "models" / "trained-1")
    asked = {"verb": "show", "name": "gold.tif", "box": [0, 0, 96, 96], "model": "trained-1"}
    assert "knows hole, no classes of this session" in labelling.ask(asked)["error"]
    labelling.ask({"verb": "classes", "names": ["background", "particle", "hole"]})
    expected = predict(str(tmp_path / "session" / "models" / "trained-1"), tmp_path / "uploads" / "gold.tif").output
    answer = labelling.ask(asked)
    assert answer["classes"] == tinted(np.array([2, 1])[expected], 3, [0])
    assert labelling.ask({"verb": "view", "name": "gold.tif"})["classes"] == answer["classes"]


def test_the_curve_of_the_newest_training_is_there_after_a_restart(labelling, tmp_path):
    assert labelling.ask({"verb": "state"})["curve"] is None
    folder = tmp_path / "session" / "models" / "trained-1"
    folder.mkdir(parents=True)
    (folder / "curve.json").write_text('[{"step": 0, "dice": 0.5, "n": 1}, {"step": 5, "dice": null}]')
    points = [{"step": 0, "dice": 0.5}, {"step": 5, "dice": None}]
    assert labelling.ask({"verb": "state"})["curve"] == {"model": "trained-1", "points": points, "note": None}
    (folder / "finetuning.json").write_text('{"validation_trained_on": 1}')
    again = Labelling(tmp_path / "session", tmp_path / "uploads")
    assert again.ask({"verb": "state"})["curve"]["note"] == "on labels that it learnt from"
    left_out = '{"left_out": {"mean": 0.806, "spread": 0.04, "n": 3, "of": "images"}}'
    (folder / "finetuning.json").write_text(left_out)
    note = "0.81 ± 0.04 on 3 images, each left out of a short training"
    assert labelling.ask({"verb": "state"})["curve"]["note"] == note


def test_training_goes_on_from_a_model_of_the_session(labelling, tmp_path, monkeypatch):
    paint(labelling, "background", 5, 5)
    paint(labelling, "particle", 48, 48)
    place = tmp_path / "session" / "models" / "trained-1"
    EMForSemanticSegmentation(Config.from_name("unet2-rf44")).save_pretrained(place)
    started = []
    monkeypatch.setattr(jobs.Jobs, "start", lambda self, kind, arguments, log, output: started.append(arguments))
    labelling.ask({"verb": "train", "steps": 5, "start": "trained-1"})
    labelling.ask({"verb": "train", "steps": 5})
    assert [arguments[arguments.index("--model") + 1] for arguments in started] == [
        str(place),
        str(tmp_path / "network"),
    ]


def test_a_large_micrograph_is_shown_by_parts():
    assert part_at((8192, 8192), 4096, 4096) == (3584, 3584, 4608, 4608)
    assert part_at((8192, 900), -10, 10**6) == (0, 0, 1024, 900)
    assert part_at((700, 600), 5, 5) == (0, 0, 700, 600)


def test_work_is_watched_stopped_and_its_error_shown(tmp_path, monkeypatch):
    code = "import sys, time; print(' 3/10 [00:01<', file=sys.stderr, flush=True); time.sleep(float(sys.argv[1]))"
    script = tmp_path / "work.py"
    script.write_text(code + "; sys.exit('error: the disk is full')")
    real = jobs.subprocess.Popen
    monkeypatch.setattr(
        jobs.subprocess, "Popen", lambda command, **given: real([sys.executable, str(script), command[-1]], **given)
    )
    work = jobs.Jobs()
    job = work.start("training", ["60"], tmp_path / "log", tmp_path / "out")
    deadline = time.monotonic() + 60
    while job.state()["done"] != 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (job.state()["running"], job.state()["done"], job.state()["total"]) == (True, 3, 10)
    assert job.state()["output"] is None  # there is nothing yet
    with pytest.raises(EMError, match="training is still at work"):
        work.start("training", ["0"], tmp_path / "log", tmp_path / "out")
    job.stop()
    while job.running and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (job.state()["running"], job.state()["stopped"], job.state()["error"]) == (False, True, None)
    failed = work.start("predicting", ["0"], tmp_path / "log", tmp_path / "out")
    while failed.running and time.monotonic() < deadline:
        time.sleep(0.1)
    assert failed.state()["error"] == "the disk is full"
