"""What people gave by mistake or by habit, and what they are told."""

import logging

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from emfm import (
    EMError,
    EMForDenoising,
    EMForSemanticSegmentation,
    EMFoundationConfig,
    EMTrainingArguments,
    load_em_dataset,
    predict,
    read_micrograph,
)
from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.inference.files import predict_files
from emfm.processing import EMImageProcessor

NAMES = {0: "background", 1: "particle"}
IMAGE = np.random.default_rng(0).integers(0, 250, (48, 56), dtype=np.uint8)


def segmenter(**fields):
    torch.manual_seed(0)
    return EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44", **{"id2label": NAMES, **fields})).eval()


@pytest.fixture
def labelled(tmp_path):
    for index in range(2):
        for part, values in (("images", IMAGE), ("masks", np.eye(48, 56, dtype=np.uint8))):
            (tmp_path / "d" / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(tmp_path / "d" / part / f"{index}.png")
    return tmp_path / "d"


def test_files_that_are_empty_nameless_or_something_else_are_told_apart(tmp_path):
    (tmp_path / "a.tif").touch()
    with pytest.raises(EMError, match=r"a\.tif: the file is empty \(0 bytes\)"):
        read_micrograph(tmp_path / "a.tif")
    (tmp_path / "scan").write_bytes(b"x")
    with pytest.raises(EMError, match="scan: cannot read a file without a suffix; supported"):
        read_micrograph(tmp_path / "scan")
    (tmp_path / "a.png").write_bytes(b"hello, this is no picture")
    with pytest.raises(EMError, match=r"a\.png: .*it begins like no PNG, JPEG or BMP file"):
        read_micrograph(tmp_path / "a.png")


def test_a_bitmap_is_a_micrograph(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "a.bmp")
    np.testing.assert_array_equal(read_micrograph(tmp_path / "a.bmp").array, IMAGE)


def test_a_file_in_the_place_of_a_folder_is_never_taken_for_a_hub_id(labelled, tmp_path, monkeypatch):
    monkeypatch.chdir(labelled.parent)
    (tmp_path / "d" / "data.zip").write_bytes(b"PK")
    for source in ("d/data.zip", "d/images/0.png"):
        with pytest.raises(EMError, match="is a file; a labelled folder holds images/"):
            load_em_dataset(source)
    segmenter().save_pretrained(tmp_path / "m")
    with pytest.raises(EMError, match=r"m/config\.json is a file; a model is a folder: give m"):
        predict("m/config.json", IMAGE)
    with pytest.raises(EMError, match=r"m/config\.json is a file; a model is saved as a folder"):
        segmenter().save_pretrained("m/config.json")


def test_folders_with_other_names_are_shown(labelled):
    (labelled / "masks").rename(labelled / "annotations")
    with pytest.raises(EMError, match=r"there is no folder .*masks.*; it has annotations, images"):
        load_em_dataset(labelled, truth="masks")


def test_masks_of_one_class_alone_are_refused_in_training(labelled, tmp_path):
    for index in range(2):
        Image.fromarray(np.full((48, 56), 255, np.uint8)).save(labelled / "masks" / f"{index}.png")
    (labelled / "labels.json").write_text('{"0": "background", "255": "particle"}')
    arguments = FinetuneArguments("segmentation", str(labelled), str(tmp_path / "o"), scratch="unet2-rf44", crop=32)
    with pytest.raises(EMError, match="hold nothing to tell apart: every labelled pixel is particle"):
        finetune(arguments)


def test_additions_of_lora_can_be_loaded_and_trained_on(labelled, tmp_path):
    settings = dict(task="segmentation", data=str(labelled), steps=1, batch_size=2, crop=32, precision="fp32")
    finetune(FinetuneArguments(**settings, model="unet2-rf44", lora=2, output=str(tmp_path / "lora")))
    model = EMForSemanticSegmentation.from_pretrained(tmp_path / "lora")
    assert all(parameter.requires_grad for parameter in model.parameters())
    finetune(FinetuneArguments(**settings, model=str(tmp_path / "lora"), output=str(tmp_path / "on")))
    assert not EMForSemanticSegmentation.from_pretrained(tmp_path / "on").new_head


def test_an_error_of_the_system_is_in_plain_words_in_results_too(tmp_path):
    name = "a" * 245 + ".tif"
    tifffile.imwrite(tmp_path / name, IMAGE)
    (entry,) = predict_files(segmenter(), [tmp_path / name], tmp_path / "out")
    assert entry["error"].endswith("the name is too long")


def test_what_a_masked_array_hides_is_no_data():
    hidden = np.zeros(IMAGE.shape, bool)
    hidden[:20, :30] = True
    masked = np.ma.MaskedArray(np.where(hidden, 255, IMAGE), hidden)
    padded = np.where(hidden, np.nan, IMAGE.astype(np.float32))
    np.testing.assert_array_equal(predict(segmenter(), masked).output, predict(segmenter(), padded).output)
    found = EMImageProcessor()(masked)["pixel_values"]
    np.testing.assert_array_equal(found, EMImageProcessor()(padded)["pixel_values"])
    assert predict(segmenter(), np.ma.MaskedArray(IMAGE)).output.max() < 2


@pytest.mark.parametrize("given", [None, object(), [None]])
def test_what_is_no_micrograph_is_said(given):
    with pytest.raises(EMError, match="expected a micrograph"):
        predict(segmenter(), given)


def test_predict_takes_a_compiled_model():
    model = segmenter()
    np.testing.assert_array_equal(predict(torch.compile(model), IMAGE).output, predict(model, IMAGE).output)


def test_a_model_of_another_task_is_said_to_get_a_new_head(tmp_path, caplog):
    segmenter().save_pretrained(tmp_path / "m")
    assert EMForDenoising.from_pretrained(tmp_path / "m").new_head
    assert "was saved by EMForSemanticSegmentation: the trunk is its own, the head is new" in caplog.text
    caplog.clear()
    EMForDenoising.from_pretrained("unet2-rf44")
    EMForSemanticSegmentation.from_pretrained(tmp_path / "m")
    assert not caplog.text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id2label": {0: "a"}}, "expected two classes or more"),
        ({"id2label": {0: "a", 1: "a"}}, "a name of its own for each class"),
        ({"id2label": {0: "a", 1: "b"}, "label2id": {"a": 1, "b": 0}}, "label2id is .* but id2label is"),
        ({"id2label": {0: "a", 1: "b"}, "num_labels": 5}, "num_labels is 5, but id2label has 2 classes"),
        ({"class_weights": [1, 2, 3]}, "^class_weights are .* for each of the 2 classes"),
        ({"norm": 3}, "^norm: not of the right kind"),
    ],
)
def test_classes_that_contradict_each_other_are_refused(fields, message):
    with pytest.raises(EMError, match=message):
        EMForSemanticSegmentation.from_pretrained("unet2-rf44", **fields)


