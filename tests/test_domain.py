"""Outside of what a model knows: descriptors, what is kept with a model, warnings and records."""

import copy
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
from emfm.inference.explaining import explained
from emfm.inference.files import predict_files
from emfm.inference.looks import FREQUENCIES
from emfm.loading.domain import Respect, read_domain, write_domain
from emfm.loading.names import BUNDLED, bundled_names
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


def test_descriptors_do_not_depend_on_units_and_follow_what_they_are_called_by(model):
    usual, same = descriptors(model, grains(0)), descriptors(model, grains(0) * 7 + 1000)
    for kind, values in usual.items():
        np.testing.assert_allclose(same[kind], values, atol=2e-2)
    noisy = descriptors(model, grains(0, noise=0.8))["spectrum"]
    assert noisy[-1] > usual["spectrum"][-1] + 1 and abs(noisy[1] - usual["spectrum"][1]) < 0.5
    inverted = descriptors(model, 300 - grains(0))["contrast"]
    np.testing.assert_allclose(inverted[:5], -usual["contrast"][4::-1], atol=1e-3)


@pytest.mark.parametrize("count", [3, 5])
def test_few_small_micrographs_do_not_make_others_of_their_kind_strange(count, model):
    few = domain_of(model, [grains(seed, side=128) for seed in range(count)])
    assert all(place_of(model, grains(seed, side=128), few).inside for seed in range(10, 20))
    assert not place_of(model, grains(10, noise=2.0, side=128), few).inside


@pytest.mark.parametrize("seed", range(10, 20))
def test_micrographs_of_the_same_kind_lie_inside(seed, model, domain):
    place = place_of(model, grains(seed), domain)
    assert place.inside and 0 < place.distance < 1


@pytest.mark.parametrize(
    ("image", "respect"),
    [
        (grains(1, noise=2.0), "noise"),
        (ndimage.zoom(grains(1, side=64), 4, order=3), "scale"),
        (ndimage.gaussian_filter(grains(1), 2), "texture"),
        (np.where(grains(1) > 130, 200, 100).astype(np.float32), "contrast"),
    ],
)
def test_others_lie_outside_and_the_respect_is_named(image, respect, model, domain):
    place = place_of(model, image, domain)
    assert not place.inside and place.distance > 1 and respect in place.unlike
    assert len(place.why) == len(place.unlike)


def test_what_changed_a_spectrum_is_told():
    mean = 2 - 3 * np.log10(1 + FREQUENCIES / 0.03)
    known = Respect(mean, np.zeros((0, len(mean))), np.zeros(0), 0.15**2, 1.0)
    assert explained(mean, known) == ("texture", "another texture")
    assert explained(np.log10(10**mean + 0.5), known) == ("noise", "more noise")
    blurred = mean - (2 * np.pi * 2 * FREQUENCIES) ** 2 / np.log(10)
    assert explained(np.maximum(blurred, -4), known)[1] == "less fine detail, as if blurred"
    smaller = 2 - 3 * np.log10(1 + FREQUENCIES / 0.12)
    assert explained(smaller, known) == ("scale", "structures are about 4 times smaller")


def test_an_enlargement_is_no_blur(model):
    images = [grains(seed, size=1.5, noise=0.3, side=512) for seed in range(6)]
    known = domain_of(model, images)["spectrum"]
    enlarged = descriptors(model, ndimage.zoom(images[0][:128, :128], 4, order=3))["spectrum"]
    assert explained(enlarged, known) == ("scale", "structures are about 4 times larger")
    blurred = descriptors(model, ndimage.gaussian_filter(images[0], 2))["spectrum"]
    assert explained(blurred, known) == ("texture", "less fine detail, as if blurred")


def test_an_inverted_micrograph_is_told_by_its_details_where_its_grey_levels_are_symmetric(model):
    images = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        lines = -np.abs(ndimage.gaussian_filter(rng.normal(size=(256, 256)), 6))  # dark, between blobs
        images.append((lines + 0.1 * lines.std() * rng.normal(size=lines.shape)).astype(np.float32))
    levels = [np.argsort(np.argsort(image.ravel())).reshape(image.shape).astype(np.float32) for image in images]
    known = domain_of(model, levels[:5])
    assert place_of(model, levels[5], known).inside
    place = place_of(model, -levels[5], known)
    assert place.unlike == ["contrast"] and place.why == ["bright is dark, as if inverted"]
    before = {kind: one for kind, one in known.items() if kind != "polarity"}  # as described before
    assert place_of(model, levels[5], before).inside


def test_one_micrograph_is_a_domain_and_a_flat_one_has_descriptors(model):
    alone = domain_of(model, [grains(0)])
    assert place_of(model, grains(1), alone).inside
    assert not place_of(model, np.zeros((64, 64), np.uint8), alone).inside
    assert all(np.isfinite(values).all() for values in descriptors(model, np.zeros((8, 9), np.uint8)).values())


def test_it_is_written_and_read_and_damage_is_said(domain, tmp_path, caplog):
    write_domain(domain, tmp_path)
    found = read_domain(tmp_path)
    assert found.keys() == domain.keys() == {"contrast", "spectrum", "polarity", "features"}
    np.testing.assert_allclose(found["features"].mean, domain["features"].mean, rtol=1e-4, atol=1e-6)
    values = domain["features"].mean + 0.3
    assert found["features"].distance(values) == pytest.approx(domain["features"].distance(values), rel=0.01)
    assert (tmp_path / "domain.json").stat().st_size < 100_000
    (tmp_path / "domain.json").write_text('{"version": 2, "respects": {"contrast": {"mean": [1]}}}')
    with pytest.raises(EMError, match=r"domain\.json is damaged"):
        read_domain(tmp_path)
    (tmp_path / "domain.json").write_text('{"contrast": {"mean": [1]}}')
    assert read_domain(tmp_path) is None and "of another version" in caplog.text
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
    assert set(record) == {"distance", "inside", "unlike", "why"}
    assert record["inside"] == ("is unlike the micrographs of the model's training" not in caplog.text)
    inside = predict(found, next(path for path in sorted((labelled_folder / "images").iterdir())))
    assert inside.domain.inside


def test_the_check_is_made_of_what_the_prediction_saw_tiles_or_not(model, domain):
    known = copy.deepcopy(model)
    known.domain = domain
    whole, tiled = (predict(known, grains(3), tile=tile).domain for tile in (None, 128))
    assert whole.inside and tiled.distance == pytest.approx(whole.distance, rel=0.3)
    assert whole.distance == pytest.approx(place_of(model, grains(3), domain).distance, rel=0.02)
    assert predict(known, grains(3), compare=False).domain is None
    unknown = copy.deepcopy(model)
    unknown.domain = None
    noisy = predict([unknown, known], grains(1, noise=2.0)).domain
    assert noisy.unlike[0] == "noise"


def test_the_networks_of_the_zoo_know_their_training():
    for name in bundled_names():
        found = read_domain(BUNDLED / name)
        assert found is not None and found.keys() == {"contrast", "spectrum", "features"}


def test_models_without_a_domain_work_and_say_nothing(model, tmp_path, caplog):
    unknown = copy.deepcopy(model)
    unknown.domain = None
    assert predict(unknown, grains(0)).domain is None and "unlike" not in caplog.text
