"""A finder of objects with classes as a user has it: trained, pushed, and used by its name on the Hub in every way."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hub_server import HubServer
from PIL import Image
from test_object_classes import drawn

# Runs commands of emfm one after the other: what each printed is a line of JSON.
COMMANDS = """
import contextlib, io, json, sys
from emfm.cli import main

for command in json.loads(sys.argv[1]):
    sys.argv[1:] = command
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            main()
        except SystemExit as end:
            assert not end.code, (command, end.code)
    print(json.dumps(printed.getvalue()))
"""
USE = """
import json
import emfm.auto
import numpy as np
from transformers import pipeline
from emfm import predict
from emfm.app.runs import Runner

found = pipeline("image-segmentation", model="lab/finder")("test.png")
direct = predict("lab/finder", "test.png")
ids = np.zeros(direct.output.shape, int)
for part in found:
    ids[np.asarray(part["mask"]) > 0] = part["id"]
    assert part["label"] == direct.object_classes.name(part["id"])
assert (ids == direct.output).all() and direct.domain is not None
pictures, files, message = Runner({"mine": "lab/finder"})("mine", "test.png", 0.5)
assert pictures[1].shape[2] == 3 and "| bright |" in message, message
print(json.dumps([part["label"] for part in found]))
"""


@pytest.fixture
def labelled(tmp_path):
    names = [f"{number}.png" for number in range(6)]
    for kind in ("images", "instances", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for number, name in enumerate(names):
        image, ids, kinds = drawn(number)
        Image.fromarray(image).save(tmp_path / "data" / "images" / name)
        Image.fromarray(ids.astype(np.uint16)).save(tmp_path / "data" / "instances" / name)
        Image.fromarray(kinds).save(tmp_path / "data" / "masks" / name)
    (tmp_path / "data" / "labels.json").write_text('{"0": "background", "100": "bright", "200": "dark"}')
    splits = {"train": names[:4], "validation": names[4:5], "test": names[5:]}
    (tmp_path / "data" / "splits.json").write_text(json.dumps(splits))
    Image.fromarray(drawn(9)[0]).save(tmp_path / "test.png")
    volume = np.stack([drawn(9)[0]] * 3)
    tifffile.imwrite(tmp_path / "stack.tif", volume, photometric="minisblack", metadata={"axes": "ZYX"})
    return tmp_path


@pytest.mark.slow
def test_a_finder_of_objects_goes_to_the_hub_and_is_used_from_there(labelled):
    def run(hub, code, *arguments):
        environment = hub.environment(labelled, HF_TOKEN="hf_test", PYTHONPATH=str(Path(__file__).parent.parent))
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, cwd=labelled, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(line) for line in done.stdout.strip().splitlines()]

    model = ["--model", "lab/finder"]
    train = ["finetune", "instances", "--model", "unet3-rf96", "--data", "data", "--output", "out", "--steps", "60"]
    here = [[*train, "--crop", "64"], ["push", "out", "lab/finder"]]
    there = [
        ["verify", "lab/finder"],
        ["evaluate", *model, "--data", "data", "--split", "test", "--json"],
        ["predict", "test.png", "stack.tif", *model, "--output", "found", "--index", "all", "--json"],
        ["export", "lab/finder", "--format", "onnx", "--output", "exported"],
    ]
    with HubServer() as hub:
        run(hub, COMMANDS, json.dumps(here))
        card = hub.repos["lab/finder"].read("main", "README.md").decode()
        _, measured, predicted, _ = run(hub, COMMANDS, json.dumps(there))
        (labels,) = run(hub, USE)
    assert "bright" in card and "instance" in card and "watershed" in card
    figures = json.loads(measured)
    assert figures["ap50"] > 0.3 and figures["per_class"].keys() == {"bright", "dark"}
    assert set(labels) == {"bright", "dark"}
    one, stack = json.loads(predicted)
    # the slices of the stack are the image
    assert stack["domain"]["distance"] == one["domain"]["distance"] and stack["domain"]["slice"] == 0
    assert stack["confidence"] == one["confidence"]
    with Path(labelled, stack["objects"]).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["class"] for row in rows} == {"bright", "dark"} and {row["slices"] for row in rows} == {"3"}
    assert list((labelled / "exported").rglob("*.onnx"))
