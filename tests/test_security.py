"""What a hostile repository, folder or environment could try. None of it gets through."""

import json
import pickle
import time
from pathlib import Path

import pytest
import torch
from hub_server import HubServer
from safetensors.torch import load_file, save_file
from test_cli import emfm, last_line  # noqa: F401  (a fixture)
from test_image_header import png
from transformers import AutoModel, AutoModelForSemanticSegmentation

from emfm import EMError, EMForSemanticSegmentation, EMFoundation, EMFoundationConfig
from emfm.hub.verify import verify, write_test_tensors
from emfm.loading.names import model_folder
from emfm.tasks import load_model

LORA = {"peft_type": "LORA", "base_model_name_or_path": "unet4-rf200"}
SECRET = "hf_Sesame0penSesame0penSesame0pen"


class Opens:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "code was run"))


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    model = EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44"))
    model.save_pretrained(tmp_path / "model")
    write_test_tensors(model, tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("# A model\n")
    return tmp_path / "model"


def rewrite(folder: Path, name: str = "config.json", **fields) -> None:
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(content | fields))


@pytest.mark.parametrize("name", ["model.safetensors", "test_tensors.safetensors", "adapter_model.safetensors"])
def test_a_pickle_posing_as_safetensors_is_refused_and_not_run(name, folder, tmp_path):
    (folder / name).write_bytes(pickle.dumps(Opens(tmp_path / "run")))
    if name.startswith("adapter"):
        settings = {
            "peft_type": "LORA",
            "base_model_name_or_path": "unet4-rf200",
            "target_modules": ["trunk.bottleneck"],
        }
        (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "checksums.json").unlink()
    with pytest.raises(EMError):
        model = load_model(folder)
        from emfm.hub.verify import write_checksums

        write_checksums(folder)
        verify(model, folder)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin", "training_args.bin", "model.pt"])
def test_pickled_weights_beside_or_instead_of_safetensors_are_never_opened(name, folder, tmp_path):
    (folder / name).write_bytes(pickle.dumps(Opens(tmp_path / "run")))
    load_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(EMError, match=r"model\.safetensors missing"):
        load_model(folder)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(EMError, match=r"adapter_model\.safetensors missing"):
        load_model(folder)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"auto_map": {"AutoModel": "evil.Model"}}, "holds auto_map, which this emfm does not know"),
        ({"quantization_config": {"load_in_8bit": True}}, "quantization_config"),
        ({"model_type": "bert"}, "type 'bert'; expected 'emfm'"),
        ({"width": 10**9}, "width is 1000000000"),
        ({"width": "16"}, "damaged"),
        ({"dilations": [1] * 10**5}, "dilations"),
        ({"id2label": {str(10**9): "a"}}, "id2label has the indices"),
        ({"id2label": {"0": "a", "1": "\u001b[2J\u202e"}}, "expected a printable name"),
        ({"generator": "../../../etc/passwd"}, "generator is"),
        ({"architectures": ["os.system"]}, r"saved by os\.system"),
        ({"pretraining": ["a"]}, "damaged"),
        ({"schema_version": 10**6}, "update emfm"),
    ],
)
def test_an_unknown_or_hostile_field_of_the_configuration_is_refused(fields, message, folder):
    rewrite(folder, **fields)
    with pytest.raises(EMError, match=message):
        load_model(folder)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000, '{"low": "evil"}', '{"low": NaN}'])
def test_a_damaged_json_file_is_an_error_that_names_it(name, text, folder):
    (folder / name).write_text(text)
    with pytest.raises(EMError, match=name.replace(".", r"\.")):
        load_model(folder)


def test_a_configuration_that_asks_for_gigabytes_is_refused_before_they_are_taken(folder):
    rewrite(folder, width=256, dilations=[1] * 7)  # about 18 billion weights
    started = time.perf_counter()
    with pytest.raises(EMError, match=r"do not fit EMForSemanticSegmentation"):
        load_model(folder)
    assert time.perf_counter() - started < 30


def test_code_in_a_repository_is_not_run_through_the_auto_classes(folder, tmp_path):
    rewrite(folder, auto_map={"AutoModel": "evil.Model", "AutoConfig": "evil.Config"})
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w').write('code was run')")
    import emfm.auto  # noqa: F401  (what transformers then knows)

    for cls in (AutoModel, AutoModelForSemanticSegmentation):
        with pytest.raises(ValueError, match=r"config\.json holds auto_map"):
            cls.from_pretrained(folder)
    assert not (tmp_path / "run").exists()


def test_names_that_leave_the_folder_are_not_downloaded(folder, tmp_path, monkeypatch):
    with HubServer({"lab/model": folder}) as hub:
        hub.stand_in(monkeypatch, tmp_path)
        files = hub.repos["lab/model"].commits[hub.repos["lab/model"].refs["main"]]
        evil = (
            "../evil.json",
            "../../../../evil.json",
            "a/../../evil.json",
            "/tmp/evil.json",
            "evil.py",
            "x/config.json",
        )
        files |= dict.fromkeys(evil, b"{}")
        found = model_folder("lab/model")
    published = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md", "checksums.json"}
    assert {path.name for path in found.rglob("*")} == published | {"test_tensors.safetensors"}
    assert not list(tmp_path.rglob("*evil*"))


