"""Several models in one prediction: the mean of their maps, their disagreement, and what does not fit."""

import json

import numpy as np
import pytest
import tifffile
import torch
from test_cli import emfm  # noqa: F401  (a fixture)

from emfm import EMError, EMForDenoising, EMForSemanticSegmentation, EMFoundationConfig, predict

IMAGE = np.random.default_rng(0).normal(100, 20, (64, 200)).astype(np.float32)


def build(cls, seed, name="unet2-rf44", **fields):
    torch.manual_seed(seed)
    return cls(EMFoundationConfig.from_name(name, **fields)).eval()


def segmenter(seed, name="unet2-rf44", labels=("a", "b")):
    return build(EMForSemanticSegmentation, seed, name, id2label=dict(enumerate(labels)))


def maps_of(model):
    values = model.processor.normalize(IMAGE, model.processor.statistics(IMAGE))
    return model.maps(torch.from_numpy(values)[None, None])[0].numpy()


def test_the_mean_of_the_maps_decides_and_the_entropy_of_the_mean_is_the_doubt():
    models = [segmenter(0), segmenter(1, "unet3-rf96")]  # of other strides, too
    mean = np.mean([maps_of(model) for model in models], axis=0)
    found = predict(models, IMAGE, uncertainty=True)
    np.testing.assert_array_equal(found.output, mean.argmax(axis=0))
    expected = -(mean * np.log(np.maximum(mean, 1e-12))).sum(axis=0) / np.log(2)
    np.testing.assert_allclose(found.uncertainty, expected, atol=1e-4)
    tiled = predict(models, IMAGE, uncertainty=True, tile=128)
    np.testing.assert_allclose(tiled.uncertainty, expected, atol=5e-3)


def test_restored_values_are_means_and_the_spread_is_the_doubt():
    models = [build(EMForDenoising, seed) for seed in (0, 1)]
    for model in models:
        torch.nn.init.normal_(model.image_head.weight, 0, 0.5)
    alone = [predict(model, IMAGE).output for model in models]
    found = predict(models, IMAGE, uncertainty=True)
    np.testing.assert_allclose(found.output, np.mean(alone, axis=0), rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(found.uncertainty, np.std(alone, axis=0), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: segmenter(1, labels=("a", "c")), "cannot be predicted together: classes"),
        (lambda: build(EMForDenoising, 1), "cannot be predicted together: task EMForDenoising"),
        (lambda: 7, "model is int; expected a model"),
    ],
)
def test_models_of_other_kinds_are_refused(other, message):
    with pytest.raises(EMError, match=message):
        predict([segmenter(0), other()], IMAGE)
    with pytest.raises(EMError, match="no model was given"):
        predict([], IMAGE)


def test_the_command_line_takes_several_and_the_order_does_not_matter(tmp_path, emfm):  # noqa: F811
    for seed in (0, 1):
        segmenter(seed).save_pretrained(tmp_path / f"model{seed}")
    tifffile.imwrite(tmp_path / "a.tif", IMAGE)
    both = [("--model", tmp_path / f"model{seed}") for seed in (0, 1)]
    given = ("predict", tmp_path / "a.tif", "--output", tmp_path / "out", "--uncertainty", "--json")
    code, out, err = emfm(*given, *both[0], *both[1])
    assert code == 0, err
    (entry,) = json.loads(out)
    assert entry["unsure"].endswith("a_unsure.png") and 0 <= entry["confidence"]["share_below"] <= 1
    expected = predict([segmenter(0), segmenter(1)], IMAGE)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / "a.tif"), expected.output)
    _, out, _ = emfm(*given, *both[1], *both[0])
    assert json.loads(out)[0]["skipped"]
    code, _, err = emfm(*given, *both[0])
    assert code == 2 and "is the result of another model" in err
