"""Loading by name, by Hub id over HTTP, and through transformers' Auto classes; each in a process of its own."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hub_server import HubServer
from PIL import Image

from emfm import EMError, EMForSemanticSegmentation, EMFoundation, EMFoundationConfig, list_models
from emfm.hub.verify import verify
from emfm.loading.names import BUNDLED, bundled_names
from emfm.tasks import load_model


def run_python(code: str, **environment: str) -> str:
    """Run code in a new interpreter and return what it printed."""
    settings = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    done = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    config = EMFoundationConfig.from_name("unet2-rf44", id2label={0: "background", 1: "particle"})
    model = EMForSemanticSegmentation(config).eval()
    model.save_pretrained(tmp_path / "repo")
    return model, tmp_path / "repo"


def test_a_model_loads_by_hub_id_over_http_and_again_offline_from_the_cache(saved, tmp_path):
    model, folder = saved
    code = """
import torch
from emfm import EMForSemanticSegmentation
model = EMForSemanticSegmentation.from_pretrained("lab/particles", revision="main")
print(model.eval()(torch.ones(1, 1, 32, 32)).logits.sum().item())
"""
    expected = model(torch.ones(1, 1, 32, 32)).logits.sum().item()
    with HubServer({"lab/particles": folder}) as hub:
        online = run_python(code, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "cache"))
    offline = run_python(code, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "cache"), HF_HUB_OFFLINE="1")
    assert float(online) == pytest.approx(expected, rel=1e-5)
    assert online == offline


def test_a_hub_repo_without_its_processor_does_not_load(saved, tmp_path):
    _, folder = saved
    (folder / "preprocessor_config.json").unlink()
    code = """
from emfm import EMError, EMForSemanticSegmentation
try:
    EMForSemanticSegmentation.from_pretrained("lab/particles")
except EMError as error:
    print("EMError", "preprocessor_config" in str(error))
"""
    with HubServer({"lab/particles": folder}) as hub:
        assert run_python(code, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "cache")) == "EMError True"


def test_auto_classes_and_pipeline_find_a_saved_model_after_importing_emfm_auto(saved, tmp_path):
    model, folder = saved
    image = np.random.default_rng(0).integers(0, 255, (40, 48)).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    code = f"""
import json
import numpy as np
import emfm.auto
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, pipeline
folder, image = {str(folder)!r}, {str(tmp_path / "image.png")!r}
found = pipeline("image-segmentation", model=folder)(image)
print(json.dumps([
    type(AutoModelForSemanticSegmentation.from_pretrained(folder)).__name__,
    type(AutoImageProcessor.from_pretrained(folder)).__name__,
    {{part["label"]: int((np.asarray(part["mask"]) > 0).sum()) for part in found}},
]))
"""
    model_class, processor_class, areas = json.loads(run_python(code, HF_HUB_OFFLINE="1"))
    assert (model_class, processor_class) == ("EMForSemanticSegmentation", "EMImageProcessor")
    classes = model.processor.post_process_semantic_segmentation(model(**model.processor(image)))[0].numpy()
    names, counts = np.unique(classes, return_counts=True)
    assert areas == {model.config.id2label[int(name)]: int(count) for name, count in zip(names, counts, strict=True)}


def test_importing_emfm_loads_none_of_the_heavy_libraries():
    code = """
import sys
import emfm
print(sorted({"torch", "timm", "datasets", "transformers", "torchvision", "matplotlib"} & set(sys.modules)))
"""
    assert run_python(code) == "[]"


def test_every_public_name_can_be_imported():
    code = "import emfm; print(all(getattr(emfm, name) is not None for name in emfm.__all__))"
    assert run_python(code) == "True"


@pytest.mark.parametrize("name", bundled_names())
class TestEveryBundledModel:
    def test_it_reproduces_its_stored_output(self, name):
        assert verify(EMFoundation.from_pretrained(name), BUNDLED / name) < 1e-3

    def test_its_validation_figures_beat_the_damaged_input(self, name):
        pretraining = EMFoundationConfig.from_pretrained(BUNDLED / name).pretraining
        assert pretraining["steps"] * pretraining["batch_size"] >= 60_000
        assert pretraining["validation"]["l1"] < 0.6 * pretraining["validation"]["l1_input"]

    def test_a_changed_weight_is_noticed(self, name):
        model = EMFoundation.from_pretrained(name)
        with torch.no_grad():
            model.restoring_head.out.bias += 0.1
        with pytest.raises(EMError, match="differs from the stored one"):
            verify(model, BUNDLED / name)

    def test_its_trunk_starts_a_segmentation(self, name):
        model = EMForSemanticSegmentation.from_pretrained(name, id2label={0: "pore", 1: "alumina", 2: "platinum"})
        assert model.class_head.weight.shape[0] == 3
        pretrained = EMFoundation.from_pretrained(name).trunk.state_dict()
        assert all(torch.equal(value, pretrained[key]) for key, value in model.trunk.state_dict().items())


def test_the_zoo_lists_what_is_bundled_smallest_first():
    models = list_models()
    assert {"unet4-rf200", "unet4-rf200-w16"} <= {info.name for info in models}
    assert {info.name: info.parameters for info in models}["unet4-rf200"] == 130_677
    assert [info.parameters for info in models] == sorted(info.parameters for info in models)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unet4-rf20", "did you mean unet4-rf200"),
        ("./not/there", "there is no model folder"),
    ],
)
def test_an_unknown_model_is_answered_with_what_there_is(name, message):
    with pytest.raises(EMError, match=message):
        load_model(name)
