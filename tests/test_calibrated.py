"""Probabilities that are what they say: offsets and temperature, their error, and where they are used."""

import json

import numpy as np
import pytest
import torch

from emfm import EMForDenoising, EMForSemanticSegmentation, EMFoundationConfig, predict
from emfm.data.examples import LabelledMicrographs
from emfm.errors import EMError
from emfm.finetuning.calibration import fit_calibration, note_calibration
from emfm.finetuning.evaluate import evaluate_on
from emfm.tasks.reliability import Reliability

IMAGE = np.random.default_rng(0).normal(100, 20, (96, 128)).astype(np.float32)
LABELS = {0: "background", 1: "particle"}


def segmenter(**fields):
    torch.manual_seed(0)
    return EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44", id2label=LABELS, **fields)).eval()


def drawn_from(model, sharper, offset=0.0):
    """Return micrographs whose classes are drawn from the model's probabilities, made surer.

    Particles are likelier than the model says by an offset of their logit.
    """
    rng = np.random.default_rng(1)
    images = [rng.normal(100, 20, (96, 128)).astype(np.float32) for _ in range(3)]
    masks = []
    for image in images:
        values = model.processor.normalize(image, model.processor.statistics(image))
        logits = model(torch.from_numpy(values)[None, None]).logits[0].detach()
        logits[1] += offset
        chance = (sharper * logits).softmax(dim=0)[1].numpy()
        masks.append((rng.random(image.shape) < chance).astype(np.int16))
    return LabelledMicrographs(images, ["a", "b", "c"], [None] * 3, masks, LABELS)


def test_the_error_is_how_far_confidence_and_accuracy_are_apart():
    counts = Reliability()
    probabilities = np.array([[0.8, 0.8, 0.8, 0.8, 0.4], [0.2, 0.2, 0.2, 0.2, 0.6]])[:, None]
    counts.add(probabilities, np.array([[0, 0, 0, 1, -100]]))
    assert counts.error == pytest.approx(0.05)  # 0.8 of four, of which three are right
    counts.add(probabilities, np.array([[-100, -100, -100, -100, 0]]))
    assert counts.error == pytest.approx((4 * 0.05 + 0.6) / 5)
    assert Reliability().error is None


@pytest.mark.parametrize("sharper", [0.5, 1.0, 3.0])
def test_the_temperature_is_that_of_which_the_classes_were_drawn(sharper):
    model = segmenter()
    data = drawn_from(model, sharper)
    assert fit_calibration(model, data).temperature == pytest.approx(1 / sharper, rel=0.12)
    model.config.temperature = 7.0  # its own does not matter
    assert fit_calibration(model, data).temperature == pytest.approx(1 / sharper, rel=0.12)
    assert model.config.temperature == 7.0
    model.config.temperature = 1 / sharper
    assert evaluate_on(model, data)["calibration_error"] < 0.02


def test_the_offsets_are_those_of_which_the_classes_were_drawn():
    model = segmenter()
    data = drawn_from(model, 2.0, 0.4)
    before = evaluate_on(model, data)
    found = fit_calibration(model, data, data)
    first, second = found.class_offsets
    assert second - first == pytest.approx(0.4, abs=0.05) and found.temperature == pytest.approx(0.5, rel=0.12)
    model.config.temperature, model.config.class_offsets = found.temperature, found.class_offsets
    after = evaluate_on(model, data)
    assert after["dice"] > before["dice"] + 0.1 and after["calibration_error"] < 0.02
    values = torch.randn(1, 1, 64, 64)
    logits = (model(values).logits + torch.tensor(found.class_offsets).view(1, -1, 1, 1)) / found.temperature
    torch.testing.assert_close(model.maps(values), logits.softmax(dim=1).detach())


def test_offsets_that_lower_the_dice_of_validation_are_none():
    model = segmenter()
    data = drawn_from(model, 2.0, -0.4)  # no particle anywhere would be likeliest
    found = fit_calibration(model, data)
    assert found.class_offsets is None


def test_other_classes_and_another_training_have_no_offsets(tmp_path):
    segmenter(class_offsets=[0.0, 1.5]).save_pretrained(tmp_path)
    assert EMForSemanticSegmentation.from_pretrained(tmp_path).config.class_offsets == [0.0, 1.5]
    other = EMFoundationConfig.from_pretrained(tmp_path, id2label={0: "a", 1: "b", 2: "c"})
    assert other.class_offsets is None
    with pytest.raises(EMError, match="class_offsets are"):
        segmenter(class_offsets=[0.0])


def test_no_class_changes_and_the_probabilities_are_those_of_divided_logits():
    plain, hot = segmenter(), segmenter(temperature=4.0)
    values = torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(hot.maps(values), (plain(values).logits / 4).softmax(dim=1).detach())
    first, second = predict(plain, IMAGE), predict(hot, IMAGE)
    np.testing.assert_array_equal(first.output, second.output)
    assert second.confidence["mean"] < first.confidence["mean"]


def test_the_share_of_unsure_pixels_is_counted_of_all_and_by_class():
    model = segmenter()
    found = predict(model, IMAGE).confidence
    values = model.processor.normalize(IMAGE, model.processor.statistics(IMAGE))
    maps = model.maps(torch.from_numpy(values)[None, None])[0].numpy()
    unsure = maps.max(axis=0) < 0.9
    assert found["stated"] == 0.9 and found["share_below"] == pytest.approx(unsure.mean(), abs=1e-3)
    for index, label in LABELS.items():
        own = maps.argmax(axis=0) == index
        expected = None if not own.any() else pytest.approx(unsure[own].mean(), abs=1e-3)
        assert found["classes"][label] == expected
    assert predict(EMForDenoising(EMFoundationConfig.from_name("unet2-rf44")), IMAGE).confidence is None


def test_it_is_kept_in_the_configuration_and_wrong_ones_are_refused(tmp_path):
    model = segmenter()
    model.save_pretrained(tmp_path)
    note_calibration(model, drawn_from(model, 2.0), None, str(tmp_path))
    assert model.config.temperature == pytest.approx(0.5, rel=0.12)
    assert json.loads((tmp_path / "config.json").read_text())["temperature"] == model.config.temperature
    again = EMForSemanticSegmentation.from_pretrained(tmp_path)
    assert again.config.temperature == model.config.temperature
    assert again.config.class_offsets == model.config.class_offsets
    with pytest.raises(EMError, match="temperature is 0"):
        segmenter(temperature=0.0)
