"""Pixels without data take no part in statistics, training and measurement."""

import json
import logging

import numpy as np
import pytest
import tifffile
import torch
from scipy.ndimage import rotate

from emfm import (
    EMError,
    EMForDenoising,
    EMForSemanticSegmentation,
    EMForSuperResolution,
    EMFoundationConfig,
    EMImageProcessor,
    load_em_dataset,
    predict,
)
from emfm.data.croppers import random_corner
from emfm.data.examples import IGNORED, CleanMicrographs, LabelledMicrographs, PairedMicrographs
from emfm.data.restoration_pairs import Degradation
from emfm.finetuning.evaluate import evaluate, evaluate_on
from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.inference.arguments import PredictArguments
from emfm.inference.files import predict_files
from emfm.no_data import without
from emfm.reports.measurements import measure
from emfm.tasks.losses import restoration_loss
from emfm.tasks.metrics import RestorationMetrics

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(1000, 50, (96, 80)).astype(np.float32)
PADDED = IMAGE.copy()
PADDED[:30, :50] = np.nan
NAMES = {0: "background", 1: "disc"}


def model(cls=EMForSemanticSegmentation, **fields):
    torch.manual_seed(0)
    named = {"id2label": NAMES} if cls is EMForSemanticSegmentation else {}
    return cls(EMFoundationConfig.from_name("unet2-rf44", **named, **fields)).eval()


def test_statistics_are_those_of_the_pixels_with_data_and_others_become_the_middle():
    processor, known = EMImageProcessor(), PADDED[~np.isnan(PADDED)]
    statistics = processor.statistics(PADDED)
    low, high = np.percentile(known.astype(np.float64), [1, 99])
    assert (statistics.offset, statistics.scale) == pytest.approx(((low + high) / 2, (high - low) / 2))
    values = processor(PADDED)["pixel_values"][0, 0].numpy()
    assert np.isfinite(values).all() and (values[:30, :50] == 0).all()
    np.testing.assert_array_equal(values[40:], processor.normalize(IMAGE, statistics)[40:])
    with pytest.raises(EMError, match="holds no data: every pixel is NaN"):
        processor.statistics(np.full((8, 8), np.nan))
    with pytest.raises(EMError, match="1 infinite values, the first at row 2, column 3"):
        processor.statistics(np.where(np.arange(64).reshape(8, 8) == 19, np.inf, 1.0))


@pytest.mark.parametrize(("dtype", "expected"), [("u1", "f4"), ("u2", "f4"), ("f4", "f4"), ("i4", "f8"), ("f8", "f8")])
def test_a_stated_value_becomes_nan(dtype, expected):
    image = np.array([[0, 7], [100, 0]], dtype)
    found = without(image, 0)
    assert found.dtype == np.dtype(expected)
    np.testing.assert_array_equal(found, [[np.nan, 7], [100, np.nan]])
    assert without(image, None) is image


def test_results_say_where_there_are_no_data_whatever_the_tile():
    segmenter, denoiser, enlarger = model(), model(EMForDenoising), model(EMForSuperResolution, scale=2)
    missing = np.isnan(PADDED)
    classes = predict(segmenter, PADDED).output
    assert (classes[missing] == 255).all() and (classes[~missing] < 2).all()
    restored = predict(denoiser, PADDED).output
    np.testing.assert_array_equal(np.isnan(restored), missing)
    enlarged = predict(enlarger, PADDED).output
    np.testing.assert_array_equal(np.isnan(enlarged), missing.repeat(2, 0).repeat(2, 1))
    tiled = predict(denoiser, PADDED, tile=64).output
    np.testing.assert_array_equal(np.isnan(tiled), missing)
    stated = np.where(missing, 0, IMAGE.astype(np.uint16)).astype(np.uint16)
    np.testing.assert_array_equal(predict(segmenter, stated, nodata=0).output == 255, missing)


def test_files_name_the_pixels_without_data_and_tables_leave_them_out(tmp_path, caplog):
    tifffile.imwrite(tmp_path / "a.tif", PADDED)
    with caplog.at_level(logging.WARNING):
        (entry,) = predict_files(model(), [tmp_path / "a.tif"], tmp_path / "out")
    assert "a.tif: 1500 pixels hold no data" in caplog.text
    assert json.loads((tmp_path / "out" / "labels.json").read_text())["255"] == "ignore"
    classes = tifffile.imread(entry["output"])
    share = json.loads((tmp_path / "out" / "a_summary.json").read_text())["classes"]["disc"]["area_share"]
    assert share == pytest.approx((classes == 1).sum() / (96 * 80 - 1500), abs=1e-6)
    (again,) = predict_files(model(), [tmp_path / "a.tif"], tmp_path / "out")
    assert again["skipped"]
    (stated,) = predict_files(model(EMForDenoising), [tmp_path / "a.tif"], tmp_path / "r", PredictArguments(nodata=0.0))
    assert np.isnan(tifffile.imread(stated["output"])).sum() == 1500


