"""Pushing models with the real client over HTTP: one commit, nothing else in it, and what the Hub refuses."""

import json
from pathlib import Path

import pytest
import torch
from hub_server import HubServer
from test_cli import emfm, last_line  # noqa: F401  (a fixture)

from emfm import EMError, EMForSemanticSegmentation, EMFoundation, EMTrainer, EMTrainingArguments, load_em_dataset
from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.hub.push import PushArguments, push_folder
from emfm.loading.model_files import LOADED
from emfm.tasks import load_model

MODEL = {name for name in LOADED if not name.startswith("adapter")}
FINETUNED = MODEL | {"README.md", "finetuning.json", "curve.json", "curve.png", "checksums.json", ".gitattributes"}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with HubServer() as server:
        server.stand_in(monkeypatch, tmp_path)
        yield server


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory):
    """A model folder as `emfm finetune` leaves it."""
    from conftest import disc_image

    from emfm.io.writing import write_image

    folder = tmp_path_factory.mktemp("discs")
    for index in range(3):
        for part, image in zip(("images", "masks"), disc_image(48, index), strict=True):
            write_image(folder / part / f"{index}.png", image)
    (folder / "labels.json").write_text('{"0": "background", "255": "disc"}')
    args = dict(scratch="unet2-rf44", steps=2, batch_size=2, crop=32, precision="fp32")
    finetune(FinetuneArguments("segmentation", str(folder), str(folder / "out"), **args), show_progress=False)
    return folder / "out"


def files(hub, repo="lab/discs", revision="main") -> dict[str, bytes]:
    found = hub.repos[repo]
    return {entry["path"]: found.read(revision, entry["path"]) for entry in found.entries(revision)}


def test_a_folder_goes_up_in_one_commit_with_the_files_of_the_model_and_nothing_else(hub, finetuned, tmp_path):
    for name in ("optimizer.pt", "notes.txt", "checkpoint-2.safetensors"):
        (finetuned / name).write_bytes(b"not of the model")
    address = push_folder(load_model(finetuned), finetuned, PushArguments("lab/discs", private=True, tag="v1.0"))
    repo = hub.repos["lab/discs"]
    assert repo.private and len(repo.commits) == 2 and address.endswith(f"/commit/{repo.refs['main']}")
    assert repo.refs["v1.0"] == repo.refs["main"]
    pushed = files(hub)
    assert set(pushed) == FINETUNED
    for name in FINETUNED - {".gitattributes", "README.md"}:
        assert pushed[name] == (finetuned / name).read_bytes()
    card = (finetuned / "README.md").read_bytes()
    assert pushed["README.md"] == card.replace(b'model_id = "path/to/this/folder"', b'model_id = "lab/discs"') != card
    text = b"".join(content for name, content in pushed.items() if name.endswith((".json", ".md"))).decode()
    assert "hf_test" not in text and str(Path.home()) not in text and "/tmp/" not in text
    for name in ("optimizer.pt", "notes.txt", "checkpoint-2.safetensors"):
        (finetuned / name).unlink()


def test_what_an_older_model_left_behind_goes_with_the_same_commit(hub, finetuned):
    push_folder(load_model(finetuned), finetuned, PushArguments("lab/discs"))
    repo = hub.repos["lab/discs"]
    repo.commits[repo.refs["main"]]["adapter_config.json"] = b"{}"
    push_folder(load_model(finetuned), finetuned, PushArguments("lab/discs", message="Again"))
    assert set(files(hub)) == FINETUNED


def test_a_branch_is_made_and_a_change_can_be_proposed(hub, finetuned):
    push_folder(load_model(finetuned), finetuned, PushArguments("lab/discs", branch="trial"))
    repo = hub.repos["lab/discs"]
    assert set(files(hub)) == {".gitattributes"} and set(files(hub, revision="trial")) == FINETUNED
    address = push_folder(load_model(finetuned), finetuned, PushArguments("lab/discs", create_pr=True))
    assert address.endswith("/discussions/1")
    assert set(files(hub)) == {".gitattributes"} and set(files(hub, revision="refs/pr/1")) == FINETUNED
    assert len(repo.commits) == 3


def test_a_changed_folder_or_one_with_something_private_is_not_pushed(hub, finetuned, tmp_path):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(finetuned, folder)
    (folder / "README.md").write_text("made in /home/ada with hf_abcdefghijk")
    with pytest.raises(EMError, match=r"README\.md holds an access token and an absolute path"):
        push_folder(load_model(folder), folder, PushArguments("lab/discs"))
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    with pytest.raises(EMError, match=r"config\.json was changed"):
        push_folder(load_model(folder), folder, PushArguments("lab/discs"))
    (folder / "README.md").unlink()
    with pytest.raises(EMError, match="pushed with its card"):
        push_folder(load_model(folder), folder, PushArguments("lab/discs"))
    assert hub.repos == {} and hub.asked == []


