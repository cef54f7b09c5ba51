"""Pretraining at toy size: what it writes, what it learns, and that resuming changes nothing."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from emfm import EMError, EMFoundation
from emfm.hub.verify import verify
from emfm.training.pretrain import PretrainArguments, pretrain


@pytest.fixture
def micrographs(tmp_path):
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    rows, columns = np.mgrid[:80, :96]
    for index in range(4):
        waves = np.sin(rows / (3 + index)) + np.cos(columns / 4)
        Image.fromarray((127 + 50 * waves).astype(np.uint8)).save(folder / f"{index}.png")
    return folder


def arguments(folder, output, **changes) -> PretrainArguments:
    settings = dict(
        data=(str(folder),),
        output=str(output),
        generator="unet2-rf44",
        steps=6,
        batch_size=2,
        crop=32,
        discriminator_width=4,
        save_steps=3,
    )
    return PretrainArguments(**{**settings, **changes})


def weights(folder):
    return load_file(folder / "model.safetensors")


def assert_equal(first, second):
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


@pytest.mark.parametrize("adversarial", ["lsgan", "vanilla", "hinge", "none"])
def test_a_run_ends_in_a_folder_that_loads_and_verifies(adversarial, micrographs, tmp_path):
    folder = pretrain(arguments(micrographs, tmp_path / "run", adversarial=adversarial, corruption="masked"))
    model = EMFoundation.from_pretrained(folder)
    assert verify(model, folder) < 1e-4
    recipe = model.config.pretraining
    assert recipe["adversarial"] == adversarial and recipe["steps"] == 6 and recipe["micrographs"] == 3
    assert set(recipe["validation"]) == {"l1_input", "l1", "psnr_input", "psnr", "crops"}
    card = (folder / "README.md").read_text()
    assert f"{recipe['validation']['l1']:.4f}" in card
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "README.md",
        "test_tensors.safetensors",
    }


def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit(micrographs, tmp_path):
    whole = pretrain(arguments(micrographs, tmp_path / "whole"))
    stopped = tmp_path / "stopped"
    pretrain(arguments(micrographs, stopped))
    # as if it had been killed after step 5: only the checkpoint of step 3 is there
    for name in ("step_6", "pretrained_model"):
        for path in sorted((stopped / name).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (stopped / name).rmdir()
    resumed = pretrain(arguments(micrographs, stopped, resume=True))
    assert_equal(weights(resumed), weights(whole))
    for part in ("generator", "discriminator", "optimizers"):
        states = [
            load_file(run / "step_6" / "training_state" / f"{part}.safetensors")
            for run in (tmp_path / "whole", stopped)
        ]
        assert_equal(*states)


def test_training_moves_the_generator_towards_the_clean_image(micrographs, tmp_path):
    pretrain(arguments(micrographs, tmp_path / "run", steps=400, batch_size=4, adversarial="none", save_steps=1000))
    losses = [json.loads(line)["l1"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.5 * losses[0]


def test_no_pickle_is_written_anywhere(micrographs, tmp_path):
    pretrain(arguments(micrographs, tmp_path / "run"))
    suffixes = {path.suffix for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert suffixes == {".json", ".jsonl", ".safetensors", ".md"}


def test_a_folder_in_use_is_not_overwritten(micrographs, tmp_path):
    pretrain(arguments(micrographs, tmp_path / "run"))
    with pytest.raises(EMError, match="--resume"):
        pretrain(arguments(micrographs, tmp_path / "run"))


def test_an_unknown_generator_or_missing_data_leaves_no_folder_behind(micrographs, tmp_path):
    for changes in ({"generator": "unet9"}, {"data": (str(tmp_path / "nowhere"),)}):
        with pytest.raises(EMError):
            pretrain(arguments(micrographs, tmp_path / "run", **changes))
        assert not (tmp_path / "run").exists()


def test_resuming_with_other_settings_names_them(micrographs, tmp_path):
    pretrain(arguments(micrographs, tmp_path / "run"))
    with pytest.raises(EMError, match="seed was 0, now 1"):
        pretrain(arguments(micrographs, tmp_path / "run", resume=True, seed=1))


def test_a_torn_checkpoint_is_refused_with_the_missing_file(micrographs, tmp_path):
    pretrain(arguments(micrographs, tmp_path / "run"))
    (tmp_path / "run" / "step_6" / "training_state" / "optimizers.safetensors").unlink()
    with pytest.raises(EMError, match=r"optimizers\.safetensors missing"):
        pretrain(arguments(micrographs, tmp_path / "run", resume=True))


def test_a_damaged_checkpoint_is_refused(micrographs, tmp_path):
    pretrain(arguments(micrographs, tmp_path / "run"))
    path = tmp_path / "run" / "step_6" / "training_state" / "generator.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(EMError, match="is damaged"):
        pretrain(arguments(micrographs, tmp_path / "run", resume=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adversarial": "wgan"}, "lsgan"),
        ({"precision": "fp16"}, "fp32 or bf16"),
        ({"steps": 0}, "steps is 0"),
        ({"crop": 8}, "crop is 8"),
    ],
)
def test_wrong_settings_say_what_was_expected(changes, message, tmp_path):
    with pytest.raises(EMError, match=message):
        arguments(tmp_path, tmp_path / "run", **changes)
