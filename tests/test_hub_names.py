"""Names of the zoo on the Hub, and transformers' own ways to a model there, over HTTP to the test Hub."""

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from hub_server import HubServer
from transformers import AutoImageProcessor, AutoModel, AutoModelForSemanticSegmentation, pipeline

import emfm.auto  # noqa: F401  (tells transformers of emfm's models)
from emfm import (
    EMError,
    EMForDenoising,
    EMForSemanticSegmentation,
    EMFoundation,
    EMFoundationConfig,
    list_models,
    predict,
)
from emfm.loading.names import model_folder
from emfm.tasks import load_model


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.delenv("EMFM_ZOO", raising=False)
    with HubServer() as server:
        server.stand_in(monkeypatch, tmp_path)
        yield server


@pytest.fixture
def served(hub, tmp_path):
    """Return a function that saves a model and serves its folder under an id."""

    def serve(model, repo_id: str):
        from hub_store import Repo

        folder = tmp_path / repo_id.replace("/", "--")
        model.save_pretrained(folder)
        hub.repos[repo_id] = Repo.of_folder(repo_id, folder)
        return hub.repos[repo_id]

    return serve


def small(cls, seed: int = 0, **fields):
    torch.manual_seed(seed)
    return cls(EMFoundationConfig.from_name("unet2-rf44", **fields)).eval()


CLASSES = {0: "background", 1: "particle"}
IMAGE = np.random.default_rng(0).integers(0, 60_000, (50, 70)).astype(np.uint16)


@pytest.mark.parametrize("load", [load_model, EMForSemanticSegmentation.from_pretrained, model_folder])
def test_weights_that_are_neither_bundled_nor_on_the_hub_are_answered_with_what_else_there_is(load, hub, monkeypatch):
    monkeypatch.setenv("EMFM_ZOO", "lab")
    for offline in (False, True):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
        before = len(hub.asked)
        with pytest.raises(EMError, match=r"^the weights of 'unet3-rf176-w8' are not in this package") as caught:
            load("unet3-rf176-w8")
        for part in (
            "unet4-rf200-w16",
            "lab/unet3-rf176-w8 could not be loaded from the Hub",
            "--scratch unet3-rf176-w8",
        ):
            assert part in str(caught.value)
        assert any("lab/unet3-rf176-w8" in asked for asked in hub.asked[before:]) is not offline


@pytest.mark.parametrize("way", ["environment", "constant"])
def test_a_zoo_name_that_is_not_bundled_loads_from_the_zoos_namespace(way, hub, served, monkeypatch):
    if way == "environment":
        monkeypatch.setenv("EMFM_ZOO", "lab")
    else:
        monkeypatch.setattr("emfm.loading.names.ZOO_NAMESPACE", "lab")
    model = small(EMFoundation, seed=1)
    served(model, "lab/unet2-rf44-w8")
    for load in (EMFoundation.from_pretrained, load_model):
        assert torch.equal(load("unet2-rf44-w8").image_head.weight, model.image_head.weight)


@pytest.mark.parametrize("load", [load_model, EMForSemanticSegmentation.from_pretrained, model_folder])
def test_without_a_namespace_no_stranger_is_asked_for_weights(load, hub, served):
    served(small(EMFoundation), "emfm/unet2-rf44-w8")  # whoever took the name
    with pytest.raises(EMError, match="set EMFM_ZOO to its name; random weights of it come from"):
        load("unet2-rf44-w8")
    assert hub.asked == []


def test_a_namespace_that_can_be_none_is_named(hub, monkeypatch):
    monkeypatch.setenv("EMFM_ZOO", "https://huggingface.co/lab")
    with pytest.raises(EMError, match=r"EMFM_ZOO is 'https://huggingface.co/lab'; expected the name of an account"):
        model_folder("unet2-rf44-w8")


def test_a_revision_of_what_lies_on_this_machine_is_said_to_have_no_effect(hub, caplog):
    EMFoundation.from_pretrained("unet2-rf44", revision="v9")
    assert "revision is 'v9', but unet2-rf44 lies on this machine" in caplog.text


def test_bundled_weights_never_ask_the_hub(hub):
    names = [info.name for info in list_models()]
    for name in names:
        EMFoundation.from_pretrained(name), load_model(name), model_folder(name)
    assert len(names) >= 2 and hub.asked == []


def test_auto_classes_load_a_revision_of_a_private_repository_with_a_token_into_a_cache_of_choice(
    hub, served, tmp_path
):
    old, new = small(EMForSemanticSegmentation, 1, id2label=CLASSES), small(EMFoundation, 2)
    repo = served(old, "lab/models")
    (first,) = repo.commits
    repo.refs["v1"] = first
    repo.commits[first] = {name: path.read_bytes() for name, path in repo.commits[first].items()}
    new.save_pretrained(tmp_path / "new")
    repo.commits["b" * 40] = {file.name: file.read_bytes() for file in (tmp_path / "new").iterdir()}
    repo.refs["main"], repo.private = "b" * 40, True
    place = {"token": "hf_test", "cache_dir": tmp_path / "mine"}
    found = AutoModel.from_pretrained("lab/models", revision="v1", **place)
    assert type(found) is EMForSemanticSegmentation and torch.equal(found.class_head.weight, old.class_head.weight)
    latest = AutoModel.from_pretrained("lab/models", **place)
    assert type(latest) is EMFoundation and torch.equal(latest.image_head.weight, new.image_head.weight)
    segmenter = AutoModelForSemanticSegmentation.from_pretrained("lab/models", revision="v1", **place)
    assert segmenter.classes == CLASSES
    processor = AutoImageProcessor.from_pretrained("lab/models", revision="v1", **place)
    assert processor.to_dict() == old.processor.to_dict()
    assert (tmp_path / "mine" / "models--lab--models").is_dir() and not (tmp_path / "cache").exists()
    assert "Bearer hf_test" in hub.tokens
    with pytest.raises((EMError, OSError), match="lab/models"):
        AutoModel.from_pretrained("lab/models", token=False, cache_dir=tmp_path / "other")


def test_pipelines_take_a_hub_id_and_answer_as_predict_does(hub, served):
    segmenter, denoiser = small(EMForSemanticSegmentation, 1, id2label=CLASSES), small(EMForDenoising, 2)
    served(segmenter, "lab/segmenter")
    served(denoiser, "lab/denoiser")
    parts = pipeline("image-segmentation", model="lab/segmenter", revision="main")(IMAGE)
    classes = predict(segmenter, IMAGE).output
    assert {part["label"] for part in parts} == {CLASSES[index] for index in np.unique(classes)}
    for part in parts:
        assert np.array_equal(np.asarray(part["mask"]) == 255, classes == segmenter.config.label2id[part["label"]])
    restored = pipeline("em-image-to-image", model="lab/denoiser")(IMAGE)
    assert np.array_equal(restored["image"], predict(denoiser, IMAGE).output)
