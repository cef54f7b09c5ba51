"""Each labelled image is left out once, where nothing was set aside to measure a model."""

import json

import numpy as np
import pytest
from PIL import Image

from emfm import EMError
from emfm.data.examples import IGNORED, LabelledMicrographs
from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.finetuning.left_out import folds_of, left_out, steps_of
from emfm.tasks import load_model


def labelled(masks):
    images = [np.zeros(mask.shape, np.uint8) for mask in masks]
    names = [f"{index}.png" for index in range(len(masks))]
    return LabelledMicrographs(images, names, [None] * len(masks), masks, {0: "background", 1: "disc"})


def both(side=8):
    mask = np.zeros((side, side), np.int16)
    mask[2:4] = 1
    return mask


def test_each_micrograph_is_left_out_once_and_those_without_labels_never():
    nothing = np.full((8, 8), IGNORED, np.int16)
    kind, folds = folds_of(labelled([both(), nothing, both(), both()]), seed=0)
    assert kind == "micrographs"
    assert [fold.name for fold in folds] == ["0.png", "2.png", "3.png"]
    assert folds[1].measured.names == ["2.png"] and folds[1].training.names == ["0.png", "1.png", "3.png"]


def test_a_micrograph_that_alone_shows_a_class_teaches_it_and_is_not_left_out():
    only_one = np.zeros((8, 8), np.int16)
    kind, folds = folds_of(labelled([both(), only_one, only_one]), seed=0)
    assert kind == "micrographs" and [fold.name for fold in folds] == ["1.png", "2.png"]
    with pytest.raises(EMError, match="nothing to leave out: of 2 labelled micrographs each class"):
        folds_of(labelled([both(), only_one]), seed=0)


def test_of_a_single_micrograph_every_label_is_left_out_in_one_part():
    mask = np.full((40, 60), IGNORED, np.int16)
    mask[5, 5:50], mask[30, 5:50] = 0, 1
    kind, folds = folds_of(labelled([mask]), seed=0)
    assert kind == "parts" and len(folds) == 4
    assert sum((fold.measured.masks[0] >= 0).astype(int) for fold in folds).tolist() == (mask >= 0).astype(int).tolist()
    for fold in folds:
        taught, asked = fold.training.masks[0] >= 0, fold.measured.masks[0] >= 0
        assert not (taught & asked).any() and ((taught | asked) == (mask >= 0)).all()
        assert 20 <= asked.sum() <= 25 and set(np.unique(fold.training.masks[0])) == {IGNORED, 0, 1}


def test_a_class_with_one_stroke_in_one_place_cannot_be_left_out():
    mask = np.full((40, 60), IGNORED, np.int16)
    mask[5, 5:50], mask[30, 7] = 0, 1
    with pytest.raises(EMError, match="Label each in a second place"):
        folds_of(labelled([mask]), seed=0)


def test_short_trainings_take_no_more_steps_together_than_the_model_itself():
    assert [steps_of(300, 4), steps_of(1000, 3), steps_of(60, 4), steps_of(0, 4)] == [75, 100, 0, 0]


def test_the_spread_is_that_of_the_figures_and_one_without_a_figure_takes_no_part():
    _, folds = folds_of(labelled([both(), both(), both()]), seed=0)
    values = iter([(0.6, 1.0), (None, 4.0), (0.8, 1.0)])

    def run(fold):
        dice, temperature = next(values)
        return {"step": 5, "dice": dice, "n": 1, "per_class": {"disc": {"dice": dice}}}, temperature

    found = left_out("micrographs", folds, 5, "dice", run)
    assert found["mean"] == pytest.approx(0.7) and found["spread"] == pytest.approx(0.1)
    assert found["figures"] == {"dice": pytest.approx(0.7), "n": 3, "per_class": {"disc": {"dice": pytest.approx(0.7)}}}
    assert found["each"] == {"0.png": 0.6, "1.png": None, "2.png": 0.8}
    assert found["temperature"] == pytest.approx(4 ** (1 / 3), abs=1e-3)


