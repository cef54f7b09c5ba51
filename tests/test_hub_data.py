"""Pretraining and fine-tuning from datasets of the Hub, with the real client over HTTP: downloaded, and as a stream."""

import contextlib
import json
import time
from pathlib import Path

import pytest
from hub_server import HubServer
from test_cli import emfm  # noqa: F401  (a fixture)

from emfm import EMFoundation
from emfm.hub.verify import verify

PRETRAIN = ["pretrain", "--data", "lab/micrographs", "--generator", "unet2-rf44"]
TOY = ["--steps", "3", "--batch-size", "2", "--crop", "32", "--discriminator-width", "4", "--save-steps", "2"]


@pytest.fixture
def hub(few_validation_crops, monkeypatch, tmp_path):
    """Return a function that opens a Hub which holds one dataset; what is downloaded goes to `cache`."""
    with contextlib.ExitStack() as stack:

        def opened(name: str, folder: Path) -> HubServer:
            server = stack.enter_context(HubServer({f"datasets/{name}": folder}))
            server.stand_in(monkeypatch, tmp_path)
            return server

        yield opened


def stored_rows(folder: Path) -> list[Path]:
    return [path for path in (folder / "cache").rglob("*") if path.suffix in (".arrow", ".parquet")]


@pytest.mark.parametrize("streaming", [False, True])
def test_pretraining_from_a_hub_dataset(streaming, hub, emfm, parquet_folder, tmp_path):  # noqa: F811
    flags = ["--streaming"] if streaming else []
    server = hub("lab/micrographs", parquet_folder(60))
    code, stdout, err = emfm(*PRETRAIN, *TOY, *flags, "--output", tmp_path / "run", "--json")
    assert code == 0, err
    assert any("micrographs/resolve/" in line and line.endswith(".parquet") for line in server.asked)
    result = json.loads(stdout)
    assert result["step"] == 3 and result["l1"] > 0
    model = EMFoundation.from_pretrained(result["model"])
    assert verify(model, result["model"]) < 1e-4
    recipe = model.config.pretraining
    assert recipe["data"] == ["lab/micrographs"]
    assert recipe["micrographs"] == (None if streaming else 57)
    # a stream leaves nothing behind but the small files that describe it
    assert bool(stored_rows(tmp_path)) != streaming


def test_fine_tuning_from_a_stream_of_labelled_micrographs(hub, emfm, labelled_parquet, tmp_path):  # noqa: F811
    command = ["finetune", "segmentation", "--scratch", "unet2-rf44", "--streaming", "--data", "lab/discs"]
    toy = ["--steps", "2", "--batch-size", "2", "--crop", "32", "--precision", "fp32", "--json"]
    server = hub("lab/discs", labelled_parquet)
    code, stdout, err = emfm(*command, *toy, "--output", tmp_path / "out")
    assert code == 0, err
    assert any(line.endswith("labels.json") for line in server.asked)
    facts = json.loads(stdout)
    assert facts["images"] == {"train": None, "validation": 1} and facts["data"] == "discs"
    classes = json.loads((tmp_path / "out" / "config.json").read_text())["id2label"]
    assert classes == {"0": "background", "1": "disc"}
    assert not stored_rows(tmp_path)


PARQUET = r"GET /datasets/lab/micrographs/resolve/.*parquet"
FAULTS = {
    "too many requests": dict(pattern=PARQUET, status=429, headers={"Retry-After": "1"}),
    "unavailable": dict(pattern=PARQUET, status=503),
    "connection cut in a body": dict(pattern=PARQUET, cut=100),
    "unavailable for good": dict(pattern=PARQUET, status=503, times=10**6),
    "gated": {},
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_while_data_come_is_survived_or_one_line_and_no_model(
    fault,
    streaming,
    hub,
    emfm,  # noqa: F811
    parquet_folder,
    monkeypatch,
    tmp_path,
):
    server = hub("lab/micrographs", parquet_folder(40))
    server.repos["datasets/lab/micrographs"].gated = fault == "gated"
    if FAULTS[fault]:
        server.fail(**FAULTS[fault])
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # nobody waits between tries
    flags = ["--streaming"] if streaming else []
    code, _, err = emfm(*PRETRAIN, *TOY, *flags, "--output", tmp_path / "run")
    finished = (tmp_path / "run" / "pretrained_model").exists()
    if fault in ("unavailable for good", "gated"):
        assert code == 2 and not finished
        assert "lab/micrographs" in err.strip().splitlines()[-1], err
    else:
        assert code == 0 and finished, err
