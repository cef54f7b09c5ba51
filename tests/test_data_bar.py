"""Rows that a microscope wrote its settings into: left out where a file tells, else warned of."""

import json
import logging

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from emfm import (
    EMForDenoising,
    EMForSemanticSegmentation,
    EMForSuperResolution,
    EMFoundationConfig,
    load_em_dataset,
    predict,
    read_micrograph,
)
from emfm.app.reading import read_upload
from emfm.data.unlabelled import open_micrographs
from emfm.finetuning.truth import check_training_truth
from emfm.inference.files import predict_files
from emfm.io.bar_look import seen_data_bar
from emfm.no_data import say_data_bar
from emfm.processing import EMImageProcessor

RNG = np.random.default_rng(0)
SPECIMEN = RNG.integers(60, 200, (96, 80), dtype=np.uint8)
BAR = 24
FEI = "[Beam]\r\nHV=5000\r\n[Scan]\r\nPixelWidth=2e-9\r\n[Image]\r\nResolutionX=80\r\nResolutionY={}\r\n"


def with_bar(ground=0, ink=255):
    """Letters, every other pixel of every fourth row, on an even ground."""
    bar = np.full((BAR, 80), ground, np.uint8)
    bar[4:-4:4, 10:60:2] = ink
    return np.vstack([SPECIMEN, bar])


def fei(path, rows=96):
    tag = (34682, "s", 0, FEI.format(rows), True)
    tifffile.imwrite(path, with_bar(), photometric="minisblack", extratags=[tag], metadata=None)
    return path


def model(cls=EMForSemanticSegmentation, **fields):
    torch.manual_seed(0)
    named = {"id2label": {0: "background", 1: "disc"}} if cls is EMForSemanticSegmentation else {}
    return cls(EMFoundationConfig.from_name("unet2-rf44", **named, **fields)).eval()


@pytest.fixture(autouse=True)
def said_anew():
    say_data_bar.cache_clear()


def test_fei_and_tescan_headers_tell_the_rows_of_the_bar(tmp_path):
    found = read_micrograph(fei(tmp_path / "a.tif"))
    assert (found.data_bar, found.array.shape) == (BAR, (120, 80))
    np.testing.assert_array_equal(found.without_data_bar().array, SPECIMEN)
    tescan = (50431, "s", 0, "[MAIN]\r\nImageStripSize=24\r\n", True)
    tifffile.imwrite(tmp_path / "b.tif", with_bar(), extratags=[tescan], metadata=None)
    assert read_micrograph(tmp_path / "b.tif").data_bar == BAR


@pytest.mark.parametrize("rows", [120, 20, 500, -1])
def test_a_header_that_leaves_no_bar_or_an_absurd_one_is_not_believed(rows, tmp_path):
    assert read_micrograph(fei(tmp_path / "a.tif", rows)).data_bar == 0


def test_results_are_those_of_the_specimen_alone(tmp_path):
    whole, alone = read_micrograph(fei(tmp_path / "a.tif")), SPECIMEN
    classes = predict(model(), whole).output
    np.testing.assert_array_equal(classes[:96], predict(model(), alone).output)
    assert (classes[96:] == 255).all()
    restored = predict(model(EMForDenoising), whole).output
    np.testing.assert_array_equal(restored[:96], predict(model(EMForDenoising), alone).output)
    np.testing.assert_array_equal(restored[96:], with_bar()[96:])
    larger = predict(model(EMForSuperResolution, scale=2), whole).output
    np.testing.assert_array_equal(larger[192:], with_bar()[96:].repeat(2, 0).repeat(2, 1))


def test_predict_says_what_it_leaves_out_and_labels_it_ignore(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        predict_files(model(), [fei(tmp_path / "a.tif")], tmp_path / "out")
    assert "a.tif: the 24 rows of the microscope's data bar are left out" in caplog.text
    assert json.loads((tmp_path / "out" / "labels.json").read_text())["255"] == "ignore"


def test_training_and_pretraining_see_the_specimen_alone(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    fei(tmp_path / "images" / "a.tif")
    mask = np.zeros((120, 80), np.uint8)
    mask[20:40, 20:40] = mask[100:] = 1
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    data = load_em_dataset(tmp_path)
    np.testing.assert_array_equal(data.images[0], SPECIMEN)
    np.testing.assert_array_equal(data.masks[0], mask[:96])
    Image.fromarray(mask[:96]).save(tmp_path / "masks" / "a.png")  # drawn without the bar
    np.testing.assert_array_equal(load_em_dataset(tmp_path).masks[0], mask[:96])
    image, statistics = open_micrographs(str(tmp_path / "images"), EMImageProcessor())[0]
    np.testing.assert_array_equal(image, SPECIMEN)
    assert statistics == EMImageProcessor().statistics(SPECIMEN)


def test_the_page_knows_the_bar_of_an_upload(tmp_path):
    (tmp_path / "own").mkdir()
    assert read_upload(fei(tmp_path / "a.tif"), tmp_path / "own").data_bar == BAR


@pytest.mark.parametrize(("ground", "ink"), [(0, 255), (255, 0), (30, 220)])
def test_a_bar_that_no_header_tells_of_is_seen(ground, ink):
    assert abs(seen_data_bar(with_bar(ground, ink)) - BAR) <= 3


def test_specimens_are_not_taken_for_bars():
    empty = np.zeros((96, 80), np.uint8)
    dark = SPECIMEN.copy()
    dark[60:][RNG.random((36, 80)) < 0.3] = 0  # vacuum that clips to black below
    floats = with_bar().astype(np.float32)
    few_values = with_bar() // 60
    images = (SPECIMEN, empty, dark, floats, few_values, SPECIMEN[:9])
    assert [seen_data_bar(image) for image in images] == [0] * 6


def test_training_and_prediction_warn_of_bars_that_are_seen(tmp_path, caplog):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.fromarray(with_bar()).save(tmp_path / "images" / "a.png")
    Image.fromarray(np.eye(120, 80, dtype=np.uint8)).save(tmp_path / "masks" / "a.png")
    check_training_truth(model(), load_em_dataset(tmp_path), "training masks")
    predict_files(model(), [tmp_path / "images" / "a.png"], tmp_path / "out")
    lines = [line for line in caplog.messages if "looks like a microscope's data bar" in line]
    assert len(lines) == 2 and all("a.png (about 2" in line for line in lines)
