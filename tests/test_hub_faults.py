"""What goes wrong between here and the Hub, at each verb: tried again with success, or one clear error and no trace."""

import json
import time

import huggingface_hub.constants as constants
import pytest
import torch
from hub_server import HubServer
from hub_store import Repo
from test_cli import emfm, last_line  # noqa: F401  (a fixture)

from emfm import EMError, EMForSemanticSegmentation, EMFoundationConfig
from emfm.hub.verify import write_test_tensors

WEIGHTS = r"GET /lab/discs/resolve/.*/model\.safetensors"
ANY_FILE = r"GET /lab/discs/resolve/"
REPO = r"GET /api/models/lab/discs"
ALWAYS = 10**6
# Fault: what it does to requests for a model's files. Each passes by itself.
PASSING = {
    "too many requests": dict(pattern=WEIGHTS, status=429, headers={"Retry-After": "1"}),
    "too many requests, any file": dict(pattern=ANY_FILE, status=429, headers={"Retry-After": "1"}, times=3),
    "server error": dict(pattern=WEIGHTS, status=500),
    "unavailable": dict(pattern=WEIGHTS, status=503),
    "unavailable at the first question": dict(pattern=REPO, status=503),
    "connection cut in a body": dict(pattern=WEIGHTS, cut=1000),
    "connection cut at once": dict(pattern=WEIGHTS, cut=0),
    "silence in a body": dict(pattern=WEIGHTS, pause=3),
    "connection dropped before an answer": dict(pattern=WEIGHTS, drop=True),
    "wrong ETag": dict(pattern=r"(GET|HEAD) .*model\.safetensors", etag='"0123456789"', times=ALWAYS),
}
# Fault, and what the one line says. These stay.
STAYING = {
    "too many requests": (dict(pattern=ANY_FILE, status=429, times=ALWAYS), "429"),
    "server error": (dict(pattern=WEIGHTS, status=500, times=ALWAYS), "500"),
    "unavailable": (dict(pattern=WEIGHTS, status=503, times=ALWAYS), "503"),
    "unavailable at the first question": (dict(pattern=REPO, status=503, times=ALWAYS), "did not answer"),
    "connection cut in every body": (dict(pattern=WEIGHTS, cut=0, times=ALWAYS), "cannot download lab/discs"),
    "missing file": (dict(pattern=r"(GET|HEAD) .*/config\.json", status=404, times=ALWAYS), r"config\.json|404"),
}


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    config = EMFoundationConfig.from_name("unet2-rf44", id2label={0: "background", 1: "disc"})
    model = EMForSemanticSegmentation(config).eval()
    model.save_pretrained(tmp_path / "model")
    write_test_tensors(model, tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("# Discs\n")
    return model


@pytest.fixture
def hub(model, tmp_path, monkeypatch):
    """A Hub that holds `lab/discs`, with a cache of its own; nobody waits between tries."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with HubServer({"lab/discs": tmp_path / "model"}) as server:
        server.stand_in(monkeypatch, tmp_path)
        yield server


def load(**hub) -> EMForSemanticSegmentation:
    return EMForSemanticSegmentation.from_pretrained("lab/discs", **hub).eval()


def same(one, other) -> bool:
    pixels = torch.linspace(-1, 1, 1024).view(1, 1, 32, 32)
    return torch.equal(one(pixels).logits, other(pixels).logits)


@pytest.mark.parametrize("fault", PASSING)
def test_loading_survives_what_passes_and_then_works_offline(fault, hub, model):
    hub.fail(**PASSING[fault])
    assert same(load(), model)
    asked = len(hub.asked)
    assert same(load(local_files_only=True), model) and len(hub.asked) == asked


@pytest.mark.parametrize("fault", STAYING)
def test_what_stays_is_one_error_and_leaves_nothing_that_loads(fault, hub, model):
    arguments, message = STAYING[fault]
    hub.fail(**arguments)
    with pytest.raises(EMError, match=message):
        load()
    with pytest.raises(EMError):
        load(local_files_only=True)
    hub.heal()
    assert same(load(), model)


@pytest.mark.parametrize("fault", ["server error", "connection cut in every body", "missing file"])
def test_verify_ends_with_one_line_and_exit_code_2(fault, hub, emfm):  # noqa: F811
    hub.fail(**STAYING[fault][0])
    code, stdout, err = emfm("verify", "lab/discs")
    assert code == 2 and stdout == "" and last_line(err).startswith("emfm: ")
    hub.heal()
    code, stdout, _ = emfm("verify", "lab/discs", "--json")
    assert code == 0 and json.loads(stdout)["difference"] < 1e-4


PUSHING = {
    "too many requests": dict(pattern="POST .*/preupload/", status=429, headers={"Retry-After": "1"}),
    "server error": dict(pattern="POST .*/objects/batch", status=500),
    "unavailable": dict(pattern="PUT /lfs/", status=503),
    "connection cut in an answer": dict(pattern="POST .*/objects/batch", cut=3),
    "connection dropped": dict(pattern="PUT /lfs/", drop=True),
}


@pytest.mark.parametrize("fault", PUSHING)
def test_pushing_survives_what_passes(fault, hub, tmp_path, emfm):  # noqa: F811
    hub.fail(**PUSHING[fault])
    code, _, err = emfm("push", tmp_path / "model", "lab/copy")
    assert code == 0, err
    repo = hub.repos["lab/copy"]
    assert len(repo.commits) == 2
    assert repo.read("main", "model.safetensors") == (tmp_path / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("fault", [*PUSHING, "refused commit", "commit fails"])
def test_a_push_that_cannot_end_changes_nothing_on_the_hub(fault, hub, tmp_path, emfm):  # noqa: F811
    hub.repos["lab/copy"] = Repo.empty("lab/copy", private=False)
    before = dict(hub.repos["lab/copy"].refs)
    others = {
        "refused commit": dict(pattern="POST .*/commit/", status=403),
        "commit fails": dict(pattern="POST .*/commit/", status=500),
    }
    hub.fail(**{**PUSHING, **others}[fault] | {"times": ALWAYS})
    code, _, err = emfm("push", tmp_path / "model", "lab/copy")
    assert code == 2 and "cannot push to lab/copy" in last_line(err) and "hf_test" not in err
    assert hub.repos["lab/copy"].refs == before


def test_where_no_repository_may_be_made_none_is_there_afterwards(hub, tmp_path, emfm):  # noqa: F811
    hub.fail("POST /api/repos/create", status=403)
    code, _, err = emfm("push", tmp_path / "model", "lab/new")
    assert code == 2 and "cannot push to lab/new" in last_line(err) and "lab/new" not in hub.repos


def test_a_gated_or_private_repository_says_what_to_do(hub, tmp_path):
    hub.repos["lab/discs"].gated = True
    with pytest.raises(EMError, match="lab/discs is gated: ask for access"):
        load(token="hf_other")
    assert isinstance(load(token="hf_test"), EMForSemanticSegmentation)
    hub.repos["lab/discs"].gated, hub.repos["lab/discs"].private = False, True
    with pytest.raises(EMError, match=r"no repository lab/discs on the Hub, or it is private"):
        load(token="hf_other", cache_dir=tmp_path / "another cache")


def test_a_revision_that_is_not_there_is_named(hub):
    with pytest.raises(EMError, match="lab/discs has no revision 'v9'"):
        load(revision="v9")


def change(hub, **files: bytes | None) -> None:
    """Put another commit on main, with some files changed or (None) left out."""
    repo = hub.repos["lab/discs"]
    content = {name: repo.read("main", name) for name in repo.commits[repo.refs["main"]]}
    content |= {name.replace("__", "."): body for name, body in files.items()}
    repo.refs["main"] = f"{len(repo.commits):040x}"
    repo.commits[repo.refs["main"]] = {name: body for name, body in content.items() if body is not None}


def test_a_tampered_truncated_or_half_uploaded_repository_is_an_error_with_the_file_and_the_reason(hub, tmp_path):
    whole = (tmp_path / "model" / "model.safetensors").read_bytes()
    for body, message in (
        (whole[:-4] + b"\0\0\0\1", r"model\.safetensors was changed or cut short"),
        (whole[: len(whole) // 2], r"model\.safetensors was changed or cut short"),
        (None, r"not a whole emfm model: model\.safetensors missing: its upload may have been cut off"),
    ):
        change(hub, model__safetensors=body)
        with pytest.raises(EMError, match=message):
            load(force_download=True)
    change(hub, model__safetensors=whole)
    load(force_download=True)
    change(hub, preprocessor_config__json=b'{"low": 5.0, "high": 99.0, "clip": 3.0}')
    with pytest.raises(EMError, match=r"preprocessor_config\.json was changed"):
        load()


def test_a_repository_of_pickles_is_refused_and_they_are_not_even_downloaded(hub, tmp_path):
    change(hub, model__safetensors=None, checksums__json=None, pytorch_model__bin=b"\x80\x04.")
    with pytest.raises(EMError, match=r"it holds pytorch_model\.bin: pickled weights can run code"):
        load()
    assert not [request for request in hub.asked if "pytorch_model.bin" in request]
    assert not list((tmp_path / "cache").rglob("*.bin"))