def test_a_region_beside_pixels_without_data_counts_as_cut():
    classes = np.zeros((20, 20), np.uint8)
    classes[5:9, 5:9] = classes[12:16, 12:16] = 1
    classes[:, :5] = 255
    found = measure(classes, NAMES, 2.0)
    assert found.touches_border.tolist() == [True, False] and found.known == 300
    assert found.summary()["classes"]["disc"]["area_share"] == pytest.approx(32 / 300, abs=1e-6)


def test_what_has_no_data_is_ignored_in_masks_targets_and_losses():
    masks = [np.ones(PADDED.shape, np.int16)]
    data = LabelledMicrographs([PADDED], ["a"], [None], masks, NAMES)
    assert (data.masks[0][:30, :50] == IGNORED).all() and (data.masks[0] == 1).sum() == 96 * 80 - 1500
    pairs = PairedMicrographs([PADDED], ["a"], [None], [IMAGE.astype(np.uint16)])
    np.testing.assert_array_equal(np.isnan(pairs.targets[0]), np.isnan(PADDED))
    clean = CleanMicrographs([PADDED], ["a"], [None], Degradation("dose"))
    np.testing.assert_array_equal(np.isnan(clean.to_measure().images[0]), np.isnan(PADDED))
    output, target = torch.zeros(1, 1, 2, 2), torch.tensor([[[[np.nan, 2.0], [np.nan, 2.0]]]])
    assert restoration_loss(output, target).item() == 6.0
    assert restoration_loss(output, target * np.nan).item() == 0.0


def test_metrics_of_images_count_the_pixels_with_data_alone():
    target = RNG.normal(0, 1, (40, 40))
    output = target + RNG.normal(0, 0.1, (40, 40))
    part, missing = RestorationMetrics(), target.copy()
    missing[:, :10] = np.nan
    part.add(np.where(np.isnan(missing), 1e9, output), missing)
    statistics = EMImageProcessor().statistics(missing)
    expected = np.abs(output - target)[:, 10:].mean() / (2 * statistics.scale)
    assert part.result()["l1"] == pytest.approx(expected)
    assert 0.5 < part.result()["ssim"] < 1


def test_crops_are_drawn_where_there_are_data():
    image = np.full((200, 200), np.nan, np.float32)
    image[120:, 120:] = 1
    corners = [random_corner(np.random.default_rng(seed), image, 64) for seed in range(20)]
    shares = [np.isfinite(image[top : top + 64, left : left + 64]).mean() for top, left in corners]
    assert np.mean(shares) > 0.4
    same = np.random.default_rng(3)
    assert random_corner(np.random.default_rng(3), IMAGE, 32) == (int(same.integers(65)), int(same.integers(49)))


@pytest.mark.parametrize("task", ["segmentation", "denoising"])
def test_rotated_micrographs_train_and_are_measured_with_a_line_that_names_them(
    task, labelled_folder, tmp_path, caplog
):
    for path in sorted((labelled_folder / "images").glob("*"))[:8]:
        turned = rotate(tifffile.imread(path) if path.suffix == ".tif" else load(path), 20, reshape=False, cval=np.nan)
        path.unlink()
        tifffile.imwrite(path.with_suffix(".tif"), turned.astype(np.float32))
    rename_splits(labelled_folder)
    degrade = {"degrade": "dose"} if task == "denoising" else {}
    settings = {"scratch": "unet2-rf44", "steps": 4, "batch_size": 2, "crop": 32, "precision": "fp32", **degrade}
    record = finetune(FinetuneArguments(task, str(labelled_folder), str(tmp_path / "o"), **settings), False)
    assert "the training data: pixels without data are left out: " in caplog.text
    assert np.isfinite(record["best"][record["figure_of_merit"]])
    figures = evaluate(tmp_path / "o", labelled_folder, "test", **degrade)
    assert figures["n"] == 2 and figures[record["figure_of_merit"]] is not None


def load(path):
    from PIL import Image

    return np.asarray(Image.open(path)).astype(np.float32)


def rename_splits(folder):
    splits = json.loads((folder / "splits.json").read_text())
    renamed = {split: [f"{name.rsplit('.', 1)[0]}.tif" for name in names] for split, names in splits.items()}
    (folder / "splits.json").write_text(json.dumps(renamed))


def test_errors_about_data_name_the_file(labelled_folder):
    data = load_em_dataset(labelled_folder)
    data.images[1] = np.full(data.images[1].shape, np.inf, np.float32)
    network = EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44", id2label=data.id2label))
    with pytest.raises(EMError, match=f"^{data.names[1]}: .*infinite"):
        evaluate_on(network, data)
