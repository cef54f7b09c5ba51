"""Fine-tuning at toy size."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from emfm import (
    EMError,
    EMForSemanticSegmentation,
    EMFoundation,
    EMFoundationConfig,
    EMTrainer,
    EMTrainingArguments,
    load_em_dataset,
)
from emfm.finetuning.evaluate import evaluate
from emfm.finetuning.finetune import FinetuneArguments, build_model, finetune, read_splits
from emfm.hub.verify import verify

EXPECTED_FILES = {
    "domain.json",
    "README.md",
    "checksums.json",
    "config.json",
    "curve.json",
    "curve.png",
    "finetuning.json",
    "model.safetensors",
    "preprocessor_config.json",
    "test_tensors.safetensors",
}


def arguments(folder, output, **changes) -> FinetuneArguments:
    settings = dict(
        task="segmentation",
        data=str(folder),
        output=str(output),
        scratch="unet2-rf44",
        steps=10,
        batch_size=2,
        crop=32,
        precision="fp32",
    )
    return FinetuneArguments(**{**settings, **changes})


def test_fine_tuning_learns_discs_and_leaves_a_whole_model_folder(labelled_folder, tmp_path):
    output = tmp_path / "out"
    facts = finetune(arguments(labelled_folder, output, steps=60, batch_size=4, learning_rate=3e-3))
    assert {path.name for path in output.iterdir()} == EXPECTED_FILES
    assert facts["best"]["dice"] > 0.9
    test = evaluate(output, labelled_folder, "test")
    assert test["dice"] > 0.85 and test["n"] == 2
    assert f"{facts['best']['dice']:.4f}" in (output / "README.md").read_text()


def test_one_labelled_image_is_learned_by_heart(labelled_folder, tmp_path):
    names = ["0.png"]
    (labelled_folder / "splits.json").write_text(json.dumps({"train": names, "validation": names}))
    settings = dict(steps=100, batch_size=4, learning_rate=5e-3, crop=64, scratch="unet2-rf44-w8")
    facts = finetune(arguments(labelled_folder, tmp_path / "out", **settings))
    assert facts["best"]["dice"] > 0.97 and facts["best"]["boundary_f1"] > 0.95


def test_class_weights_are_counted_or_given_and_stay_with_the_model(labelled_folder, tmp_path):
    data = load_em_dataset(labelled_folder)
    share = np.mean([mask.mean() for mask in data.masks])
    finetune(arguments(labelled_folder, tmp_path / "balanced", steps=1, class_weights="balanced"))
    config = EMForSemanticSegmentation.from_pretrained(tmp_path / "balanced").config
    assert config.class_weights == pytest.approx([0.5 / (1 - share), 0.5 / share])
    finetune(arguments(labelled_folder, tmp_path / "root", steps=1))
    config = EMForSemanticSegmentation.from_pretrained(tmp_path / "root").config
    mean = (1 - share) ** 0.5 + share**0.5  # over the pixels, of one over the root of each one's share
    assert config.class_weights == pytest.approx([(1 - share) ** -0.5 / mean, share**-0.5 / mean])
    finetune(arguments(labelled_folder, tmp_path / "none", steps=1, class_weights="none"))
    assert EMForSemanticSegmentation.from_pretrained(tmp_path / "none").config.class_weights is None
    finetune(arguments(labelled_folder, tmp_path / "given", steps=1, class_weights="0.5,3"))
    assert EMForSemanticSegmentation.from_pretrained(tmp_path / "given").config.class_weights == [0.5, 3.0]
    for wrong in ("1,2,3", "a,b", "0,1"):
        with pytest.raises(EMError, match=r"class.weights are"):
            finetune(arguments(labelled_folder, tmp_path / "wrong", class_weights=wrong))


def test_the_curve_starts_before_the_first_step_and_the_best_step_is_what_is_saved(labelled_folder, tmp_path):
    output = tmp_path / "out"
    facts = finetune(arguments(labelled_folder, output, steps=20))
    curve = json.loads((output / "curve.json").read_text())
    assert [entry["step"] for entry in curve] == list(range(0, 21, 2))
    assert curve[-1]["epoch"] == pytest.approx(20 * 2 / 3, abs=1e-3)
    assert facts["best"] == max(curve, key=lambda entry: entry["dice"])
    assert evaluate(output, labelled_folder, "validation")["dice"] == pytest.approx(facts["best"]["dice"], abs=1e-6)


def test_pretrained_and_scratch_differ_in_the_trunks_first_weights_alone(labelled_folder, tmp_path):
    torch.manual_seed(3)
    EMFoundation(EMFoundationConfig.from_name("unet2-rf44")).save_pretrained(tmp_path / "pretrained")
    starts = {"model": {"model": str(tmp_path / "pretrained"), "scratch": None}, "scratch": {}}
    facts = {name: finetune(arguments(labelled_folder, tmp_path / name, **start)) for name, start in starts.items()}
    differing = {key for key in facts["model"] if facts["model"][key] != facts["scratch"][key]}
    assert differing <= {"start", "seconds", "best"}


def test_the_same_seed_gives_the_same_weights(labelled_folder, tmp_path):
    for name in ("first", "second"):
        finetune(arguments(labelled_folder, tmp_path / name))
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


def test_an_hrnet_fine_tunes_like_a_u_net(labelled_folder, tmp_path):
    facts = finetune(arguments(labelled_folder, tmp_path / "out", scratch="hrnet-w18-small", steps=2))
    assert facts["generator"] == "hrnet-w18-small"
    assert evaluate(tmp_path / "out", labelled_folder, "validation")["dice"] == pytest.approx(
        facts["best"]["dice"], abs=1e-3
    )


def test_one_labelled_image_is_enough_to_run(labelled_folder, tmp_path):
    facts = finetune(arguments(labelled_folder, tmp_path / "out", num_images=1))
    assert facts["images"] == {"train": 1, "validation": 1}
    assert np.isfinite(facts["best"]["dice"])


def test_a_bf16_run_leaves_a_model_that_computes_and_verifies_in_fp32(labelled_folder, tmp_path):
    output = tmp_path / "out"
    finetune(arguments(labelled_folder, output, precision="bf16"))
    assert verify(EMForSemanticSegmentation.from_pretrained(output), output) < 1e-4  # bf16 would be off by 1e-2


def test_crops_without_foreground_train_without_nan(labelled_folder, tmp_path):
    data = load_em_dataset(labelled_folder)
    for mask in data.masks[1:]:
        mask[:] = 0
    model = EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44", id2label=data.id2label))
    args = EMTrainingArguments(output_dir=str(tmp_path / "out"), max_steps=4, per_device_train_batch_size=2, crop=32)
    EMTrainer(model, args, data, data).train()
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_without_a_validation_split_a_fifth_is_held_out(labelled_folder, tmp_path):
    (labelled_folder / "splits.json").unlink()
    facts = finetune(arguments(labelled_folder, tmp_path / "out", steps=2))
    assert facts["images"] == {"train": 5, "validation": 1}


def test_a_model_with_other_classes_is_not_evaluated(labelled_folder, tmp_path):
    config = EMFoundationConfig.from_name("unet2-rf44", id2label={0: "background", 1: "particle"})
    EMForSemanticSegmentation(config).save_pretrained(tmp_path / "other")
    with pytest.raises(EMError, match=r"particle.*disc"):
        evaluate(tmp_path / "other", labelled_folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "segmentatoin"}, "expected one of segmentation"),
        ({"scratch": None}, "--model"),
        ({"model": "unet4-rf200"}, "--scratch"),
        ({"num_images": 9}, "the split has 3"),
        ({"steps": -1}, "^steps is -1"),
        ({"precision": "fp16"}, "one of auto, fp32, bf16"),
    ],
)
def test_wrong_settings_say_what_was_expected(changes, message, labelled_folder, tmp_path):
    with pytest.raises(EMError, match=message):
        finetune(arguments(labelled_folder, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_a_finished_model_is_not_overwritten(labelled_folder, tmp_path):
    finetune(arguments(labelled_folder, tmp_path / "out", steps=1))
    with pytest.raises(EMError, match="holds a finished model"):
        finetune(arguments(labelled_folder, tmp_path / "out"))


def test_a_missing_validation_split_is_held_out_and_a_damaged_one_is_an_error(labelled_folder, tmp_path):
    args = FinetuneArguments("segmentation", str(labelled_folder), str(tmp_path / "out"), scratch="unet2-rf44")
    names = [f"{index}.png" for index in range(6)]
    (labelled_folder / "splits.json").write_text(json.dumps({"train": names}))
    training, validation = read_splits(args)
    assert (len(training), len(validation)) == (5, 1) and sorted(training.names + validation.names) == names
    for damaged, message in (("3.png", "expected a list of file names"), (["../3.png"], "expected paths inside")):
        (labelled_folder / "splits.json").write_text(json.dumps({"train": names, "validation": damaged}))
        with pytest.raises(EMError, match=message):
            read_splits(args)


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        ("segmentation", {"scale": 2}, "--scale is for super-resolution; segmentation has no use for it"),
        ("segmentation", {"residual": False}, "--residual is for denoising, super-resolution, background-removal"),
        ("segmentation", {"degrade": "dose"}, "--degrade is for denoising"),
        ("denoising", {"scale": 2}, "--scale is for super-resolution; denoising"),
        ("denoising", {"class_weights": "none"}, "--class-weights is for segmentation; denoising"),
    ],
)
def test_a_setting_that_the_task_has_no_use_for_is_refused(task, given, message, tmp_path):
    arguments = FinetuneArguments(task, "nowhere", str(tmp_path / "out"), scratch="unet2-rf44", **given)
    with pytest.raises(EMError, match=message):
        finetune(arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "unet2-rf44", "norm": "batch"}, "--norm is for new weights"),
        ({"model": "unet2-rf44", "freeze": "all-but-head", "backbone_lr_scale": 0.5}, "--backbone-lr-scale is the"),
    ],
)
def test_a_setting_without_effect_is_refused(given, message):
    with pytest.raises(EMError, match=message):
        FinetuneArguments("segmentation", "data", "out", **given)


def test_minutes_become_steps_that_are_said(labelled_folder, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("emfm.finetuning.finetune.steps_within", lambda minutes, *rest: round(minutes * 100))
    run = dict(task="segmentation", data=str(labelled_folder), output=str(tmp_path), scratch="unet2-rf44")
    record = finetune(FinetuneArguments(**run, minutes=0.12, batch_size=2, crop=32, precision="fp32"))
    assert record["steps"] == 12 and "12 steps fit into 0.12 minutes" in caplog.text
    assert "--steps 12 --resume" in caplog.text


def test_the_steps_of_a_minute_follow_from_the_time_of_one(labelled_folder, tmp_path):
    from emfm.finetuning.budget import steps_within

    data = load_em_dataset(labelled_folder, "train")
    args = EMTrainingArguments(str(tmp_path), per_device_train_batch_size=2, crop=32, precision="fp32")
    model = build_model(FinetuneArguments("segmentation", str(labelled_folder), "out", scratch="unet2-rf44"), data)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert steps_within(0.2, model, data, args) >= 10
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(EMError, match=r"a step takes .* s here: give"):
        steps_within(1e-5, model, data, args)


@pytest.mark.parametrize(("given", "message"), [({"steps": 5}, "give one of them"), ({"resume": True}, "give --steps")])
def test_minutes_with_what_contradicts_them_are_refused(given, message):
    with pytest.raises(EMError, match=message):
        FinetuneArguments("segmentation", "data", "out", scratch="unet2-rf44", minutes=1.0, **given)
