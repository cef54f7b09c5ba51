"""Pretraining from a dataset of the Hub, with the real client over HTTP: downloaded, and as a stream."""

import json
import subprocess
import sys

import pytest
from hub_server import HubServer

from emfm import EMFoundation
from emfm.hub.verify import verify

PRETRAIN = [sys.executable, "-m", "emfm.cli", "pretrain", "--data", "lab/micrographs", "--generator", "unet2-rf44"]
TOY = ["--steps", "3", "--batch-size", "2", "--crop", "32", "--discriminator-width", "4", "--save-steps", "2"]


@pytest.mark.parametrize("streaming", [False, True])
def test_pretraining_from_a_hub_dataset(streaming, parquet_folder, tmp_path):
    flags = ["--streaming"] if streaming else []
    with HubServer({"datasets/lab/micrographs": parquet_folder(60)}) as hub:
        done = subprocess.run(
            [*PRETRAIN, *TOY, *flags, "--output", str(tmp_path / "run"), "--json"],
            env=hub.environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=200,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    assert any("micrographs/resolve/" in line and line.endswith(".parquet") for line in hub.asked)
    result = json.loads(done.stdout)
    assert result["step"] == 3 and result["l1"] > 0
    model = EMFoundation.from_pretrained(result["model"])
    assert verify(model, result["model"]) < 1e-4
    recipe = model.config.pretraining
    assert recipe["data"] == ["lab/micrographs"]
    assert recipe["micrographs"] == (None if streaming else 57)
    # a stream leaves nothing behind but the small files that describe it
    stored = [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".arrow", ".parquet")]
    assert bool(stored) != streaming


def test_fine_tuning_from_a_stream_of_labelled_micrographs(labelled_parquet, tmp_path):
    command = [sys.executable, "-m", "emfm.cli", "finetune", "segmentation", "--scratch", "unet2-rf44", "--streaming"]
    toy = ["--steps", "2", "--batch-size", "2", "--crop", "32", "--precision", "fp32", "--json"]
    with HubServer({"datasets/lab/discs": labelled_parquet}) as hub:
        arguments = ["--data", "lab/discs", "--output", str(tmp_path / "out"), *toy]
        environment = hub.environment(tmp_path)
        done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert any(line.endswith("labels.json") for line in hub.asked)
    facts = json.loads(done.stdout)
    assert facts["images"] == {"train": None, "validation": 1} and facts["data"] == "discs"
    classes = json.loads((tmp_path / "out" / "config.json").read_text())["id2label"]
    assert classes == {"0": "background", "1": "disc"}
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".arrow", ".parquet")]


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
def test_a_fault_while_data_come_is_survived_or_one_line_and_no_model(fault, streaming, parquet_folder, tmp_path):
    code = f"""
import sys, time
time.sleep = lambda seconds: None  # nobody waits between tries
from emfm.cli import main
sys.argv[1:] = {[*PRETRAIN[3:], *TOY, *(["--streaming"] if streaming else []), "--output", str(tmp_path / "run")]!r}
main()
"""
    with HubServer({"datasets/lab/micrographs": parquet_folder(40)}) as hub:
        hub.repos["datasets/lab/micrographs"].gated = fault == "gated"
        if FAULTS[fault]:
            hub.fail(**FAULTS[fault])
        done = subprocess.run(
            [sys.executable, "-c", code], env=hub.environment(tmp_path), capture_output=True, text=True, timeout=200
        )
    finished = (tmp_path / "run" / "pretrained_model").exists()
    if fault in ("unavailable for good", "gated"):
        assert done.returncode == 2 and not finished
        assert "lab/micrographs" in done.stderr.strip().splitlines()[-1], done.stderr[-2000:]
    else:
        assert done.returncode == 0 and finished, done.stderr[-3000:]
