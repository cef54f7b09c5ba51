"""A figure that does not exist decides nothing, and what the truth lacks is said before the work."""

import json
import logging

import numpy as np
import pytest
from safetensors.torch import load_file

from emfm import EMError, EMForDenoising, EMForSemanticSegmentation, EMFoundationConfig, load_em_dataset
from emfm.data.examples import IGNORED, PairedMicrographs
from emfm.finetuning.course import Course
from emfm.finetuning.evaluate import evaluate_on
from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.finetuning.truth import check_training_truth, check_validation_truth
from emfm.tasks.metrics import RestorationMetrics, SegmentationMetrics


def segmenter(data) -> EMForSemanticSegmentation:
    return EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44", id2label=data.id2label))


def empty_masks(folder, split, value=0):
    """Write one grey value into every mask of a split; return the files' names."""
    from PIL import Image

    names = json.loads((folder / "splits.json").read_text())[split]
    for name in names:
        path = next((folder / "masks").glob(f"{name.rsplit('.', 1)[0]}.*"))
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.full_like(mask, value)).save(path)
    return names


def test_a_class_that_no_mask_holds_has_no_figure_whatever_was_predicted():
    metrics = SegmentationMetrics({0: "background", 1: "particle", 2: "void"})
    truth = np.zeros((8, 8), np.int64)
    truth[:4] = 1
    predicted = truth.copy()
    predicted[7, 7] = 2
    metrics.add(predicted, truth)
    result = metrics.result()
    assert result["per_class"]["void"] == {"dice": None, "iou": None, "boundary_f1": None}
    assert result["dice"] == result["per_class"]["particle"]["dice"] == 1.0


def test_without_foreground_in_the_truth_there_is_no_mean():
    metrics = SegmentationMetrics({0: "background", 1: "particle"})
    metrics.add(np.eye(8, dtype=np.int64), np.zeros((8, 8), np.int64))
    assert metrics.result()["dice"] is None and metrics.majority()["dice"] is None


def test_a_constant_target_is_counted_and_not_measured():
    metrics = RestorationMetrics()
    metrics.add(np.zeros((16, 16)), np.full((16, 16), 7.0))
    assert metrics.result() == {**metrics.result(), "l1": None, "psnr": None, "ssim": None, "n": 1}
    target = np.linspace(0, 100, 256).reshape(16, 16)
    metrics.add(target, target)
    assert metrics.result()["l1"] == 0.0 and metrics.result()["n"] == 2


def test_an_output_that_is_not_finite_has_no_figure():
    metrics = RestorationMetrics()
    metrics.add(np.full((16, 16), np.nan), np.linspace(0, 100, 256).reshape(16, 16))
    assert metrics.result()["l1"] is None


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_the_best_step_is_chosen_by_figures_that_exist_and_else_the_last_is_kept(missing):
    weights = segmenter(type("Data", (), {"id2label": {0: "background", 1: "disc"}}))
    course = Course("dice", greater_is_better=True)
    kept = [course.add(step, None, {"dice": value}, weights) for step, value in enumerate([missing, missing, 0.2])]
    assert kept == [True, True, True]
    assert not course.add(3, None, {"dice": missing}, weights)
    assert course.best(course.curve)["step"] == 2
    assert course.best(course.curve[:2])["step"] == 1


def test_validation_without_foreground_keeps_the_last_weights_and_says_so(labelled_folder, tmp_path, caplog):
    (name,) = empty_masks(labelled_folder, "validation")[:1]
    output = tmp_path / "out"
    settings = {"scratch": "unet2-rf44", "steps": 3, "batch_size": 2, "crop": 32, "precision": "fp32"}
    record = finetune(FinetuneArguments("segmentation", str(labelled_folder), str(output), **settings), False)
    assert "cannot choose the best step" in caplog.text and name in caplog.text
    assert record["best"]["dice"] is None and record["best"]["step"] == 3
    card = (output / "README.md").read_text()
    assert "could not choose a step" in card and "0.0000" not in card
    other = tmp_path / "longer"
    longer = {**settings, "early_stopping": 1}
    finetune(FinetuneArguments("segmentation", str(labelled_folder), str(other), **longer), False)
    first, second = load_file(output / "model.safetensors"), load_file(other / "model.safetensors")
    assert all((first[key] == second[key]).all() for key in first)


def test_training_truth_without_foreground_is_refused_with_the_files_names(labelled_folder, tmp_path):
    names = empty_masks(labelled_folder, "train")
    with pytest.raises(EMError, match=f"no mask holds a pixel of disc .*{names[0]}"):
        finetune(FinetuneArguments("segmentation", str(labelled_folder), str(tmp_path / "o"), scratch="unet2-rf44"))
    assert not (tmp_path / "o").exists()


def test_masks_that_are_all_ignored_and_classes_without_a_pixel_are_named(labelled_folder, caplog):
    data = load_em_dataset(labelled_folder)
    model = segmenter(data)
    data.masks[0][:] = IGNORED
    with caplog.at_level(logging.WARNING):
        check_training_truth(model, data, "the training data")
    assert f"every pixel of the mask is 'ignore' in {data.names[0]}" in caplog.text
    for mask in data.masks:
        mask[:] = IGNORED
    with pytest.raises(EMError, match="nothing to learn: every pixel of the masks is 'ignore'"):
        check_training_truth(model, data, "the training data")
    caplog.clear()
    check_validation_truth(model, data, "the validation data")
    assert "cannot choose the best step" in caplog.text
    for mask in data.masks:
        mask[:] = 1
    caplog.clear()
    with pytest.raises(EMError, match="nothing to tell apart: every labelled pixel is disc"):
        check_training_truth(model, data, "the training data")
    check_validation_truth(model, data, "the validation data")
    assert "no mask holds a pixel of background" in caplog.text


def test_constant_targets_are_named_and_refused_if_there_are_no_others(caplog):
    rng = np.random.default_rng(0)
    images = [rng.normal(100, 10, (32, 32)) for _ in range(2)]
    flat = np.full((32, 32), 3.0)
    model = EMForDenoising(EMFoundationConfig.from_name("unet2-rf44"))
    check_training_truth(model, PairedMicrographs(images, ["a", "b"], [None] * 2, [flat, images[1]]), "they")
    assert "they: the target is constant in a" in caplog.text
    data = PairedMicrographs(images, ["a", "b"], [None] * 2, [flat, flat])
    with pytest.raises(EMError, match=r"they hold nothing to learn: every target is constant \(a, b\)"):
        check_training_truth(model, data, "they")
    assert evaluate_on(model, data)["l1"] is None
