"""Loading by name, by Hub id over HTTP, and through transformers' Auto classes."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hub_server import HubServer
from huggingface_hub import constants
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, pipeline

from emfm import (
    EMError,
    EMForSemanticSegmentation,
    EMFoundation,
    EMFoundationConfig,
    EMImageProcessor,
    list_models,
)
from emfm.hub.verify import verify
from emfm.loading.names import BUNDLED, bundled_names
from emfm.tasks import load_model


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    config = EMFoundationConfig.from_name("unet2-rf44", id2label={0: "background", 1: "particle"})
    model = EMForSemanticSegmentation(config).eval()
    model.save_pretrained(tmp_path / "repo")
    return model, tmp_path / "repo"


def test_a_model_loads_by_hub_id_over_http_and_again_offline_from_the_cache(saved, tmp_path, monkeypatch):
    model, folder = saved
    image = torch.ones(1, 1, 32, 32)
    with HubServer({"lab/particles": folder}) as hub:
        hub.stand_in(monkeypatch, tmp_path)
        online = EMForSemanticSegmentation.from_pretrained("lab/particles", revision="main").eval()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = EMForSemanticSegmentation.from_pretrained("lab/particles", revision="main").eval()
    assert torch.equal(online(image).logits, model(image).logits)
    assert torch.equal(offline(image).logits, model(image).logits)


def test_a_hub_repo_without_its_processor_does_not_load(saved, tmp_path, monkeypatch):
    _, folder = saved
    (folder / "preprocessor_config.json").unlink()
    with HubServer({"lab/particles": folder}) as hub:
        hub.stand_in(monkeypatch, tmp_path)
        with pytest.raises(EMError, match="preprocessor_config"):
            EMForSemanticSegmentation.from_pretrained("lab/particles")


def test_auto_classes_and_pipeline_find_a_saved_model_after_importing_emfm_auto(saved, tmp_path):
    model, folder = saved
    image = np.random.default_rng(0).integers(0, 255, (40, 48)).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    import emfm.auto  # noqa: F401  (what transformers then knows)

    assert type(AutoModelForSemanticSegmentation.from_pretrained(folder)) is EMForSemanticSegmentation
    assert type(AutoImageProcessor.from_pretrained(folder)) is EMImageProcessor
    found = pipeline("image-segmentation", model=str(folder))(str(tmp_path / "image.png"))
    areas = {part["label"]: int((np.asarray(part["mask"]) > 0).sum()) for part in found}
    classes = model.processor.post_process_semantic_segmentation(model(**model.processor(image)))[0].numpy()
    names, counts = np.unique(classes, return_counts=True)
    assert areas == {model.config.id2label[int(name)]: int(count) for name, count in zip(names, counts, strict=True)}


def test_importing_emfm_loads_none_of_the_heavy_libraries_and_every_public_name_can_be_imported_from_it():
    code = """
import sys
import emfm
print(sorted({"torch", "timm", "datasets", "transformers", "torchvision", "matplotlib"} & set(sys.modules)))
print(all(getattr(emfm, name) is not None for name in emfm.__all__))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["[]", "True"]


@pytest.mark.parametrize("name", bundled_names())
class TestEveryBundledModel:
    def test_it_reproduces_its_stored_output(self, name):
        assert verify(load_model(name), BUNDLED / name) < 1e-3

    def test_its_validation_figures_beat_the_damaged_input(self, name):
        pretraining = EMFoundationConfig.from_pretrained(BUNDLED / name).pretraining
        assert pretraining["steps"] * pretraining["batch_size"] >= 30_000
        assert pretraining["validation"]["l1"] < 0.6 * pretraining["validation"]["l1_input"]

    def test_a_changed_weight_is_noticed(self, name):
        model = load_model(name)
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
