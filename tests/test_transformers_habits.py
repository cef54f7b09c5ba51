"""What people who come from transformers try."""

import json
import logging

import numpy as np
import pytest
import torch
from hub_server import HubServer
from torch.utils.data import Dataset
from transformers import AutoImageProcessor, AutoModel, Trainer, TrainingArguments, pipeline

import emfm.auto  # noqa: F401
from emfm import (
    EMError,
    EMForDenoising,
    EMForSemanticSegmentation,
    EMForSuperResolution,
    EMFoundation,
    EMFoundationConfig,
    predict,
)

NAMES = {0: "background", 1: "particle"}
IMAGE = np.random.default_rng(0).normal(100, 10, (50, 70)).astype(np.float32)


def segmenter(**fields):
    torch.manual_seed(0)
    return EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44", id2label=NAMES, **fields)).eval()


@pytest.fixture
def saved(tmp_path):
    segmenter(class_weights=[1.0, 2.0]).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


class Crops(Dataset):
    """Four crops with labels."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(4, 1, 32, 32, generator=generator)
        self.labels = torch.randint(0, 2, (4, 32, 32), generator=generator)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {"pixel_values": self.images[index], "labels": self.labels[index]}


def test_accumulated_batches_of_the_stock_trainer_give_the_gradient_of_the_large_one(tmp_path):
    weights = []
    for batch, accumulated in ((4, 1), (2, 2), (1, 4)):
        model = EMForDenoising(EMFoundationConfig.from_name("unet2-rf44"))
        torch.manual_seed(0)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, 0, 0.1)
        data = Crops()
        data.labels = data.images * 0.5
        args = TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=1,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulated,
            learning_rate=0.1,
            optim="sgd",
            max_grad_norm=0,
            lr_scheduler_type="constant",
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        )
        Trainer(model, args, train_dataset=data).train()
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights[2], weights[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("asked", [torch.bfloat16, "bfloat16", torch.float16])
def test_torch_dtype_is_dtype(asked, saved):
    first = EMForSemanticSegmentation.from_pretrained(saved, torch_dtype=asked)
    second = EMForSemanticSegmentation.from_pretrained(saved, dtype=asked)
    wanted = getattr(torch, asked) if isinstance(asked, str) else asked
    assert first.dtype == second.dtype == wanted
    assert EMForSemanticSegmentation.from_pretrained(saved).dtype == torch.float32


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm": "foo"}, "norm is 'foo'"),
        ({"width": -3}, "width is -3"),
        ({"scale": 3}, "scale is 3"),
        ({"class_weights": [1.0]}, "class_weights are .*expected a positive number for each of the 2"),
        ({"id2label": {0: "a", 2: "b"}}, "indices"),
        ({"id2label": {0: "", 1: "b"}}, "class 0|empty|name"),
        ({"no_such_field": 1}, "no_such_field"),
        ({"use_safetensors": False}, "pickled"),
    ],
)
def test_fields_that_are_given_are_checked_like_those_of_a_file(fields, message, saved):
    with pytest.raises((EMError, TypeError), match=message):
        EMForSemanticSegmentation.from_pretrained(saved, **fields)


def test_names_that_are_given_stand_in_both_directions_and_survive_saving(saved, tmp_path):
    given = {0: "background", 1: " Pt\u00a0particle "}
    model = EMForSemanticSegmentation.from_pretrained(saved, id2label=given)
    assert model.config.label2id == {"background": 0, "Pt particle": 1} and model.config.num_labels == 2
    model.save_pretrained(tmp_path / "again")
    assert EMForSemanticSegmentation.from_pretrained(tmp_path / "again").classes == {0: "background", 1: "Pt particle"}
    by_label = EMForSemanticSegmentation.from_pretrained("unet2-rf44", label2id={"matrix": 0, "void": 1})
    assert by_label.classes == {0: "matrix", 1: "void"}
    assert len(EMForSemanticSegmentation.from_pretrained("unet2-rf44", num_labels=5).classes) == 5


def test_a_head_of_another_shape_is_new_where_that_is_asked_for(saved, caplog):
    three = {0: "background", 1: "particle", 2: "void"}
    with pytest.raises(EMError, match=r"class_head\.bias is"):
        EMForSemanticSegmentation.from_pretrained(saved, id2label=three)
    model = EMForSemanticSegmentation.from_pretrained(saved, id2label=three, ignore_mismatched_sizes=True)
    assert model.new_head and len(model.classes) == 3 and "the head is new" in caplog.text
    old = EMForSemanticSegmentation.from_pretrained(saved)
    assert all(torch.equal(a, b) for a, b in zip(model.trunk.parameters(), old.trunk.parameters(), strict=True))
    assert not old.new_head


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"variant": "fp16"}, "variant is 'fp16'"),
        ({"max_shard_size": "10KB"}, "max_shard_size is 10KB"),
        ({"push_to_hub": True}, "push_to_hub"),
    ],
)
def test_what_would_not_load_again_is_refused_when_it_is_saved(asked, message, tmp_path):
    with pytest.raises(EMError, match=message):
        segmenter().save_pretrained(tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()
    segmenter().save_pretrained(tmp_path / "out", max_shard_size="5GB")
    EMForSemanticSegmentation.from_pretrained(tmp_path / "out")


def test_a_note_in_the_configuration_is_refused_when_it_is_saved(tmp_path):
    model = segmenter()
    model.config.note = "from the blue microscope"
    with pytest.raises(EMError, match=r"holds note, which no config\.json"):
        model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()


def test_auto_classes_build_from_a_configuration_and_know_bundled_names():
    assert type(AutoModel.from_config(EMFoundationConfig.from_name("unet2-rf44"))) is EMFoundation
    assert type(AutoModel.from_pretrained("unet2-rf44")) is EMFoundation
    assert AutoImageProcessor.from_pretrained("unet2-rf44").clip == 3.0
    restored = pipeline("em-image-to-image", model="unet2-rf44")(IMAGE)
    np.testing.assert_array_equal(restored["image"], predict("unet2-rf44", IMAGE).output)


def test_a_zoo_network_loads_into_a_task_without_a_report(capfd, caplog):
    EMForSemanticSegmentation.from_pretrained("unet2-rf44", id2label=NAMES)
    shown = capfd.readouterr()
    assert shown.err == "" and shown.out == "" and not [r for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("name", ["unet2-rf44", pytest.param("hrnet-w18-small", marks=pytest.mark.slow)])
def test_compiled_models_take_images_of_several_sizes(name):
    model = EMFoundation(EMFoundationConfig.from_name(name)).eval()
    compiled = torch.compile(model, backend="eager")
    for shape in ((32, 32), (33, 47), (64, 50)):
        image = torch.randn(1, 1, *shape)
        with torch.no_grad():
            torch.testing.assert_close(compiled(image).reconstruction, model(image).reconstruction)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("cls", [EMForSemanticSegmentation, EMForSuperResolution])
def test_models_of_any_precision_predict(dtype, cls):
    fields = {"id2label": NAMES} if cls is EMForSemanticSegmentation else {"scale": 2}
    torch.manual_seed(0)
    model = cls(EMFoundationConfig.from_name("unet2-rf44", **fields)).eval()
    expected = predict(model, IMAGE).output.astype(np.float64)
    found = predict(model.to(dtype), IMAGE).output.astype(np.float64)
    tiled = predict(model, IMAGE, tile=48).output.astype(np.float64)
    for output in (found, tiled):
        assert np.abs(output - expected).mean() < (0.05 if cls is EMForSemanticSegmentation else 1.5)


def test_outputs_come_as_tuples_where_that_is_asked_for():
    model = segmenter()
    image, labels = torch.randn(1, 1, 32, 32), torch.zeros(1, 32, 32, dtype=torch.int64)
    loss, logits = model(image, labels=labels, return_dict=False)
    named = model(image, labels=labels)
    assert torch.equal(loss, named.loss) and torch.equal(logits, named.logits)


def test_the_configuration_reads_as_json():
    config = segmenter().config
    assert json.loads(config.to_json_string())["id2label"] == {"0": "background", "1": "particle"}
    assert config.get_text_config(decoder=True) is config


def test_every_scale_is_returned_where_hidden_states_are_asked_for():
    images = torch.randn(1, 1, 20, 30)
    for model in (segmenter(), EMForSuperResolution(EMFoundationConfig.from_name("unet2-rf44", scale=2)).eval()):
        plain, asked = model(images), model(images, output_hidden_states=True)
        assert plain.hidden_states is None
        seen = images if model.scale == 1 else model.enlarged(images)
        for found, expected in zip(asked.hidden_states, model.features(seen), strict=True):
            torch.testing.assert_close(found, expected)
        torch.testing.assert_close(asked[0], plain[0])
        model.config.output_hidden_states = True
        assert len(model(images).hidden_states) == 3


def test_what_the_stock_trainer_pushes_is_loaded_from_the_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with HubServer() as hub:
        hub.stand_in(monkeypatch, tmp_path)
        args = TrainingArguments(
            output_dir=str(tmp_path / "out"),
            max_steps=1,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            push_to_hub=True,
            hub_model_id="lab/stock",
        )
        trainer = Trainer(segmenter(), args, train_dataset=Crops())
        trainer.train()
        trainer.push_to_hub()
        again = EMForSemanticSegmentation.from_pretrained("lab/stock")
        assert again.classes == NAMES and not again.new_head
        for name, tensor in trainer.model.state_dict().items():
            torch.testing.assert_close(again.state_dict()[name], tensor)


def test_no_name_is_told_how_weights_in_memory_are_loaded():
    with pytest.raises(EMError, match=r"make cls\(config\), then load_state_dict"):
        EMFoundation.from_pretrained(None, config=EMFoundationConfig.from_name("unet2-rf44"))
