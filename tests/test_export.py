import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
import yaml

from emfm import EMError, EMForDenoising, EMForSemanticSegmentation, EMForSuperResolution, EMFoundation, predict
from emfm import EMFoundationConfig as Config
from emfm.export import onnx_file
from emfm.export.onnx_file import TOLERANCE, ExportNetwork, _mirrored, compare, export_onnx, session
from emfm.tasks.background_removal import EMForBackgroundRemoval

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
DOCUMENTATION = Path(__file__).parent.parent / "docs" / "export.md"
LABELS = {0: "background", 1: "particle", 2: "pore"}
# every size that a file is compared at: multiples, odd ones, narrower than the stride, one pixel,
# one row
SIZES = ((1, 64, 64), (2, 33, 70), (4, 7, 3), (1, 1, 1), (1, 1, 50), (1, 200, 301))


def awake(model):
    """Give zero-initialised heads weights, so that the network is seen in the output."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "residual_head" in name:
                weight.normal_(0, 0.1)
            if "norm" in name:
                weight.add_(0.1 * torch.randn_like(weight))
    return model.eval()


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    return awake(EMForSemanticSegmentation(Config.from_name("unet2-rf44", id2label=LABELS)))


@pytest.fixture(scope="module")
def exported(segmenter, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "deeper" / "segmenter.onnx"
    return path, export_onnx(segmenter, path)


@pytest.mark.parametrize("stride", [1, 4, 16, 32])
def test_the_graphs_padding_is_the_models_own_at_every_size(stride):
    model = EMFoundation(Config.from_name("unet2-rf44"))
    model.trunk.stride = stride
    for height, width in [(n, 1 + n * 7 % 37) for n in range(1, 40)]:
        image = torch.arange(height * width, dtype=torch.float32).reshape(1, 1, height, width)
        assert torch.equal(_mirrored(model, image), model.padded(image)), (height, width)


def test_the_copy_for_export_has_the_models_values_and_leaves_the_model_alone(segmenter):
    before = {name: weight.clone() for name, weight in segmenter.state_dict().items()}
    network = ExportNetwork(segmenter)
    torch.manual_seed(0)
    for size in SIZES:
        image = torch.randn(size[0], 1, *size[1:])
        with torch.no_grad():
            assert torch.allclose(network(image), segmenter(image).logits, atol=1e-4)
    assert all(torch.equal(before[name], weight) for name, weight in segmenter.state_dict().items())
    assert type(segmenter.trunk.encoder[0].norm1).__name__ == "InstanceNorm"


def test_an_onnx_file_agrees_with_torch_at_any_size_and_batch(segmenter, exported):
    path, difference = exported
    assert 0 < difference <= TOLERANCE
    assert 0 < compare(False, segmenter, path.read_bytes(), SIZES) <= TOLERANCE
    runtime = session(path.read_bytes())
    assert runtime.get_inputs()[0].shape == ["batch", 1, "height", "width"]
    assert runtime.get_outputs()[0].shape == ["batch", 3, "height", "width"]
    assert runtime.get_outputs()[0].name == "logits"


def test_an_onnx_file_says_what_it_is(segmenter, exported):
    facts = session(exported[0].read_bytes()).get_modelmeta().custom_metadata_map
    assert facts["class"] == "EMForSemanticSegmentation"
    assert facts["generator"] == "unet2-rf44"
    assert json.loads(facts["scale"]) == 1
    assert json.loads(facts["processor"]) == {"low": 1.0, "high": 99.0, "clip": 3.0}
    assert json.loads(facts["id2label"]) == {"0": "background", "1": "particle", "2": "pore"}
    assert json.loads(facts["pixel_size_range_nm"]) is None


def test_a_file_that_differs_from_torch_is_refused_and_not_written(segmenter, exported, tmp_path, monkeypatch):
    import copy

    other = copy.deepcopy(segmenter)
    with torch.no_grad():
        other.class_head.bias[0] += 0.01
    with pytest.raises(EMError, match="differs from torch"):
        compare(False, other, exported[0].read_bytes())
    monkeypatch.setattr(onnx_file, "_trace", lambda *_: SimpleNamespace(model_proto=None))
    monkeypatch.setattr(onnx_file, "_with_metadata", lambda *_: exported[0].read_bytes())
    with pytest.raises(EMError, match="nothing was written"):
        export_onnx(other, tmp_path / "new" / "wrong.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_one_line_that_names_the_extra(segmenter, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EMError, match=r"needs onnxruntime, which is not installed: pip install 'emfm\[export\]'"):
        export_onnx(segmenter, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_super_resolution_enlarges_inside_the_file_and_the_documented_lines_use_it_rightly(tmp_path, monkeypatch):
    model = awake(EMForSuperResolution(Config.from_name("unet2-rf44", scale=2)))
    export_onnx(model, tmp_path / "enlarger.onnx")
    assert compare(False, model, (tmp_path / "enlarger.onnx").read_bytes(), SIZES) <= TOLERANCE
    shape = session((tmp_path / "enlarger.onnx").read_bytes()).get_outputs()[0].shape
    assert shape == ["batch", 1, "2*height", "2*width"]
    image = np.random.default_rng(0).gamma(3, 50, (60, 70)).astype(np.float32)
    tifffile.imwrite(tmp_path / "micrograph.tif", image)
    (tmp_path / "enlarger.onnx").rename(tmp_path / "unet4.onnx")
    documented = re.search(r"```python\n(.*?)```", DOCUMENTATION.read_text(), flags=re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(documented, "export.md", "exec"), names)
    assert np.allclose(names["restored"], predict(model, image).output, atol=1e-2, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("generator", ["unet4-rf200", "unet3-rf240-w8", "hrnet-w18-small"])
@pytest.mark.parametrize(
    ("cls", "fields"),
    [
        (EMFoundation, {}),
        (EMForSemanticSegmentation, {"id2label": LABELS}),
        (EMForDenoising, {"residual": True}),
        (EMForSuperResolution, {"scale": 2, "residual": True}),
        (EMForSuperResolution, {"scale": 4}),
        (EMForBackgroundRemoval, {"residual": True}),
    ],
)
def test_every_task_of_every_kind_of_generator_exports(generator, cls, fields, tmp_path):
    model = awake(cls(Config.from_name(generator, **fields)))
    assert export_onnx(model, tmp_path / "a.onnx") <= TOLERANCE
    sizes = (*SIZES, (1, 512, 640))
    assert compare(False, model, (tmp_path / "a.onnx").read_bytes(), sizes) <= TOLERANCE


@pytest.fixture
def written_before(exported, monkeypatch):
    """Let a package take the weights that were exported already: exporting takes seconds."""
    pytest.importorskip("bioimageio.spec")
    from emfm.export import bioimageio_package

    def copied(model, path, probabilities=False):
        path.write_bytes(exported[0].read_bytes())
        return exported[1]

    monkeypatch.setattr(bioimageio_package, "export_onnx", copied)


@pytest.fixture
def package(segmenter, written_before, tmp_path):
    from emfm.export.bioimageio_package import PackageArguments, export_package

    segmenter.save_pretrained(tmp_path / "segmenter")
    export_package(tmp_path / "segmenter", tmp_path / "package", PackageArguments("Pores", ("A. Person",), "MIT"))
    return tmp_path / "package"


def test_a_package_holds_its_files_and_meets_the_specification(package):
    from bioimageio.spec import InvalidDescr, load_description

    from emfm.export.bioimageio_package import FILES

    assert sorted(path.name for path in package.iterdir()) == sorted(FILES)
    found = load_description(package / "rdf.yaml", perform_io_checks=True)
    assert not isinstance(found, InvalidDescr)
    assert (found.name, found.license, found.authors[0].name) == ("Pores", "MIT", "A. Person")
    assert [str(name) for name in found.outputs[0].axes[1].channel_names] == list(LABELS.values())
    assert "## Validation" in (package / "README.md").read_text()


def test_the_packages_steps_are_the_processors_and_its_weights_give_its_test_output(segmenter, package):
    description = yaml.safe_load((package / "rdf.yaml").read_text())
    image = np.load(package / "test_input.npy")
    values = image.astype(np.float64)
    for step in description["inputs"][0]["preprocessing"]:
        kwargs = step["kwargs"]
        if step["id"] == "scale_range":
            low, high = np.percentile(values, [kwargs["min_percentile"], kwargs["max_percentile"]])
            values = (values - low) / (high - low + kwargs["eps"])
        elif step["id"] == "scale_linear":
            values = values * kwargs["gain"] + kwargs["offset"]
        else:
            assert step["id"] == "clip"
            values = np.clip(values, kwargs["min"], kwargs["max"])
    own = segmenter.processor.normalize(image[0, 0], segmenter.processor.statistics(image[0, 0]))
    assert np.allclose(values[0, 0], own, atol=1e-6)
    assert own.max() > 1  # so that percentiles and limit both show
    logits = session((package / "weights.onnx").read_bytes()).run(None, {"image": values.astype(np.float32)})[0]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = np.load(package / "test_output.npy")
    assert expected.std() > 1e-3
    assert np.allclose(powers / powers.sum(axis=1, keepdims=True), expected, atol=1e-4)


def test_a_package_replaces_itself_but_no_other_files(package, tmp_path, exported, caplog):
    from emfm.export.bioimageio_package import export_package

    source = tmp_path / "segmenter"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("\\title{}")
    with pytest.raises(EMError, match="no part of a package"):
        export_package(source, tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.tex"]
    export_package(source, package)
    assert "rdf.yaml: what was there is replaced" in caplog.text
    export_package(source, tmp_path / "package.zip")
    with zipfile.ZipFile(tmp_path / "package.zip") as archive:
        assert archive.read("weights.onnx") == exported[0].read_bytes()
        assert archive.testzip() is None
        assert "license" not in yaml.safe_load(archive.read("rdf.yaml"))


BIOIMAGEIO = os.environ.get("EMFM_BIOIMAGEIO") or shutil.which("bioimageio")


@pytest.mark.slow
@pytest.mark.skipif(not BIOIMAGEIO, reason="bioimageio.core is in no environment that EMFM_BIOIMAGEIO or PATH names")
def test_a_package_passes_the_test_of_bioimageio_core(segmenter, tmp_path):
    from emfm.export.bioimageio_package import export_package

    segmenter.save_pretrained(tmp_path / "segmenter")
    export_package(tmp_path / "segmenter", tmp_path / "package")
    awake(EMForSuperResolution(Config.from_name("hrnet-w18-small", scale=2))).save_pretrained(tmp_path / "model")
    export_package(tmp_path / "model", tmp_path / "enlarger.zip")
    for source in (tmp_path / "package" / "rdf.yaml", tmp_path / "enlarger.zip"):
        done = subprocess.run([BIOIMAGEIO, "test", str(source)], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout[-3000:]


def test_the_command_line_exports_into_a_folder_and_prints_the_agreement(
    segmenter, exported, tmp_path, monkeypatch, caplog
):
    from typer.testing import CliRunner

    from emfm.cli import app

    segmenter.save_pretrained(tmp_path / "pores")
    monkeypatch.setattr(onnx_file, "_trace", lambda *_: SimpleNamespace(model_proto=None))
    monkeypatch.setattr(onnx_file, "_with_metadata", lambda *_: exported[0].read_bytes())
    arguments = ["export", str(tmp_path / "pores"), "--format", "onnx", "--output", str(tmp_path / "new"), "--json"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    facts = json.loads(result.stdout)
    assert facts["output"] == str(tmp_path / "new" / "pores.onnx")
    assert 0 < facts["largest_difference"] <= facts["tolerance"]
    assert (tmp_path / "new" / "pores.onnx").read_bytes() == exported[0].read_bytes()
    assert "replaced" not in caplog.text
    CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "pores.onnx: what was there is replaced" in caplog.text
    refused = CliRunner().invoke(app, [*arguments, "--author", "Jo"])
    assert "an ONNX file holds no name, author or licence" in str(refused.exception)
