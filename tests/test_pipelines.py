"""transformers' pipelines give what `predict` gives, whatever the bit depth and size of the micrograph."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

import emfm.auto  # noqa: F401  (registers the pipelines)
from emfm import (
    EMError,
    EMForBackgroundRemoval,
    EMForDenoising,
    EMForSemanticSegmentation,
    EMForSuperResolution,
    EMFoundation,
    EMFoundationConfig,
    predict,
)
from emfm.io.reading import read_micrograph
from emfm.io.writing import write_image

CLASSES = {0: "background", 1: "particle", 2: "pore"}
RESTORERS = (EMFoundation, EMForDenoising, EMForBackgroundRemoval, EMForSuperResolution)
# brighter than 8 bits, with a gradient, so that statistics of a tile differ from those of the whole
ROWS, COLUMNS = np.mgrid[:90, :130]
IMAGE = (300 + 60 * ROWS + 150 * COLUMNS + np.random.default_rng(0).normal(0, 400, (90, 130))).clip(0).astype(np.uint16)


def saved(cls, folder, **fields):
    torch.manual_seed(0)
    model = cls(EMFoundationConfig.from_name("unet2-rf44", **fields)).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("cls", RESTORERS)
def test_a_restoration_is_that_of_predict_in_the_inputs_dtype_and_units(cls, tmp_path):
    model = saved(cls, tmp_path / "model")
    restorer = pipeline("em-image-to-image", model=str(tmp_path / "model"))
    assert type(restorer.model) is cls
    for image in (IMAGE, IMAGE.astype(np.float32) / 7, (IMAGE // 256).astype(np.uint8)):
        found = restorer(image)
        assert found["image"].dtype == image.dtype and found["pixel_size"] is None and found["name"] == "array"
        assert np.array_equal(found["image"], predict(model, image).output)
        assert found["image"].shape == tuple(side * model.scale for side in image.shape)


def test_paths_arrays_images_and_lists_of_them_are_taken_and_the_pixel_size_is_kept(tmp_path):
    model = saved(EMForSuperResolution, tmp_path / "model", scale=2)
    restorer = pipeline("em-image-to-image", model=str(tmp_path / "model"))
    write_image(tmp_path / "a.tif", IMAGE, pixel_size=0.5)
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    expected = predict(model, IMAGE).output
    picture = Image.open(tmp_path / "a.png")
    assert picture.mode == "I;16"
    given = [
        str(tmp_path / "a.tif"),
        tmp_path / "a.png",
        picture,
        torch.from_numpy(IMAGE),
        IMAGE,
        read_micrograph(tmp_path / "a.tif"),
    ]
    answers = restorer(given)
    assert all(np.array_equal(answer["image"], expected) for answer in answers)
    assert [answer["pixel_size"] for answer in answers] == [
        pytest.approx(0.25),
        None,
        None,
        None,
        None,
        pytest.approx(0.25),
    ]
    assert [answer["name"] for answer in answers[:3]] == ["a.tif", "a.png", "array"]
    assert [answer["name"] for answer in restorer(image for image in given[:2])] == ["a.tif", "a.png"]


def test_tiles_have_the_statistics_of_the_whole_micrograph(tmp_path):
    model = saved(EMForDenoising, tmp_path / "model")
    restorer = pipeline("em-image-to-image", model=str(tmp_path / "model"), tile=64)
    tiled = predict(model, IMAGE, tile=64).output
    assert not np.array_equal(tiled, predict(model, IMAGE).output)
    assert np.array_equal(restorer(IMAGE)["image"], tiled)
    assert np.array_equal(restorer(IMAGE, tile=1024)["image"], predict(model, IMAGE).output)


def test_a_model_in_memory_serves_too_and_a_zoo_name_by_from_pretrained():
    restorer = pipeline("em-image-to-image", model=EMFoundation.from_pretrained("unet4-rf200"))
    assert np.array_equal(restorer(IMAGE)["image"], predict("unet4-rf200", IMAGE).output)


@pytest.mark.parametrize("tile", [1024, 64])
def test_a_segmentation_of_sixteen_bits_is_that_of_predict_and_nothing_is_logged(tile, tmp_path, caplog):
    model = saved(EMForSemanticSegmentation, tmp_path / "model", id2label=CLASSES)
    write_image(tmp_path / "a.tif", IMAGE)
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    segmenter = pipeline("image-segmentation", model=str(tmp_path / "model"))
    expected = predict(model, IMAGE, tile).output
    for image in (tmp_path / "a.tif", str(tmp_path / "a.png"), IMAGE, Image.open(tmp_path / "a.png")):
        parts = segmenter(image, tile=tile) if tile != 1024 else segmenter(image)
        found = np.full(IMAGE.shape, 255, np.uint8)
        for part in parts:
            assert part.keys() == {"score", "label", "mask"} and part["mask"].mode == "L"
            found[np.asarray(part["mask"]) == 255] = model.config.label2id[part["label"]]
        assert np.array_equal(found, expected)
    assert len(segmenter([IMAGE, IMAGE[:40]])) == 2
    logger.removeHandler(caplog.handler)
    assert "not supported" not in caplog.text


def test_other_models_are_segmented_as_transformers_does():
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor
    from transformers.pipelines import ImageSegmentationPipeline

    torch.manual_seed(0)
    sizes = dict(depths=[1] * 4, hidden_sizes=[4, 8, 8, 8], num_attention_heads=[1] * 4, decoder_hidden_size=8)
    model = SegformerForSemanticSegmentation(SegformerConfig(num_labels=2, **sizes)).eval()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8))
    processor = SegformerImageProcessor(size={"height": 64, "width": 64})
    through_registry = pipeline("image-segmentation", model=model, image_processor=processor)
    stock = ImageSegmentationPipeline(model=model, image_processor=processor, task="image-segmentation")
    for found, expected in zip(through_registry(picture), stock(picture), strict=True):
        assert found["label"] == expected["label"]
        assert np.array_equal(np.asarray(found["mask"]), np.asarray(expected["mask"]))


def test_wrong_input_is_an_error_that_says_what_was_expected(tmp_path):
    saved(EMForSemanticSegmentation, tmp_path / "segmenter", id2label=CLASSES)
    model = saved(EMForDenoising, tmp_path / "model")
    with pytest.raises(EMError, match="EMForSemanticSegmentation is no model for em-image-to-image"):
        pipeline("em-image-to-image", model=str(tmp_path / "segmenter"))
    restorer = pipeline("em-image-to-image", model=model)
    for given, message in (
        (str(tmp_path / "none.tif"), "there is no file"),
        ("https://example.org/a.png", "download it first"),
        (np.zeros((3, 8, 8)), "expected a micrograph of shape"),
        (Image.new("RGB", (8, 8), "red"), "in colour"),
    ):
        with pytest.raises(EMError, match=message):
            restorer(given)
    with pytest.raises(EMError, match="batch_size is 4"):
        restorer([IMAGE, IMAGE], batch_size=4)
    with pytest.raises(EMError, match="does not know strength"):
        restorer(IMAGE, strength=2)
    segmenter = pipeline("image-segmentation", model=str(tmp_path / "segmenter"))
    with pytest.raises(EMError, match="does not know threshold"):
        segmenter(IMAGE, threshold=0.5)
    with pytest.raises(EMError, match="subtask is 'panoptic'"):
        segmenter(IMAGE, subtask="panoptic")
    with pytest.raises(EMError, match="batch_size is 4"):
        segmenter([IMAGE, IMAGE], batch_size=4)
