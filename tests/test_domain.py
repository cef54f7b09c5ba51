"""Outside of what a model knows: descriptors, what is kept with a model, warnings and records."""

import json
import logging

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from emfm import EMError, EMForSemanticSegmentation, predict
from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.hub.verify import verify
from emfm.inference.domain import descriptors, domain_of, place_of
from emfm.inference.files import predict_files
from emfm.loading.domain import read_domain, write_domain
from emfm.tasks import load_model


def grains(seed, size=6.0, noise=0.1, side=256):
    rng = np.random.default_rng(seed)
    structure = ndimage.gaussian_filter(rng.normal(size=(side, side)), size)
    return (100 + 20 * structure / structure.std() + 20 * noise * rng.normal(size=(side, side))).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    return EMForSemanticSegmentation.from_pretrained("unet2-rf44", id2label={0: "a", 1: "b"})


@pytest.fixture(scope="module")
def domain(model):
    return domain_of(model, [grains(seed) for seed in range(5)])


def test_descriptors_follow_what_they_are_called_by(model):
    usual = descriptors(model, grains(0))
    assert descriptors(model, grains(0) * 7 + 1000)["noise"] == pytest.approx(usual["noise"], abs=1e-3)  # units
    assert descriptors(model, grains(0, noise=0.8))["noise"][0] > usual["noise"][0] + 0.5
    assert descriptors(model, grains(0, size=18))["scale"][0] > usual["scale"][0] + 0.7
    assert usual["scale"][0] == pytest.approx(np.log(2 * 6 * 0.83), abs=0.25)  # of a Gaussian correlation


@pytest.mark.parametrize("seed", range(10, 20))
def test_micrographs_of_the_same_kind_lie_inside(seed, model, domain):
    place = place_of(model, grains(seed), domain)
    assert place.inside and 0 < place.distance < 1


@pytest.mark.parametrize(
    ("image", "respect"),
    [
        (grains(1, noise=2.0), "noise"),
        (grains(1, size=30.0), "scale"),
        (np.where(grains(1) > 130, 200, 100).astype(np.float32), "contrast"),
        (np.kron(np.indices((32, 32)).sum(axis=0) % 2, np.ones((8, 8))).astype(np.float32), "texture"),
    ],
)
def test_others_lie_outside_and_the_respect_is_named(image, respect, model, domain):
    place = place_of(model, image, domain)
    assert not place.inside and place.distance > 1 and respect in place.unlike


def test_one_micrograph_is_a_domain_and_a_flat_one_has_descriptors(model):
    alone = domain_of(model, [grains(0)])
    assert place_of(model, grains(1), alone).inside
    assert not place_of(model, np.zeros((64, 64), np.uint8), alone).inside
    assert all(np.isfinite(values).all() for values in descriptors(model, np.zeros((8, 9), np.uint8)).values())


def test_it_is_written_and_read_and_damage_is_said(domain, tmp_path):
    write_domain(domain, tmp_path)
    found = read_domain(tmp_path)
    assert found.keys() == domain.keys() == {"contrast", "noise", "scale", "texture", "features"}
    np.testing.assert_allclose(found["features"].mean, domain["features"].mean, rtol=1e-4, atol=1e-6)
    (tmp_path / "domain.json").write_text('{"noise": {"mean": [1]}}')
    with pytest.raises(EMError, match=r"domain\.json is damaged"):
        read_domain(tmp_path)
    assert read_domain(tmp_path / "elsewhere") is None


def test_a_fine_tuned_model_keeps_its_domain_and_warns(labelled_folder, tmp_path, caplog):
    output = tmp_path / "model"
    run = dict(task="segmentation", data=str(labelled_folder), output=str(output), model="unet2-rf44")
    finetune(FinetuneArguments(**run, steps=2, batch_size=2, crop=32, precision="fp32"))
    found = load_model(output)
    assert found.domain is not None and verify(found, output) < 1e-4
    assert "domain.json" in json.loads((output / "checksums.json").read_text())
    tifffile.imwrite(tmp_path / "like.tif", grains(0))
    with caplog.at_level(logging.WARNING):
        predict_files(found, [tmp_path / "like.tif"], tmp_path / "out")
    record = json.loads((tmp_path / "out" / "like.tif.json").read_text())["domain"]
    assert set(record) == {"distance", "inside", "unlike"}
    assert record["inside"] == ("is unlike the micrographs of the model's training" not in caplog.text)
    inside = predict(found, next(path for path in sorted((labelled_folder / "images").iterdir())))
    assert inside.domain.inside


def test_models_without_a_domain_work_and_say_nothing(model, tmp_path, caplog):
    assert model.domain is None
    assert predict(model, grains(0)).domain is None and "unlike" not in caplog.text