def test_arguments_of_transformers_without_effect_are_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        EMTrainingArguments(str(tmp_path), per_device_eval_batch_size=2)
    assert "per_device_eval_batch_size has no effect: whole micrographs" in caplog.text
    with pytest.raises(EMError, match=r"num_train_epochs is 9, but .*: give max_steps"):
        EMTrainingArguments(str(tmp_path), num_train_epochs=9)
    with pytest.raises(EMError, match="label_smoothing_factor is of transformers' loss"):
        EMTrainingArguments(str(tmp_path), label_smoothing_factor=0.1)


def test_a_finished_run_is_not_taken_for_one_of_other_settings(labelled, tmp_path):
    settings = dict(task="segmentation", data=str(labelled), output=str(tmp_path / "o"), model="unet2-rf44", steps=1)
    finetune(FinetuneArguments(**settings, batch_size=2, crop=32))
    with pytest.raises(EMError, match=r"finished with other settings \(crop was 32, now 48\)"):
        finetune(FinetuneArguments(**settings, batch_size=2, crop=48, resume=True))


def test_truth_that_made_pairs_do_not_use_is_said(labelled, caplog):
    load_em_dataset(labelled, degrade="dose")
    assert "--degrade makes pairs of images/ alone; masks is not used" in caplog.text
