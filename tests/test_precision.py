"""Prediction in bf16, and what makes prediction fast without changing it."""

import json
import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.inference import read_results, table
from emfm import EMError, EMForSemanticSegmentation, EMFoundation, EMFoundationConfig, predict
from emfm.backbones.norms import InstanceNorm, JointNorm
from emfm.backbones.trunk import halved
from emfm.inference.arguments import PredictArguments
from emfm.inference.precision import change, number_format
from emfm.inference.prepared import prepared

IMAGE = np.random.default_rng(0).normal(100, 20, (64, 96)).astype(np.float32)


def segmenter(name="unet2-rf44"):
    torch.manual_seed(0)
    return EMForSemanticSegmentation(EMFoundationConfig.from_name(name, id2label={0: "a", 1: "b"})).eval()


def chosen(model, precision="auto"):
    return number_format(model, IMAGE, model.processor.statistics(IMAGE), precision)


@pytest.fixture
def units(monkeypatch):
    """A machine that computes bf16."""
    monkeypatch.setattr("emfm.inference.precision.bf16_units", lambda: True)
    monkeypatch.setattr("emfm.inference.precision.LARGE", 1)


def test_the_maximum_of_slices_is_that_of_pooling():
    x = torch.randn(2, 3, 8, 12)
    with torch.no_grad():
        assert torch.equal(halved(x), F.max_pool2d(x, 2))
        assert torch.equal(halved(x.contiguous(memory_format=torch.channels_last)), F.max_pool2d(x, 2))


def test_instance_norm_of_one_image_is_that_of_the_same_image_in_a_batch():
    norm, x = InstanceNorm(3), torch.randn(2, 3, 16, 16)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    torch.testing.assert_close(norm(x[:1]), norm(x)[:1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("channels", "width"), [(1, 512), (4, 512), (4, 510), (16, 129), (64, 64), (256, 32)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_instance_norm_in_either_layout_is_that_of_its_formula(channels, width, layout):
    norm, x = InstanceNorm(channels), 1 + 0.1 * torch.randn(1, channels, 256, width)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    exact = x.double()
    variance, mean = torch.var_mean(exact, dim=(2, 3), correction=0, keepdim=True)
    expected = (exact - mean) * torch.rsqrt(variance + norm.eps)
    expected = expected * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
    with torch.no_grad():
        found = norm(x.contiguous(memory_format=layout))
        rounded = norm((x - 1).bfloat16().contiguous(memory_format=layout))
    torch.testing.assert_close(found, expected.float(), atol=1e-4, rtol=1e-4)
    assert found.is_contiguous(memory_format=layout)
    torch.testing.assert_close(rounded.float(), expected.float(), atol=0.05, rtol=0.02)
    joint = JointNorm(norm).train()
    with torch.no_grad():
        torch.testing.assert_close(joint(x.contiguous(memory_format=layout)), expected.float(), atol=1e-4, rtol=1e-4)


def test_the_gradients_of_instance_norm_do_not_hang_on_the_layout():
    norm, x = InstanceNorm(4), torch.randn(2, 4, 16, 16)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        values = x.contiguous(memory_format=layout).requires_grad_()
        found.append(torch.autograd.grad((norm(values) ** 3).sum(), [values, norm.weight, norm.bias]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_network_with_its_norms_folded_gives_what_it_gave():
    torch.manual_seed(0)
    model = EMFoundation(EMFoundationConfig.from_name("hrnet-w18-small"))
    model.train()(torch.randn(4, 1, 64, 64))  # running statistics that are not trivial
    values = torch.randn(1, 1, 64, 64)
    expected = model.eval().maps(values)
    network = prepared(model, torch.float32)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(network.maps(values), expected, atol=1e-4 * float(expected.std()), rtol=0)


def test_what_was_made_of_a_model_is_kept_until_a_weight_changes():
    model = segmenter()
    first = prepared(model, torch.float32)
    assert prepared(model, torch.float32) is first
    model.class_head.bias.data.add_(1.0)  # of which torch's own count of changes knows nothing
    assert prepared(model, torch.float32) is not first
    assert torch.equal(prepared(model, torch.float32).class_head.bias, model.class_head.bias)


def test_in_bf16_the_trunk_alone_is_rounded():
    network = prepared(segmenter(), torch.bfloat16)
    assert {tensor.dtype for tensor in network.trunk.parameters()} == {torch.bfloat16}
    assert network.class_head.weight.dtype == torch.float32
    one, other = (predict(segmenter(), IMAGE, precision=precision).output for precision in ("fp32", "bf16"))
    assert (one != other).mean() < 0.05


@pytest.mark.parametrize(("precision", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_format_that_is_asked_for_is_taken(precision, expected, units):
    assert chosen(segmenter(), precision) is expected


def test_without_units_bf16_is_not_even_tried(monkeypatch):
    monkeypatch.setattr("emfm.inference.precision._compared", lambda *given: pytest.fail("it was"))
    assert chosen(segmenter()) is torch.float32


def test_bf16_is_taken_where_it_changes_no_class(units):
    model = segmenter()
    torch.nn.init.zeros_(model.class_head.weight)
    model.class_head.bias.data = torch.tensor([0.0, 1.0])
    assert chosen(model) is torch.bfloat16


def test_bf16_that_would_change_classes_is_left_with_one_line_and_each_micrograph_decides(units, monkeypatch, caplog):
    shares = iter([0.002, 0.002, 0.0, 0.002])
    monkeypatch.setattr("emfm.inference.precision.change", lambda *given, **named: next(shares))
    model = segmenter()
    with caplog.at_level(logging.WARNING):
        taken = [chosen(model) for _ in range(4)]
    assert taken == [torch.float32, torch.float32, torch.bfloat16, torch.float32]
    assert [record.getMessage().splitlines()[0][:40] for record in caplog.records] == [
        "bf16 would change 0.2 % of the classes ("
    ]


def test_small_micrographs_stay_in_fp32(units, monkeypatch):
    monkeypatch.setattr("emfm.inference.precision.LARGE", IMAGE.size + 1)
    monkeypatch.setattr("emfm.inference.precision._compared", lambda *given: pytest.fail("it was tried"))
    assert chosen(segmenter()) is torch.float32


def test_change_is_a_share_of_the_pixels_or_of_the_contrast():
    exact = np.zeros((2, 10, 10), np.float32)
    exact[1, :5] = 1.0
    quick = exact.copy()
    quick[1, 0, 0] = -1.0
    assert change(exact, quick, classes=True) == pytest.approx(0.01)
    ramp = np.linspace(0, 1, 10_000, dtype=np.float32).reshape(1, 100, 100)
    assert change(ramp, ramp + 0.01, classes=False) == pytest.approx(0.01 / 0.98, rel=0.01)
    assert change(np.ones((1, 4, 4)), np.ones((1, 4, 4)), classes=False) == 1.0


def test_a_format_that_is_not_known_is_refused():
    with pytest.raises(EMError, match="precision is 'fp16'; expected one of auto, fp32, bf16"):
        PredictArguments(precision="fp16")


def test_the_table_of_speed_holds_what_was_measured(tmp_path):
    run = {"processor_seconds": 0.1, "seconds": 0.1, "megapixels_per_second": 2.621, "times_as_fast": 1.5}
    file = tmp_path / "inference.jsonl"
    assert read_results(file) == {}
    file.write_text(json.dumps({"generator": "unet4-rf200", "runs": {"emfm, fp32": run}}) + "\n")
    assert table(read_results(file)).splitlines()[2:] == ["| unet4-rf200 | emfm, fp32 | 2.62 | 1.50 |"]