def test_models_and_trainers_push_themselves(hub, finetuned, labelled_folder, tmp_path):
    loaded = EMForSemanticSegmentation.from_pretrained(finetuned)
    loaded.push_to_hub("lab/as-loaded")
    card = (finetuned / "README.md").read_bytes().replace(b"path/to/this/folder", b"lab/as-loaded")
    assert files(hub, "lab/as-loaded")["README.md"] == card
    with torch.no_grad():
        loaded.class_head.bias += 1
    loaded.push_to_hub("lab/changed")
    card = files(hub, "lab/changed")["README.md"].decode()
    assert "is not\nrecorded" in card and set(files(hub, "lab/changed")) == MODEL | {
        "README.md", "checksums.json", ".gitattributes"
    }  # fmt: skip
    bundled = EMFoundation.from_pretrained("unet4-rf200")
    bundled.push_to_hub("lab/unet")
    assert "## Training" in files(hub, "lab/unet")["README.md"].decode()

    data = load_em_dataset(labelled_folder)
    arguments = EMTrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=2, crop=32, precision="fp32", hub_model_id="lab/own"
    )  # fmt: skip
    trainer = EMTrainer(loaded, arguments, data, data)
    with pytest.raises(EMError, match="nothing was trained"):
        trainer.push_to_hub()
    trainer.train()
    trainer.push_to_hub(tag="first")
    assert set(files(hub, "lab/own", "first")) == FINETUNED - {"finetuning.json", "curve.png"}
    with pytest.raises(EMError, match=r"trainer\.push_to_hub\(\)"):
        EMTrainingArguments(output_dir=str(tmp_path), push_to_hub=True)


@pytest.mark.parametrize(
    ("pattern", "status", "headers"),
    [
        ("POST .*/preupload/", 503, {}),
        ("POST .*/objects/batch", 500, {}),
        ("PUT /lfs/", 503, {}),
        ("POST .*/preupload/", 429, {"Retry-After": "1"}),
    ],
)
def test_a_passing_fault_is_tried_again(pattern, status, headers, hub, finetuned):
    hub.fail(pattern, status, times=1, headers=headers)
    push_folder(load_model(finetuned), finetuned, PushArguments("lab/discs"))
    assert set(files(hub)) == FINETUNED and len(hub.repos["lab/discs"].commits) == 2


@pytest.mark.parametrize(("pattern", "status"), [("POST .*/commit/main", 403), ("POST .*/preupload/", 400)])
def test_a_refusal_is_one_clear_error_and_leaves_nothing_on_the_hub(pattern, status, hub, finetuned):
    hub.fail(pattern, status, times=99)
    with pytest.raises(EMError, match="cannot push to lab/discs"):
        push_folder(load_model(finetuned), finetuned, PushArguments("lab/discs"))
    assert set(files(hub)) == {".gitattributes"}


def test_without_a_token_or_with_a_wrong_name_the_error_is_one_line(hub, finetuned, emfm, monkeypatch):  # noqa: F811
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    code, _, err = emfm("push", finetuned, "lab/discs")
    assert code == 2 and "cannot push to lab/discs" in last_line(err)
    code, _, err = emfm("push", finetuned, "lab/discs/too/deep")
    assert code == 2 and "cannot push" in last_line(err)
    code, _, err = emfm("push", finetuned, "lab/discs", "--tag", "v1", "--create-pr")
    assert code == 2 and "either --tag or --create-pr" in last_line(err)
    assert hub.repos == {}


def test_pushed_from_the_command_line_a_model_loads_by_its_id_and_verifies(hub, finetuned, emfm):  # noqa: F811
    code, stdout, err = emfm("push", finetuned, "lab/discs", "--tag", "v1", "--json")
    assert code == 0, err
    assert json.loads(stdout)["repo_id"] == "lab/discs"
    code, stdout, err = emfm("verify", "lab/discs", "--revision", "v1", "--json")
    assert code == 0, err
    assert json.loads(stdout)["difference"] < 1e-4
    repo = hub.repos["lab/discs"]
    whole = repo.commits[repo.refs["main"]]
    repo.commits["b" * 40] = {**whole, "model.safetensors": whole["model.safetensors"][:-4]}
    repo.refs["main"] = "b" * 40
    code, _, err = emfm("verify", "lab/discs", "--json")
    assert code == 2 and "model.safetensors" in last_line(err)
