"""The four tasks from the command line, and wrong data: one line that names file, value and fix."""

import json

import numpy as np
import pytest
from conftest import disc_image, waves
from test_cli import emfm, last_line  # noqa: F401  (a fixture)

from emfm import read_micrograph
from emfm.io.writing import write_image

TASKS = {
    "segmentation": [],
    "denoising": ["--degrade", "dose"],
    "super-resolution": ["--degrade", "downsample"],
    "background-removal": ["--degrade", "background"],
}
TOY = ["--steps", 2, "--batch-size", 2, "--crop", 32, "--precision", "fp32", "--json"]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("start", [("--model", "unet4-rf200-w16"), ("--scratch", "hrnet-w18-small")])
def test_finetune_evaluate_and_predict_run_for_every_task(task, start, emfm, labelled_folder, tmp_path):  # noqa: F811
    out, pred = tmp_path / "out", tmp_path / "pred"
    code, stdout, err = emfm("finetune", task, *start, "--data", labelled_folder, "--output", out, *TASKS[task], *TOY)
    assert code == 0, err
    facts = json.loads(stdout)
    assert facts["task"] == task and facts["best"][facts["figure_of_merit"]] >= 0
    code, stdout, err = emfm("evaluate", "--model", out, "--data", labelled_folder, *TASKS[task], "--json")
    assert code == 0, err
    result = json.loads(stdout)
    expected = {"dice", "iou", "per_class"} if task == "segmentation" else {"l1", "psnr", "ssim"}
    assert expected | {"n", "trivial"} <= set(result) and result["n"] == 2
    image = labelled_folder / "images" / "4.png"
    code, _, err = emfm("predict", image, "--model", out, "--output", pred, "--pixel-size", 0.4)
    assert code == 0, err
    restored = read_micrograph(pred / "4.tif")
    scale = 2 if task == "super-resolution" else 1
    assert restored.image.shape == (64 * scale, 64 * scale) and restored.image.dtype == np.uint8
    assert restored.pixel_size == pytest.approx(0.4 / scale)
    assert (pred / "4_compare.png").is_file()
    if task in ("denoising", "background-removal"):
        header, *rows = (pred / "4_profile.csv").read_text().splitlines()
        middle = restored.image[32]
        assert header == "position_nm,input,output"
        assert [float(row.split(",")[2]) for row in rows] == pytest.approx(middle.tolist(), abs=1e-6)


def test_a_result_without_json_stands_beside_the_answer_without_a_network(emfm, labelled_folder, tmp_path):  # noqa: F811
    degrade = ["--degrade", "dose"]
    command = ["finetune", "denoising", "--scratch", "unet2-rf44", "--data", labelled_folder, "--output"]
    code, stdout, _ = emfm(*command, tmp_path / "out", *degrade, *TOY[:-1])
    assert code == 0 and "l1 0." in stdout
    code, stdout, _ = emfm("evaluate", "--model", tmp_path / "out", "--data", labelled_folder, *degrade)
    assert code == 0 and "without a network" in stdout and "data range" in stdout


def another_size(folder):
    write_image(folder / "masks" / "1.png", np.zeros((60, 64), np.uint8))


def unknown_value(folder):
    mask = disc_image(64, 1)[1]
    mask[5, 5] = 77
    write_image(folder / "masks" / "1.png", mask)


def no_split(folder):
    (folder / "splits.json").write_text('{"test": ["4.png"]}')


def empty(folder):
    (folder / "splits.json").unlink()
    for file in (folder / "images").iterdir():
        file.unlink()


def targets(folder, side):
    for index in range(6):
        write_image(folder / "targets" / f"{index}.tif", waves(index, side))


WRONG = {
    "sizes that differ": ("segmentation", another_size, [], ["masks/1.png", "60 x 64", "64 x 64", "image's size"]),
    "unknown grey value": ("segmentation", unknown_value, [], ["masks/1.png", "77", "0, 255", "labels.json"]),
    "missing split": ("segmentation", no_split, [], ["splits.json", "'train'", "test"]),
    "empty folder": ("segmentation", empty, [], ["images holds no image", ".png"]),
    "target of another size": ("denoising", lambda folder: targets(folder, 63), [], ["0.tif", "63 x 63", "64 x 64"]),
    "scale that the pairs do not have": (
        "super-resolution",
        lambda folder: targets(folder, 128),
        ["--scale", 4],
        ["0.tif", "128 x 128", "scale 4"],
    ),
    "targets as large as the images": (
        "super-resolution",
        lambda folder: targets(folder, 64),
        [],
        ["size of their images", "nothing to enlarge"],
    ),
    "larger targets for denoising": (
        "denoising",
        lambda folder: targets(folder, 128),
        [],
        ["2 times", "makes 1 times"],
    ),
    "no targets": ("background-removal", lambda folder: None, [], ["targets", "--degrade"]),
    "a damage for another task": ("denoising", lambda f: None, ["--degrade", "background"], ["dose or paper"]),
    "an unknown part to freeze": ("segmentation", lambda f: None, ["--freeze", "middle"], ["middle", "last:K"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_data_is_one_line_with_file_value_and_fix(case, emfm, labelled_folder, tmp_path):  # noqa: F811
    task, spoil, flags, expected = WRONG[case]
    spoil(labelled_folder)
    start = ["--model", "unet4-rf200"] if "--freeze" in flags else ["--scratch", "unet2-rf44"]
    command = ["finetune", task, *start, "--data", labelled_folder, "--output", tmp_path / "out"]
    code, stdout, err = emfm(*command, *flags, *TOY)
    assert code == 2 and stdout == ""
    assert all(part in last_line(err) for part in expected), last_line(err)
    assert last_line(err).startswith("emfm: ") and "Traceback" not in err
    assert not (tmp_path / "out").exists()
