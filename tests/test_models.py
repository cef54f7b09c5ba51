"""One set of tests over every generator and every class."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from emfm import EMError, EMForSemanticSegmentation, EMFoundation, EMFoundationConfig
from emfm.backbones import generator_names
from emfm.backbones.hrnet import HRNetTrunk
from emfm.backbones.norms import InstanceNorm
from emfm.backbones.unet import DILATIONS
from emfm.tasks import load_model

CLASSES = {"foundation": EMFoundation, "segmentation": EMForSemanticSegmentation}
# The large HRNets share every line of code with the small one and take seconds each.
LARGE = ("hrnet-w18", "hrnet-w32", "hrnet-w48")
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in generator_names()]
PAPER_PARAMETERS = {"unet2": 8_069, "unet3": 32_725, "unet4": 130_677}


def build(name: str, kind: str, **fields):
    torch.manual_seed(0)
    labels = {"id2label": {0: "background", 1: "particle", 2: "support"}} if kind == "segmentation" else {}
    return CLASSES[kind](EMFoundationConfig.from_name(name, **labels, **fields))


def head_output(model, pixel_values):
    outputs = model(pixel_values)
    return outputs.logits if isinstance(model, EMForSemanticSegmentation) else outputs.reconstruction


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("name", [*NAMES, "unet2-rf44-w16"])
class TestEveryModel:
    def test_any_input_size_gives_an_output_of_that_size(self, name, kind):
        model = build(name, kind).eval()
        channels = 3 if kind == "segmentation" else 1
        for height, width in ((1, 1), (2, 37), (33, 64), (65, 47)):
            output = head_output(model, torch.randn(1, 1, height, width))
            assert output.shape == (1, channels, height, width)
            assert torch.isfinite(output).all()

    def test_padding_inside_equals_mirroring_by_hand(self, name, kind):
        model = build(name, kind).eval()
        pixel_values = torch.randn(1, 1, 61, 50)
        stride = model.trunk.stride
        mirrored = torch.nn.functional.pad(pixel_values, (0, -50 % stride, 0, -61 % stride), mode="reflect")
        by_hand = head_output(model, mirrored)[..., :61, :50]
        torch.testing.assert_close(head_output(model, pixel_values), by_hand)

    def test_the_gradient_reaches_every_parameter(self, name, kind):
        # a bias in front of a norm that takes its statistics from the input has no effect, and no
        # gradient: so batch norm in evaluation mode
        model = build(name, kind, norm="batch").eval()
        output = head_output(model, torch.randn(4, 1, 64, 64))
        (output * torch.randn_like(output)).sum().backward()
        dead = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert dead == []

    def test_saved_and_loaded_weights_give_equal_outputs(self, name, kind, tmp_path):
        model = build(name, kind).eval()
        model.processor.low = 2.0
        model.save_pretrained(tmp_path)
        loaded = load_model(tmp_path)
        assert type(loaded) is type(model)
        assert loaded.processor.low == 2.0
        pixel_values = torch.randn(1, 1, 40, 40)
        torch.testing.assert_close(head_output(loaded, pixel_values), head_output(model, pixel_values))

    def test_its_trunk_loads_into_the_other_class_unchanged(self, name, kind, tmp_path):
        model = build(name, kind)
        model.save_pretrained(tmp_path)
        other = CLASSES["foundation" if kind == "segmentation" else "segmentation"].from_pretrained(tmp_path)
        for key, tensor in model.trunk.state_dict().items():
            assert torch.equal(other.trunk.state_dict()[key], tensor), key

    def test_features_stand_at_halving_scales(self, name, kind):
        model = build(name, kind).eval()
        maps = model.features(torch.randn(1, 1, 70, 90))
        expected = [(-(-70 // 2**level), -(-90 // 2**level)) for level in range(len(maps))]
        assert [tuple(m.shape[-2:]) for m in maps] == expected
        assert [m.shape[1] for m in maps] == model.trunk.channels


@pytest.mark.parametrize("name", DILATIONS)
def test_the_u_nets_have_the_papers_number_of_parameters(name):
    assert build(name, "foundation").num_parameters() == PAPER_PARAMETERS[name.split("-")[0]]


@pytest.mark.parametrize("name", DILATIONS)
def test_the_named_receptive_field_is_the_true_extent_of_the_gradient(name):
    """The extent differs with the pixel's place in the pooling grid; its mean is the name, its farthest is `reach`."""
    model = build(name, "foundation", norm="batch").double().eval()
    stride, reach = model.trunk.stride, model.reach
    side = 2 * reach + 2 * stride
    side += -side % stride
    centre = side // 2 // stride * stride
    extents, farthest = [], 0
    for phase in range(stride):
        position = centre + phase
        touched = torch.zeros(side, dtype=torch.bool)
        # max-pooling passes the gradient to one pixel of four: unite several images
        for seed in range(4):
            generator = torch.Generator().manual_seed(seed)
            pixel_values = torch.randn(1, 1, side, 2 * stride, generator=generator, dtype=torch.float64)
            pixel_values.requires_grad_()
            model(pixel_values).reconstruction[0, 0, position].sum().backward()
            touched |= pixel_values.grad[0, 0].abs().sum(dim=1) > 0
        rows = touched.nonzero().flatten()
        extents.append(int(rows[-1] - rows[0]) + 1)
        farthest = max(farthest, position - int(rows[0]), int(rows[-1]) - position)
    assert sum(extents) / len(extents) == model.receptive_field == int(name.split("rf")[1])
    assert farthest == reach


