"""A head fitted in seconds, `--steps 0`, on features of all scales and any labels."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import emfm  # noqa: F401  (a fixture)

from emfm import EMError, EMForSemanticSegmentation, EMFoundationConfig, predict
from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.finetuning.head import fit_scales
from emfm.hub.verify import verify
from emfm.tasks import load_model


@pytest.fixture
def strokes(tmp_path):
    """One micrograph of two textures, with 200 labelled pixels and everything else unknown."""
    folder = tmp_path / "strokes"
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    truth = np.zeros((160, 160), bool)
    truth[40:120, 50:130] = True
    image = 120 + rng.normal(0, np.where(truth, 30, 6))
    mask = np.full(truth.shape, 9, np.uint8)
    mask[10, 20:120], mask[80, 60:120], mask[60:100, 90] = 0, 1, 1
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / "images" / "a.png")
    Image.fromarray(mask).save(folder / "masks" / "a.png")
    (folder / "labels.json").write_text(json.dumps({"0": "matrix", "1": "grain", "9": "ignore"}))
    return folder, truth


def test_strokes_become_a_model_like_every_other(strokes, tmp_path, emfm):  # noqa: F811
    folder, truth = strokes
    output = tmp_path / "model"
    given = ("--model", "unet4-rf200-w16", "--data", folder, "--output", output, "--steps", 0, "--json")
    code, stdout, err = emfm("finetune", "segmentation", *given)
    assert code == 0, err
    record = json.loads(stdout)
    assert record["steps"] == 0 and record["best"]["step"] == 0
    model = load_model(output)
    assert isinstance(model, EMForSemanticSegmentation) and model.config.all_scales
    assert verify(model, output) < 1e-4
    found = predict(model, folder / "images" / "a.png").output
    assert ((found == 1) == truth).mean() > 0.93


def test_strokes_are_all_that_training_sees(strokes, tmp_path):
    """What is unlabelled may hold anything: the same strokes give the same head."""
    folder, _ = strokes
    run = dict(task="segmentation", model="unet2-rf44", data=str(folder), steps=0, crop=64, augment=0.0)
    finetune(FinetuneArguments(**run, output=str(tmp_path / "a")))
    mask = np.asarray(Image.open(folder / "masks" / "a.png")).copy()
    mask[mask == 9] = 7
    Image.fromarray(mask).save(folder / "masks" / "a.png")
    labels = {"0": "matrix", "1": "grain", "7": "ignore"}
    (folder / "labels.json").write_text(json.dumps(labels))
    finetune(FinetuneArguments(**run, output=str(tmp_path / "b")))
    assert torch.equal(load_model(tmp_path / "a").class_head.weight, load_model(tmp_path / "b").class_head.weight)


def test_the_head_of_all_scales_equals_a_convolution_over_all_maps_enlarged():
    torch.manual_seed(0)
    labels = {0: "a", 1: "b", 2: "c"}
    model = EMForSemanticSegmentation(
        EMFoundationConfig.from_name("unet3-rf96", id2label=labels, all_scales=True)
    ).eval()
    image = torch.randn(2, 1, 50, 66)
    with torch.no_grad():
        expected = model.class_head(model.last_features(image))
        torch.testing.assert_close(model(image).logits, expected, atol=1e-5, rtol=1e-4)
        assert len(model(image, output_hidden_states=True).hidden_states) == 4


def test_its_prediction_in_tiles_equals_that_of_the_whole():
    torch.manual_seed(0)
    config = EMFoundationConfig.from_name("unet2-rf44", id2label={0: "a", 1: "b"}, all_scales=True, norm="batch")
    model = EMForSemanticSegmentation(config).eval()
    image = np.random.default_rng(0).normal(100, 20, (90, 400)).astype(np.float32)
    whole, tiled = predict(model, image, tile=400).output, predict(model, image, tile=160).output
    assert (whole != tiled).mean() < 1e-3 and 0.01 < whole.mean() < 0.99


def test_fine_tuning_goes_on_from_a_fitted_head_as_it_is(strokes, tmp_path):
    folder, _ = strokes
    run = dict(task="segmentation", data=str(folder), crop=64, augment=0.0, precision="fp32")
    finetune(FinetuneArguments(**run, model="unet2-rf44", steps=0, output=str(tmp_path / "a")))
    finetune(FinetuneArguments(**run, model=str(tmp_path / "a"), steps=2, output=str(tmp_path / "b")))
    model = load_model(tmp_path / "b")
    assert model.config.all_scales


def test_steps_0_with_what_would_have_no_effect_is_refused():
    with pytest.raises(EMError, match="--steps 0 fits the head alone"):
        FinetuneArguments("segmentation", "data", "out", model="unet2-rf44", steps=0, freeze="encoder")


def test_weights_cost_the_more_the_fewer_pixels_are_labelled_and_coarse_features_get_none():
    torch.manual_seed(0)
    fields = {"id2label": {0: "a", 1: "b"}, "all_scales": True, "filters": True}
    model = EMForSemanticSegmentation(EMFoundationConfig.from_name("hrnet-w18-small", **fields)).eval()
    truth = torch.arange(200) % 2
    known = torch.randn(200, model.class_head.in_channels) + 2.0 * truth[:, None]
    sizes = []
    for pixels in (200, 20_000):
        fit_scales(model, known, truth, known, pixels)
        weight = model.class_head.weight[..., 0, 0]
        assert (weight[:, -128:] == 0).all() and (weight[:, :-128] != 0).all()  # those of stride 32
        assert ((known @ weight.T + model.class_head.bias).argmax(dim=1) == truth).all()
        sizes.append(float(weight.detach().norm()))
    assert sizes[0] < 0.5 * sizes[1]
