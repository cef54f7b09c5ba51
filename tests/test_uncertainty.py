"""How unsure a result is: entropy of classes and objects, spread of restored values, in tiles and files."""

import json

import numpy as np
import pytest
import tifffile
import torch
from test_cli import emfm  # noqa: F401  (a fixture)

from emfm import (
    EMForDenoising,
    EMForInstanceSegmentation,
    EMForSemanticSegmentation,
    EMFoundationConfig,
    predict,
)
from emfm.tasks.losses import entropy

IMAGE = np.random.default_rng(0).normal(100, 20, (64, 300)).astype(np.float32)


def build(cls, **fields):
    torch.manual_seed(0)
    return cls(EMFoundationConfig.from_name("unet2-rf44", **fields)).eval()


def segmenter():
    return build(EMForSemanticSegmentation, id2label={0: "a", 1: "b", 2: "c"})


def test_the_entropy_is_0_where_sure_and_1_where_all_are_alike():
    probabilities = torch.tensor([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0]]).T[None, :, :, None]
    found = entropy(probabilities)[0, :, 0]
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, np.log(2) / np.log(3)], dtype=torch.float32))


def symmetric(model):
    """Return the model's maps of the eight symmetries, turned back, by numpy."""
    statistics = model.processor.statistics(IMAGE)
    values = model.processor.normalize(IMAGE, statistics)
    found = []
    for mirrored in (False, True):
        for quarters in range(4):
            turned = np.rot90(values[:, ::-1] if mirrored else values, quarters)
            maps = model.maps(torch.from_numpy(turned.copy())[None, None])[0].numpy()
            back = np.rot90(maps, -quarters, axes=(1, 2))
            found.append(back[:, :, ::-1] if mirrored else back)
    return np.stack(found), statistics


def test_that_of_classes_is_the_entropy_of_the_mean_over_the_symmetries():
    model = segmenter()
    maps, _ = symmetric(model)
    mean = maps.mean(axis=0)
    expected = -(mean * np.log(mean)).sum(axis=0) / np.log(3)
    found = predict(model, IMAGE, uncertainty=True)
    np.testing.assert_allclose(found.uncertainty, expected, atol=1e-4)
    np.testing.assert_array_equal(found.output, mean.argmax(axis=0))
    tiled = predict(model, IMAGE, uncertainty=True, tile=128)
    np.testing.assert_allclose(tiled.uncertainty, expected, atol=1e-3)
    assert predict(model, IMAGE).uncertainty is None


def test_that_of_a_restored_micrograph_is_the_spread_in_its_units():
    model = build(EMForDenoising)
    torch.nn.init.normal_(model.image_head.weight, 0, 0.5)
    maps, statistics = symmetric(model)
    found = predict(model, IMAGE, uncertainty=True).uncertainty
    np.testing.assert_allclose(found, maps[:, 0].std(axis=0) * statistics.scale, rtol=1e-3, atol=1e-3)


def test_objects_and_pixels_without_data():
    image = IMAGE.copy()
    image[:10] = np.nan
    found = predict(build(EMForInstanceSegmentation), image, uncertainty=True)
    assert np.isnan(found.uncertainty[:10]).all() and np.isfinite(found.uncertainty[10:]).all()
    assert found.uncertainty[10:].min() >= 0 and found.uncertainty[10:].max() <= 1


def test_it_is_resampled_with_the_result():
    model = segmenter()
    model.config.pixel_size_range = [2.0, 2.0]
    from emfm.io.reading import Micrograph

    found = predict(model, Micrograph(IMAGE, 1.0, "a"), uncertainty=True, match_pixel_size=True)
    assert (
        found.uncertainty.shape == IMAGE.shape and -0.1 <= found.uncertainty.min() <= found.uncertainty.max() <= 1.1
    )  # a cubic overshoots


@pytest.mark.parametrize("form", ["tif", "npy"])
def test_it_is_written_beside_the_result(form, tmp_path, emfm):  # noqa: F811
    segmenter().save_pretrained(tmp_path / "model")
    tifffile.imwrite(tmp_path / "a.tif", IMAGE)
    given = ("--model", tmp_path / "model", "--output", tmp_path / "out", "--uncertainty", "--format", form)
    code, _, err = emfm("predict", tmp_path / "a.tif", *given)
    assert code == 0, err
    path = tmp_path / "out" / f"a_uncertainty.{form}"
    written = np.load(path) if form == "npy" else tifffile.imread(path)
    np.testing.assert_allclose(written, predict(segmenter(), IMAGE, uncertainty=True).uncertainty, atol=1e-6)
    assert json.loads((tmp_path / "out" / f"a.{form}.json").read_text())["shown"]["uncertainty"] == path.name