def test_the_reach_of_an_hrnet_bounds_the_gradients_extent():
    model = build("hrnet-w18-small", "foundation").eval()
    side, row = 736, 368
    pixel_values = torch.randn(1, 1, side, 32, requires_grad=True)
    model(pixel_values).reconstruction[0, 0, row].sum().backward()
    rows = (pixel_values.grad[0, 0].abs().sum(dim=1) > 0).nonzero().flatten()
    farthest = max(row - int(rows[0]), int(rows[-1]) - row)
    assert 0.75 * model.reach < farthest <= model.reach


@pytest.mark.parametrize("name", HRNetTrunk.generators)
def test_hrnets_are_built_from_timm_with_one_input_channel(name):
    with torch.device("meta"):
        model = EMFoundation(EMFoundationConfig.from_name(name))
    assert model.trunk.body.conv1.weight.shape == (64, 1, 3, 3)
    assert model.trunk.body.feature_info.reduction() == [4, 8, 16, 32]


@pytest.mark.parametrize(("fields", "layer"), [({}, "InstanceNorm"), ({"norm": "batch"}, "BatchNorm2d")])
def test_the_norm_is_a_choice_of_the_configuration_and_costs_the_same_parameters(fields, layer):
    model = build("unet2-rf44", "foundation", **fields)
    kinds = {type(module).__name__ for module in model.modules() if "Norm" in type(module).__name__}
    assert kinds == {layer}
    assert model.num_parameters() == PAPER_PARAMETERS["unet2"]


def test_instance_norm_of_a_single_pixel_is_the_bias_and_otherwise_has_mean_bias_and_deviation_weight():
    norm = InstanceNorm(2)
    norm.weight.data, norm.bias.data = torch.tensor([2.0, 3.0]), torch.tensor([0.5, -1.0])
    assert norm(torch.randn(1, 2, 1, 1)).flatten().tolist() == [0.5, -1.0]
    values = norm(torch.randn(1, 2, 64, 64))[0].flatten(1)
    torch.testing.assert_close(values.mean(dim=1), norm.bias.data, atol=1e-4, rtol=0)
    torch.testing.assert_close(values.std(dim=1, correction=0), norm.weight.data, atol=1e-3, rtol=0)


def test_labels_give_the_l1_loss_of_a_foundation_model():
    model = build("unet2-rf44", "foundation").eval()
    pixel_values, labels = torch.randn(2, 1, 16, 16), torch.randn(2, 1, 16, 16)
    outputs = model(pixel_values, labels=labels)
    torch.testing.assert_close(outputs.loss, (outputs.reconstruction - labels).abs().mean())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 0}, "width is 0"),
        ({"norm": "layer"}, "norm is 'layer'"),
        ({"dilations": (1, 0)}, "dilations"),
        ({"backbone": "vit"}, "backbone is 'vit'"),
        ({"schema_version": 99}, "update emfm"),
    ],
)
def test_a_wrong_configuration_says_what_was_expected(fields, message):
    with pytest.raises(EMError, match=message):
        EMFoundationConfig(**fields)


def test_a_field_of_the_wrong_type_is_refused():
    with pytest.raises(Exception, match="width"):
        EMFoundationConfig(width="wide")


def test_an_unknown_generator_is_answered_with_the_nearest_names():
    with pytest.raises(EMError, match="unet4-rf200"):
        EMFoundationConfig.from_name("unet4-rf20")


def test_class_names_survive_saving_and_loading(tmp_path):
    build("unet2-rf44", "segmentation").save_pretrained(tmp_path)
    loaded = EMForSemanticSegmentation.from_pretrained(tmp_path)
    assert loaded.config.id2label == {0: "background", 1: "particle", 2: "support"}
    assert loaded.config.label2id == {"background": 0, "particle": 1, "support": 2}


@pytest.mark.parametrize("missing", ["preprocessor_config.json", "config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_does_not_load(missing, tmp_path):
    build("unet2-rf44", "foundation").save_pretrained(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(EMError, match=missing):
        EMFoundation.from_pretrained(tmp_path)


def _change_weights(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("loader", [EMFoundation, EMForSemanticSegmentation])
def test_a_missing_or_unexpected_trunk_weight_stops_with_its_name(loader, tmp_path):
    build("unet2-rf44", "foundation").save_pretrained(tmp_path)
    _change_weights(
        tmp_path, lambda t: t.update({"trunk.encoder.7.conv1.weight": t.pop("trunk.encoder.0.conv1.weight")})
    )
    with pytest.raises(EMError) as error:
        loader.from_pretrained(tmp_path)
    assert "missing: trunk.encoder.0.conv1.weight" in str(error.value)
    assert "unexpected: trunk.encoder.7.conv1.weight" in str(error.value)


def test_a_renamed_head_is_not_silently_random(tmp_path):
    build("unet2-rf44", "foundation").save_pretrained(tmp_path)
    _change_weights(tmp_path, lambda t: t.update({"class_head.weight": t.pop("image_head.weight")}))
    with pytest.raises(EMError, match=r"missing: image_head\.weight; unexpected: class_head\.weight"):
        EMFoundation.from_pretrained(tmp_path)


def test_weights_of_another_shape_are_refused(tmp_path):
    build("unet2-rf44", "foundation").save_pretrained(tmp_path)
    _change_weights(tmp_path, lambda t: t.update({"trunk.bottleneck.norm1.weight": torch.ones(3)}))
    with pytest.raises(EMError, match=r"trunk\.bottleneck\.norm1\.weight|mismatch"):
        EMFoundation.from_pretrained(tmp_path)


def test_half_precision_weights_load_as_float32_unless_asked(tmp_path):
    build("unet2-rf44", "foundation").to(torch.bfloat16).save_pretrained(tmp_path)
    assert EMFoundation.from_pretrained(tmp_path).dtype == torch.float32
    assert EMFoundation.from_pretrained(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16
