"""Ctrl-C in fine-tuning, what `--resume` finds, and new heads for one's own models."""

import json
import os
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from emfm import EMError, EMForSemanticSegmentation
from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.finetuning.trainer import EMTrainer

SETTINGS = {"steps": 6, "batch_size": 2, "crop": 32, "precision": "fp32"}


def run(folder, output, task="segmentation", **changes):
    settings = {**SETTINGS, **({} if "model" in changes else {"scratch": "unet2-rf44"}), **changes}
    return finetune(FinetuneArguments(task, str(folder), str(output), **settings), show_progress=False)


class Signal(TrainerCallback):
    """Sends this process a signal in the step of a number."""

    def __init__(self, number, step):
        self.number, self.step = number, step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), self.number)


@pytest.fixture
def interrupted(monkeypatch):
    """Return a function that lets the next runs get a signal in a step."""

    def at(number, step):
        made = EMTrainer._train_until_stopped

        def train(self, *args, **kwargs):
            self.add_callback(Signal(number, step))
            return made(self, *args, **kwargs)

        monkeypatch.setattr(EMTrainer, "_train_until_stopped", train)

    yield at
    monkeypatch.undo()


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_saves_the_run_and_resuming_ends_with_the_same_weights(
    number, raised, labelled_folder, tmp_path, interrupted, monkeypatch
):
    run(labelled_folder, tmp_path / "whole")
    interrupted(number, 2)
    with pytest.raises(raised):
        run(labelled_folder, tmp_path / "out")
    monkeypatch.undo()
    assert (tmp_path / "out" / "checkpoint-3").is_dir() and (tmp_path / "out" / "model.safetensors").is_file()
    EMForSemanticSegmentation.from_pretrained(tmp_path / "out")
    with pytest.raises(EMError, match="was stopped: go on with --resume"):
        run(labelled_folder, tmp_path / "out")
    run(labelled_folder, tmp_path / "out", resume=True)
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "out"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_resume_begins_anew_where_there_is_no_whole_checkpoint(
    labelled_folder, tmp_path, interrupted, monkeypatch, caplog
):
    output = tmp_path / "out"
    interrupted(signal.SIGINT, 0)
    with pytest.raises(KeyboardInterrupt):
        run(labelled_folder, output)
    monkeypatch.undo()
    (output / "checkpoint-1" / "trainer_state.json").write_text("")  # as a power cut leaves it
    record = run(labelled_folder, output, resume=True)
    assert "checkpoint-1 is refused" in caplog.text and "the run begins anew" in caplog.text
    assert [entry["step"] for entry in json.loads((output / "curve.json").read_text())] == list(range(7))
    assert record["steps"] == 6
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run(labelled_folder, empty, resume=True)["steps"] == 6


def test_resuming_a_finished_run_says_that_it_is_finished(labelled_folder, tmp_path, caplog):
    record = run(labelled_folder, tmp_path / "out", steps=1)
    assert run(labelled_folder, tmp_path / "out", steps=1, resume=True) == json.loads(json.dumps(record))
    assert "is finished: nothing is left to train" in caplog.text
    with pytest.raises(EMError, match=r"was finished \(segmentation, 1 steps\).*go on with --model"):
        run(labelled_folder, tmp_path / "out", steps=9, resume=True)


def test_a_folder_that_holds_another_model_is_left_alone(labelled_folder, tmp_path):
    run(labelled_folder, tmp_path / "model", steps=1)
    for name in ("curve.json", "finetuning.json"):
        (tmp_path / "model" / name).unlink()
    for resume in (False, True):
        with pytest.raises(EMError, match="holds a model already"):
            run(labelled_folder, tmp_path / "model", resume=resume)


@pytest.mark.parametrize("lora", [0, 2])
def test_ones_own_model_gets_a_new_head_for_other_classes(lora, labelled_folder, tmp_path, caplog):
    start = {"model": "unet2-rf44", "lora": lora} if lora else {}
    run(labelled_folder, tmp_path / "two", steps=1, **start)
    three = tmp_path / "three"
    shutil.copytree(labelled_folder, three)
    names = json.loads((three / "labels.json").read_text())
    (three / "labels.json").write_text(json.dumps({**names, "7": "void"}))
    record = run(three, tmp_path / "out", model=str(tmp_path / "two"), steps=1)
    assert "its trunk is kept, its head is new" in caplog.text and "the data have background, void, disc" in caplog.text
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert len(weights["class_head.weight"]) == len(EMForSemanticSegmentation.from_pretrained(tmp_path / "out").classes)
    assert record["start"] == "two"


def test_ones_own_segmentation_becomes_a_denoiser_with_a_new_head(labelled_folder, tmp_path, caplog):
    run(labelled_folder, tmp_path / "two", steps=1)
    trained = {"model": str(tmp_path / "two"), "degrade": "dose", "steps": 1}
    run(labelled_folder, tmp_path / "out", "denoising", **trained)
    assert "was trained for segmentation into background, disc: its trunk is kept, its head is new" in caplog.text
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["EMForDenoising"] and config["class_weights"] is None
    caplog.clear()
    run(labelled_folder, tmp_path / "again", "denoising", **{**trained, "model": str(tmp_path / "out")})
    assert "its head is new" not in caplog.text