def test_a_dataset_whose_splits_lead_out_of_its_folder_is_refused(labelled_folder):
    from emfm import load_em_dataset

    for name in ("../../secret.png", "/etc/passwd"):
        (labelled_folder / "splits.json").write_text(json.dumps({"train": [name]}))
        with pytest.raises(EMError, match="expected paths inside"):
            load_em_dataset(labelled_folder, "train")


@pytest.mark.parametrize("streaming", [False, True])
def test_an_image_bomb_in_a_dataset_is_refused_with_its_row_before_it_is_unpacked(streaming, tmp_path):
    import datasets

    from emfm import load_em_dataset

    bomb = {"bytes": png(100_000, 100_000), "path": "bomb.png"}
    features = datasets.Features({"image": datasets.Image(), "target": datasets.Image()})
    rows = datasets.Dataset.from_dict({"image": [bomb] * 2, "target": [bomb] * 2}, features=features)
    rows.to_parquet(str(tmp_path / "train-00000-of-00001.parquet"))
    with pytest.raises(EMError, match=r"row 0.*bomb\.png.*claims 100000 x 100000 pixels"):
        load_em_dataset(tmp_path, "train", streaming=streaming)


def test_an_image_bomb_as_a_file_is_refused_before_it_is_unpacked(tmp_path):
    from emfm import read_micrograph

    (tmp_path / "bomb.png").write_bytes(png(100_000, 100_000))
    with pytest.raises(EMError, match=r"bomb\.png"):
        read_micrograph(tmp_path / "bomb.png")


def test_checksums_that_lead_out_of_the_folder_are_refused(folder):
    rewrite(folder, "checksums.json", **{"../../secret": "0" * 64})
    with pytest.raises(EMError, match=r"lists \.\./\.\./secret, which is no file of a model"):
        verify(load_model(folder), folder)


def test_test_tensors_without_their_names_or_of_another_shape_are_an_error(folder):
    from emfm.hub.verify import write_checksums

    path, model = folder / "test_tensors.safetensors", load_model(folder)
    tensors = load_file(path)
    for content, message in (
        ({"input": tensors["input"]}, "damaged"),
        ({**tensors, "output": tensors["output"][..., :5].contiguous()}, "answers with shape"),
        ({**tensors, "output": torch.full_like(tensors["output"], torch.nan)}, "differs from the stored one by nan"),
        ({**tensors, "input": torch.zeros(3)}, "expected"),
    ):
        save_file(content, path)
        write_checksums(folder)
        with pytest.raises(EMError, match=message):
            verify(model, folder)


def test_a_token_in_the_environment_is_in_no_file_and_no_line_that_training_and_pushing_write(
    labelled_folder,
    tmp_path,
    emfm,  # noqa: F811
    monkeypatch,
):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    toy = ["--steps", "2", "--batch-size", "2", "--crop", "32", "--precision", "fp32"]
    common = ["finetune", "segmentation", "--scratch", "unet2-rf44", "--data", labelled_folder, "--output"]
    code, stdout, err = emfm(*common, tmp_path / "out", *toy)
    assert code == 0, err
    with HubServer(token="hf_other") as hub:
        hub.stand_in(monkeypatch, tmp_path)
        code, *pushing = emfm("push", tmp_path / "out", "lab/discs")
    assert code == 2 and "cannot push to lab/discs" in last_line(pushing[1])
    assert f"Bearer {SECRET}" in hub.tokens  # it was sent to the Hub, and nowhere else
    assert SECRET not in "".join([stdout, err, *pushing])
    holding = [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert holding == []


def test_an_adapter_of_another_kind_or_with_a_hostile_base_is_refused(folder):
    (folder / "adapter_model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    for settings, message in (
        (LORA | {"base_model_name_or_path": "/no/such/place"}, "there is no model folder"),
        (LORA | {"peft_type": "PROMPT_TUNING"}, "PROMPT_TUNING additions"),
        (
            LORA | {"auto_mapping": {"parent_library": "os"}},
            "LoRA",
        ),
        (LORA | {"base_model_name_or_path": {"a": 1}}, "named model"),
        ({}, "is damaged"),
    ):
        (folder / "adapter_config.json").write_text(json.dumps(settings))
        with pytest.raises(EMError, match=message):
            load_model(folder)


def test_weights_of_the_wrong_kind_are_not_loaded_into_another_class(folder):
    with pytest.raises(EMError, match="missing: image_head"):
        rewrite(folder, architectures=["EMFoundation"])
        EMFoundation.from_pretrained(folder)