def without_validation(folder):
    (folder / "splits.json").write_text('{"train": ["0.png", "1.png", "2.png"]}')
    return str(folder)


def test_record_curve_and_card_hold_the_figure_with_its_spread(labelled_folder, tmp_path):
    data, output = without_validation(labelled_folder), tmp_path / "out"
    run = dict(model="unet2-rf44", data=data, output=str(output), steps=0, crop=64, leave_one_out=True)
    record = finetune(FinetuneArguments("segmentation", **run), show_progress=False)
    found = record["left_out"]
    assert (found["of"], found["n"], found["steps"]) == ("micrographs", 3, 0)
    assert 0.5 < found["mean"] < 1 and found["mean"] == pytest.approx(np.mean(list(found["each"].values())))
    assert json.loads((output / "curve.json").read_text())[-1]["left_out"]["spread"] == found["spread"]
    card = (output / "README.md").read_text(encoding="utf-8")
    assert f"**Dice {found['mean']:.4f}, spread {found['spread']:.4f}**" in card
    assert "Each of 3 micrographs was left out once: a training of the head alone" in card
    assert load_model(output).config.temperature == found["temperature"]


def test_short_trainings_of_the_whole_network_leave_out_parts_of_one_micrograph(labelled_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("emfm.finetuning.left_out.FEWEST_STEPS", 1)
    (labelled_folder / "splits.json").write_text('{"train": ["0.png"]}')
    run = dict(model="unet2-rf44", data=str(labelled_folder), output=str(tmp_path / "out"), steps=4, crop=64)
    args = FinetuneArguments("segmentation", **run, batch_size=2, leave_one_out=True)
    found = finetune(args, show_progress=False)["left_out"]
    assert (found["of"], found["n"], found["steps"]) == ("parts", 4, 1)
    assert "Parts of one micrograph resemble each other" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_with_a_validation_split_or_a_stream_it_is_refused(labelled_folder, tmp_path):
    run = dict(model="unet2-rf44", data=str(labelled_folder), output=str(tmp_path / "out"), leave_one_out=True)
    with pytest.raises(EMError, match="has a validation split, which measures"):
        finetune(FinetuneArguments("segmentation", **run))
    with pytest.raises(EMError, match="images with truth in memory"):
        FinetuneArguments("segmentation", **run, streaming=True)


def test_two_hundred_labelled_pixels_train_and_measure_without_a_warning(tmp_path, caplog):
    rng = np.random.default_rng(0)
    truth = np.zeros((96, 96), bool)
    truth[20:70, 30:80] = True
    mask = np.full(truth.shape, 9, np.uint8)
    mask[8, 10:90], mask[85, 20:40], mask[45, 32:77], mask[25:65, 50], mask[60, 35:50] = 0, 0, 1, 1, 1
    for kind, array in {"images": (120 + rng.normal(0, np.where(truth, 30, 6))).clip(0, 255), "masks": mask}.items():
        (tmp_path / "data" / kind).mkdir(parents=True)
        Image.fromarray(array.astype(np.uint8)).save(tmp_path / "data" / kind / "a.png")
    (tmp_path / "data" / "labels.json").write_text(json.dumps({"0": "matrix", "1": "grain", "9": "ignore"}))
    assert 190 <= (mask != 9).sum() <= 210
    run = dict(model="unet2-rf44", data=str(tmp_path / "data"), steps=3, crop=64, batch_size=2, leave_one_out=True)
    record = finetune(FinetuneArguments("segmentation", **run, output=str(tmp_path / "out")), show_progress=False)
    assert caplog.records == []
    assert record["images"] == {"train": 1, "validation": 1} and record["best"]["n"] == 1
    assert record["left_out"]["mean"] > 0.6 and set(record["best"]["per_class"]) == {"matrix", "grain"}
