"""Checksums of a model folder, and what must not be pushed with it."""

import json

import pytest
import torch

from emfm import EMError, EMForSemanticSegmentation, EMFoundationConfig
from emfm.files import sha256
from emfm.hub.privacy import check_private
from emfm.hub.verify import verify, write_test_tensors
from emfm.loading.domain import DOMAIN
from emfm.loading.model_files import ADAPTER, CHECKSUMS, LOADED, check_checksums, write_checksums


@pytest.fixture
def model_folder(tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "model"
    model = EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44"))
    model.save_pretrained(folder)
    write_test_tensors(model, folder)
    (folder / "README.md").write_text("# A model\n")
    return folder


def test_every_file_that_is_loaded_has_its_checksum_and_the_card_may_be_corrected(model_folder):
    sums = json.loads((model_folder / CHECKSUMS).read_text())
    assert sums == {name: sha256(model_folder / name) for name in LOADED if name not in (*ADAPTER, DOMAIN)}
    (model_folder / "README.md").write_text("# A better card\n")
    check_checksums(model_folder)
    assert verify(EMForSemanticSegmentation.from_pretrained(model_folder), model_folder) == 0


def cut_short(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def changed(folder):
    path = folder / "preprocessor_config.json"
    path.write_text(path.read_text().replace("99.0", "98.0"))


def renamed(folder):
    (folder / "test_tensors.safetensors").rename(folder / "tensors.safetensors")


def added(folder):
    (folder / "adapter_config.json").write_text("{}")


DAMAGE = {
    cut_short: r"model\.safetensors was changed or cut short",
    changed: r"preprocessor_config\.json was changed",
    renamed: r"test_tensors\.safetensors is missing",
    added: r"adapter_config\.json is not listed",
    lambda folder: (folder / CHECKSUMS).unlink(): r"has no checksums\.json",
    lambda folder: (folder / CHECKSUMS).write_text("[1]"): r"checksums\.json is damaged",
    lambda folder: (folder / CHECKSUMS).write_text('{"../x": "0"}'): r"lists \.\./x, which is no file of a model",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_refused_with_the_file_and_the_reason(damage, model_folder):
    damage(model_folder)
    with pytest.raises(EMError, match=DAMAGE[damage]):
        check_checksums(model_folder)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("hf_abcdefghijkl", "an access token"),
        ("trained on /home/ada/images", "an absolute path"),
        ("C:\\\\Users\\\\ada", "an absolute path"),
        ("secret-of-the-lab", "the access token of HF_TOKEN"),
        ("by adalovelace", "the user name adalovelace"),
    ],
)
def test_what_is_private_is_named_with_its_file(text, found, model_folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret-of-the-lab")
    monkeypatch.setattr("getpass.getuser", lambda: "adalovelace")
    check_private(model_folder)
    (model_folder / "README.md").write_text(f"# A model\n\n{text}\n")
    with pytest.raises(EMError, match=rf"README\.md holds {found}"):
        check_private(model_folder)


def test_addresses_and_paths_within_the_data_are_not_private(model_folder):
    (model_folder / "README.md").write_text("https://example.org/data/x, images/a.png, and/or, /usr is short")
    check_private(model_folder)


def test_bundled_models_have_checksums_that_hold():
    from emfm.loading.names import BUNDLED, bundled_names

    for name in bundled_names():
        check_checksums(BUNDLED / name)


def test_checksums_are_written_anew_with_the_test_tensors(model_folder):
    changed(model_folder)
    write_checksums(model_folder)
    check_checksums(model_folder)
