"""The command line: results as JSON, and one clear line with exit code 2 for wrong input."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from emfm import EMForSemanticSegmentation, EMFoundationConfig, read_micrograph
from emfm.cli import main


@pytest.fixture
def emfm(monkeypatch, capsys):
    """Run the command line in this process; returns exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["emfm", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def segmenter(tmp_path):
    torch.manual_seed(0)
    model = EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44", id2label={0: "background", 1: "disc"}))
    model.save_pretrained(tmp_path / "segmenter")
    return tmp_path / "segmenter"


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def test_finetune_evaluate_and_predict_follow_one_another(emfm, labelled_folder, tmp_path):
    out = tmp_path / "out"
    code, stdout, _ = emfm(
        "finetune",
        "segmentation",
        "--scratch",
        "unet2-rf44",
        "--data",
        labelled_folder,
        "--output",
        out,
        "--num-images",
        2,
        "--steps",
        10,
        "--batch-size",
        2,
        "--crop",
        32,
        "--json",
    )
    assert code == 0 and json.loads(stdout)["images"]["train"] == 2
    code, stdout, _ = emfm("evaluate", "--model", out, "--data", labelled_folder, "--split", "test", "--json")
    result = json.loads(stdout)
    assert code == 0 and result["n"] == 2 and set(result["per_class"]) == {"background", "disc"}
    assert result["dice"] == result["per_class"]["disc"]["dice"]
    code, stdout, _ = emfm(
        "predict", "--model", out, labelled_folder / "images" / "4.png", "--output", tmp_path / "pred", "--json"
    )
    (written,) = json.loads(stdout)
    classes = tifffile.imread(written["output"])
    assert classes.shape == (64, 64) and set(np.unique(classes)) <= {0, 1}
    assert np.asarray(Image.open(written["picture"])).ndim == 3 and written["picture"].endswith("_overlay.png")
    header, *regions = Path(written["measurements"]).read_text().splitlines()
    counted = json.loads(Path(written["summary"]).read_text())["classes"]["disc"]["regions"]
    assert header.startswith("region,class,area_px") and len(regions) == counted


def test_predict_keeps_the_pixel_size_and_any_bit_depth(emfm, segmenter, tmp_path):
    image = np.random.default_rng(0).integers(0, 60_000, (50, 70)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", image, resolution=(1e7 / 0.5, 1e7 / 0.5), resolutionunit="CENTIMETER")
    tifffile.imwrite(tmp_path / "b.tif", image.astype(np.float32))
    code, _, _ = emfm(
        "predict",
        "--model",
        segmenter,
        tmp_path / "a.tif",
        tmp_path / "b.tif",
        "--output",
        tmp_path / "p",
        "--pixel-size",
        2.0,
    )
    first, second = (read_micrograph(tmp_path / "p" / name) for name in ("a.tif", "b.tif"))
    assert code == 0
    assert first.pixel_size == second.pixel_size == pytest.approx(2.0)  # what is stated wins
    assert np.array_equal(first.image, second.image)


def test_simulate_writes_a_labelled_folder_that_can_be_trained_on(emfm, tmp_path):
    code, _, _ = emfm("simulate", "nanoparticles", "--output", tmp_path / "sim", "--count", 6, "--size", 64)
    assert code == 0
    splits = json.loads((tmp_path / "sim" / "splits.json").read_text())
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [4, 1, 1]
    mask = np.asarray(Image.open(tmp_path / "sim" / "masks" / splits["train"][0].replace(".tif", ".png")))
    assert set(np.unique(mask)) == {0, 255}


def test_info_and_list_tell_a_models_facts(emfm, segmenter):
    code, stdout, _ = emfm("info", segmenter, "--json")
    facts = json.loads(stdout)
    assert code == 0 and facts["receptive_field"] == 44 and facts["classes"] == ["background", "disc"]
    code, stdout, _ = emfm("list", "--json")
    assert code == 0 and "unet4-rf200-w16" in [entry["name"] for entry in json.loads(stdout)]


def test_pretrain_runs_from_the_command_line(emfm, labelled_folder, tmp_path):
    code, stdout, _ = emfm(
        "pretrain",
        "--data",
        labelled_folder / "images",
        "--generator",
        "unet2-rf44",
        "--output",
        tmp_path / "run",
        "--steps",
        2,
        "--batch-size",
        2,
        "--crop",
        32,
        "--discriminator-width",
        4,
    )
    assert code == 0 and last_line(stdout).endswith("pretrained_model")
    code, stdout, _ = emfm("verify", tmp_path / "run" / "pretrained_model")
    assert code == 0 and "verified" in stdout


def with_infinity(folder):
    image = np.ones((64, 64), np.float32)
    image[3, 5] = np.inf
    (folder / "images" / "4.png").unlink()
    tifffile.imwrite(folder / "images" / "infinity.tif", image)


WRONG = {
    "a missing folder": (["evaluate", "--model", "MODEL", "--data", "FOLDER/nowhere"], r"no folder \S*nowhere;"),
    "a mask of another size": (
        ["evaluate", "--model", "MODEL", "--data", "FOLDER"],
        r"10 x 10 pixels, its image 64 x 64",
    ),
    "an unknown grey value": (["evaluate", "--model", "MODEL", "--data", "FOLDER"], "grey values 7"),
    "an image with infinity": (
        ["predict", "--model", "MODEL", "FOLDER/images/infinity.tif", "--output", "OUT"],
        "1 infinite .* row 3, column 5",
    ),
    "an unknown model": (["info", "unet4-rf20"], "did you mean unet4-rf200"),
    "an unknown generator": (
        ["finetune", "segmentation", "--scratch", "unet5", "--data", "FOLDER", "--output", "OUT"],
        "is not a generator",
    ),
    "an output below a file": (["simulate", "nanoparticles", "--output", "FOLDER/labels.json"], r"labels\.json"),
    "a missing split": (["evaluate", "--model", "MODEL", "--data", "FOLDER", "--split", "tset"], "did you mean test"),
    "a missing file": (["predict", "--model", "MODEL", "FOLDER/none.png", "--output", "OUT"], "there is no file"),
    "a model without a task": (["evaluate", "--model", "unet4-rf200", "--data", "FOLDER"], "fine-tune it first"),
    "an unknown kind of simulation": (["simulate", "cells", "--output", "OUT"], "nanoparticles"),
}
DAMAGE = {
    "a mask of another size": lambda f: Image.fromarray(np.zeros((10, 10), np.uint8)).save(f / "masks" / "4.png"),
    "an unknown grey value": lambda f: Image.fromarray(np.full((64, 64), 7, np.uint8)).save(f / "masks" / "4.png"),
    "an image with infinity": with_infinity,
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_answers_with_one_line_and_exit_code_2(case, emfm, labelled_folder, segmenter, tmp_path):
    DAMAGE.get(case, lambda folder: None)(labelled_folder)
    arguments, message = WRONG[case]
    places = {"MODEL": str(segmenter), "FOLDER": str(labelled_folder), "OUT": str(tmp_path / "out")}
    for name, place in places.items():
        arguments = [argument.replace(name, place) for argument in arguments]
    code, stdout, stderr = emfm(*arguments)
    assert code == 2
    assert stdout == ""
    answer = [line for line in stderr.splitlines() if line.startswith("emfm: ")]
    assert len(answer) == 1 and stderr.strip().endswith(answer[0])
    import re

    assert re.search(message, answer[0]), answer[0]
    assert not (tmp_path / "out").exists()


def test_an_unknown_option_also_ends_with_exit_code_2(emfm):
    code, _, stderr = emfm("list", "--colour")
    assert code == 2 and "--colour" in stderr


def test_every_verb_has_help_with_its_defaults(emfm):
    for verb in ("list", "info", "verify", "pretrain", "finetune", "evaluate", "predict", "simulate", "demo"):
        code, stdout, _ = emfm(verb, "--help")
        assert code == 0 and "--help" in stdout
    assert "[default: 300]" in emfm("finetune", "--help")[1]
