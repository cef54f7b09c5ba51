"""Models of every released version stay loadable, with the outputs that they had."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from emfm import EMError, EMForSemanticSegmentation, EMFoundation, EMFoundationConfig
from emfm.hub.verify import run_model, verify
from emfm.migrations import MIGRATIONS, SCHEMA_VERSION, migrate
from emfm.tasks import load_model

FROZEN = Path(__file__).parent / "frozen"
FOLDERS = sorted(f"{folder.parent.name}/{folder.name}" for folder in FROZEN.glob("v*/*"))


def test_this_version_and_every_one_before_it_has_a_frozen_folder():
    assert {folder.split("/")[0] for folder in FOLDERS} == {f"v{version}" for version in range(1, SCHEMA_VERSION + 1)}
    for name in FOLDERS:
        written = json.loads((FROZEN / name / "config.json").read_text())["schema_version"]
        assert f"v{written}" == name.split("/")[0]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_frozen_model_loads_and_gives_its_stored_output(name):
    model = load_model(FROZEN / name)
    assert type(model) is (EMFoundation if name.endswith("pretrained") else EMForSemanticSegmentation)
    assert model.config.schema_version == SCHEMA_VERSION
    stored = load_file(FROZEN / name / "test_tensors.safetensors")
    torch.testing.assert_close(run_model(model, stored["input"]), stored["output"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in FOLDERS if not name.startswith("v1/")])
def test_a_frozen_model_with_checksums_verifies(name):
    assert verify(load_model(FROZEN / name), FROZEN / name) < 1e-4


def test_a_trunk_of_the_first_version_starts_a_new_segmentation():
    labels = {0: "pore", 1: "alumina", 2: "platinum"}
    model = EMForSemanticSegmentation.from_pretrained(FROZEN / "v1" / "pretrained", id2label=labels)
    assert model.config.id2label == labels and model.class_head.weight.shape[0] == 3


def test_every_version_has_a_step_to_the_next():
    assert sorted(MIGRATIONS) == list(range(1, SCHEMA_VERSION))


def test_the_first_version_gets_a_whole_record_of_its_pretraining():
    old = {"schema_version": 1, "pretraining": {"steps": 3800, "seed": 0}}
    assert migrate(old) == {
        "schema_version": SCHEMA_VERSION,
        "pretraining": {
            **{"steps": 3800, "seed": 0, "gradient_accumulation_steps": 1, "step": 3800},
            **{"filters": False, "structures": 0},
        },
    }
    assert migrate({"schema_version": 1, "pretraining": None})["pretraining"] is None


def test_the_second_version_learnt_nothing_beside_restoration():
    old = {"schema_version": 2, "pretraining": {"steps": 10, "step": 5}}
    assert migrate(old)["pretraining"] == {"steps": 10, "step": 5, "filters": False, "structures": 0}
    assert migrate({"schema_version": 2, "pretraining": None})["pretraining"] is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schema_version": SCHEMA_VERSION + 1}, "update emfm"),
        ({}, "schema_version None"),
        ({"schema_version": "1"}, "schema_version '1'"),
        ({"schema_version": True}, "schema_version True"),
        ({"schema_version": 0}, "schema_version 0"),
        ({"schema_version": 1, "pretraining": {}}, "complete_pretraining_record, from schema_version 1, failed"),
        ({"schema_version": 1, "pretraining": "a lot"}, "complete_pretraining_record"),
    ],
)
def test_a_version_that_cannot_be_read_is_an_error(fields, message):
    with pytest.raises(EMError, match=message):
        migrate(fields)
    with pytest.raises(EMError, match=message):
        EMFoundationConfig.from_dict({"model_type": "emfm", **fields})
