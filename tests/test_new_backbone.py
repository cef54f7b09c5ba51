"""A backbone of another's making: one file outside the package, one line, and everything works with it."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from emfm import EMError, EMForSemanticSegmentation, EMFoundation, EMFoundationConfig, predict
from emfm.backbones import BACKBONES
from emfm.backbones.norms import NORM_LAYERS
from emfm.backbones.trunk import Trunk
from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.hub.verify import verify
from emfm.inference import blocks
from emfm.inference.plan import bytes_per_pixel
from emfm.loading.names import locate
from emfm.pretraining.pretrain import pretrain
from emfm.tasks import load_model

# the file of the backbone begins here


class PyramidTrunk(Trunk):
    """Two levels: half the size and back. `pyramid-wN` has N channels at full resolution."""

    generators = ("pyramid-w4",)
    names_hint = " pyramids take any width, as in -w6"
    norms = ("instance",)
    full_resolution = False
    stride = 2
    reach = 3  # a 3x3 at full resolution, nearest upsampling, a 4x4 of stride 2
    bytes_per_pixel = 200

    def __init__(self, config):
        super().__init__(config)
        self.channels = [config.width, 2 * config.width]
        self.down = nn.Conv2d(1, 2 * config.width, 4, stride=2, padding=1)
        self.norm = NORM_LAYERS[config.norm](2 * config.width)
        self.up = nn.Conv2d(2 * config.width, config.width, 3, padding=1)

    @classmethod
    def fields_of(cls, name):
        match = re.fullmatch(r"pyramid-w(\d{1,3})", name)
        return {"width": int(match[1])} if match else None

    @classmethod
    def check(cls, config):
        if not 2 <= config.width <= 64:
            raise EMError(f"width is {config.width}; a pyramid has 2 to 64 channels")

    def blocks(self):
        return [self.down, self.norm], [self.up]

    def features(self, x):
        coarse = F.relu(self.norm(self.down(x)))
        return [F.relu(self.up(F.interpolate(coarse, scale_factor=2))), coarse]


# and ends here


@pytest.fixture(autouse=True)
def pyramid(monkeypatch):
    """The one line."""
    monkeypatch.setitem(BACKBONES, "pyramid", PyramidTrunk)


def build(cls=EMFoundation, **fields):
    torch.manual_seed(0)
    model = cls(EMFoundationConfig.from_name("pyramid-w6", **fields)).eval()
    for name, weight in model.named_parameters():
        if "head" in name or "norm" in name:
            nn.init.normal_(weight, 0.5, 0.2)
    return model


def test_its_names_listed_or_not_make_configurations_and_are_answered():
    config = EMFoundationConfig.from_name("pyramid-w6")
    assert (config.backbone, config.width, config.norm) == ("pyramid", 6, "instance")
    with pytest.raises(EMError, match="weights of 'pyramid-w6' are not in this package"):
        locate("pyramid-w6")
    with pytest.raises(EMError, match=r"did you mean pyramid-w4.* pyramids take any width"):
        EMFoundationConfig.from_name("pyramids-w4")


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"width": 100}, "width is 100; a pyramid"), ({"norm": "batch"}, "norm is 'batch'; .* has instance")],
)
def test_a_configuration_that_does_not_fit_it_is_refused(fields, message):
    with pytest.raises(EMError, match=message):
        EMFoundationConfig.from_name("pyramid-w4", **fields)


def test_it_is_pretrained_fine_tuned_saved_and_loaded(pretraining, labelled_folder, tmp_path):
    settings = dict(generator="pyramid-w6", residual=None, norm=None, structures=1, filters=True)
    pretrained = pretrain(pretraining(tmp_path / "run", **settings))
    model = EMFoundation.from_pretrained(pretrained)
    assert isinstance(model.trunk, PyramidTrunk) and verify(model, pretrained) < 1e-4
    assert model.config.residual  # it has no path at full resolution
    assert "--generator pyramid-w6" in (pretrained / "README.md").read_text()
    assert "--norm" not in (pretrained / "README.md").read_text()  # there is no choice

    output = tmp_path / "segmenter"
    run = dict(task="segmentation", data=str(labelled_folder), output=str(output), model=str(pretrained))
    finetune(FinetuneArguments(**run, steps=5, batch_size=2, crop=32, precision="fp32", freeze="encoder"))
    segmenter = load_model(output)
    assert isinstance(segmenter, EMForSemanticSegmentation) and verify(segmenter, output) < 1e-4
    assert torch.equal(segmenter.trunk.down.weight, model.trunk.down.weight)
    assert not torch.equal(segmenter.trunk.up.weight, model.trunk.up.weight)


def test_it_is_fine_tuned_from_random_weights(labelled_folder, tmp_path):
    run = dict(task="segmentation", data=str(labelled_folder), output=str(tmp_path), scratch="pyramid-w4")
    finetune(FinetuneArguments(**run, steps=2, batch_size=2, crop=32, precision="fp32"))
    assert load_model(tmp_path).trunk.channels == [4, 8]


@pytest.mark.parametrize("residual", [True, False])
def test_its_prediction_in_tiles_equals_that_of_the_whole_image(residual):
    model = build(residual=residual)
    image = np.random.default_rng(0).normal(100, 20, (90, 118)).astype(np.float32)
    image[:, 60:] *= 3  # a tile's own norms would differ from those of the whole
    whole = predict(model, image, tile=118).output
    tiled = predict(model, image, tile=32).output
    np.testing.assert_allclose(tiled, whole, atol=1e-4 * whole.std())
    assert bytes_per_pixel(model) == 212 and model.receptive_field == 7


def test_norms_measured_over_a_micrograph_hold_for_every_tile():
    model = build()
    image = np.random.default_rng(0).normal(100, 20, (64, 64)).astype(np.float32)
    network = blocks.frozen_network(model, image, model.processor.statistics(image))
    values = torch.from_numpy(model.processor.normalize(image, model.processor.statistics(image)))[None, None]
    with torch.no_grad():
        torch.testing.assert_close(network.maps(values), model.maps(values), atol=1e-4, rtol=1e-4)
        before = network.trunk.norm.running_mean.clone()
        network.maps(5 + 3 * values)
        assert torch.equal(network.trunk.norm.running_mean, before)


def test_it_is_exported_to_onnx(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from emfm.export.onnx_file import TOLERANCE, export_onnx

    model = build(EMForSemanticSegmentation, id2label={0: "background", 1: "disc"})
    assert export_onnx(model, tmp_path / "model.onnx") < TOLERANCE
