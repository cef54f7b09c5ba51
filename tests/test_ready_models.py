"""Models that are used as they are: their clean micrographs, their recipe, and the benchmark of denoisers."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from benchmarks import denoising
from benchmarks.denoisers import Budget, cannot, method


def test_clean_micrographs_come_in_several_sizes_and_all_of_one_file_are_held_out_together(script, tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "data" / "steel").mkdir(parents=True)
    images = {f"s{number:03}": random.integers(0, 256, (1000, 900), dtype=np.uint8) for number in range(40)}
    for name, image in images.items():
        Image.fromarray(image).save(tmp_path / "data" / "steel" / f"{name}.png")
    folder = tmp_path / "clean"
    script("clean_micrographs").write_clean_folder(tmp_path / "data", ["steel"], [], folder)
    half = np.asarray(Image.open(folder / "images" / "steel_s003_half.png"))
    np.testing.assert_array_equal(half, np.rint(images["s003"].reshape(500, 2, 450, 2).mean(axis=(1, 3))))
    assert Image.open(folder / "images" / "steel_s003_quarter.png").size == (225, 250)
    splits = json.loads((folder / "splits.json").read_text())
    files = [set(splits[name]) for name in ("train", "validation", "test")]
    assert sum(map(len, files)) == 120 == len(set.union(*files)) and all(files)
    held = {name.split("_")[1].removesuffix(".png") for name in files[1] | files[2]}
    assert not held & {name.split("_")[1].removesuffix(".png") for name in files[0]}


def test_slices_that_follow_each_other_are_thinned_and_simulated_ones_added(script, tmp_path):
    (tmp_path / "data" / "fib").mkdir(parents=True)
    for number in range(5):
        Image.fromarray(np.full((230, 230), 10 * number, np.uint8)).save(
            tmp_path / "data" / "fib" / f"contiguous_z{number:03}.png"
        )
    script("clean_micrographs").write_clean_folder(tmp_path / "data", ["fib"], ["atomic-stem"], tmp_path / "clean")
    names = sorted(path.name for path in (tmp_path / "clean" / "images").iterdir())
    assert [name for name in names if "fib" in name] == ["fib_contiguous_z000.png", "fib_contiguous_z004.png"]
    columns = [name for name in names if name.startswith("atomic-stem")]
    assert len(columns) == 20
    pixels = np.asarray(Image.open(tmp_path / "clean" / "images" / columns[0]))
    assert (pixels.min(), pixels.max(), pixels.shape) == (0, 255, (256, 256))


def test_the_recipe_says_what_it_would_do(script, tmp_path, capsys):
    models = script("finetune_bundled").MODELS
    code = script("finetune_bundled").main(["--data", str(tmp_path), "--runs", str(tmp_path), "--dry-run"])
    told = capsys.readouterr().out
    assert code == 0 and told.count("would fine-tune") == len(models) and "dose=(0.5, 500.0)" in told
    assert told.index("dose=(0.5, 500.0)") < told.index("dose=(0.1, 20.0)")  # one goes on from the other


@pytest.fixture
def steps(tmp_path):
    """Return a folder with a set of two micrographs: a bright square on a dark ground."""
    (tmp_path / "squares" / "images").mkdir(parents=True)
    for number in range(2):
        image = np.full((64, 64), 60, np.uint8)
        image[16:48, 16 + number : 48] = 200
        Image.fromarray(image).save(tmp_path / "squares" / "images" / f"{number}.png")
    (tmp_path / "squares" / "splits.json").write_text('{"test": ["0.png", "1.png"]}')
    return tmp_path


def test_denoisers_are_measured_beside_each_other_and_not_measured_again(steps, monkeypatch, capsys):
    results = steps / "results.jsonl"
    words = ["benchmark", "--data", str(steps), "--side", "64", "--noise", "20", "--draws", "2", "--set", "squares"]
    words += ["--results", str(results), "--method", "noisy", "--method", "non-local means"]
    monkeypatch.setattr(sys, "argv", words)
    denoising.main()
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert len(lines) == 8  # methods, micrographs, draws
    noisy, filtered = ([line for line in lines if line["method"] == name] for name in ("noisy", "non-local means"))
    clean = np.asarray(Image.open(steps / "squares" / "images" / "0.png")) / 255
    expected = -10 * np.log10(clean.mean() / 20)  # of counted electrons: variance = value / dose
    assert noisy[0]["psnr"] == pytest.approx(expected, abs=0.7)
    assert all(after["psnr"] > before["psnr"] + 5 for before, after in zip(noisy, filtered, strict=True))
    assert noisy[0]["psnr"] != noisy[2]["psnr"] and filtered[0]["residual"]["noise"] > 0
    table = capsys.readouterr().out
    assert "| noisy | " in table and f"| {np.mean([line['psnr'] for line in noisy]):.2f} |" in table
    monkeypatch.setattr(denoising, "measure", None)  # is not called
    denoising.main()
    assert capsys.readouterr().out == table


def test_lines_are_displaced_before_electrons_are_counted():
    clean = np.tile(np.linspace(0, 1, 64), (64, 1))
    straight, displaced = (denoising.counted(clean, noise, "key") for noise in ("20", "lines"))
    row = [np.abs(image.mean(axis=1) - clean.mean()).mean() for image in (straight, displaced)]
    assert straight.dtype == np.float32 and row[0] < 0.05 and row[1] < 0.05
    np.testing.assert_array_equal(straight, denoising.counted(clean, "20", "key"))


def test_what_cannot_be_measured_says_why():
    assert (
        "--careamics" in cannot("noise2void", Budget(1)) and cannot("noise2void", Budget(1, careamics="python")) is None
    )
    assert cannot("wavelets", Budget(1)) is None


def test_a_model_is_a_method_by_its_name():
    noisy = np.random.default_rng(0).poisson(np.full((64, 64), 20.0)).astype(np.float32)
    restored = method("unet2-rf44")(noisy, Budget(0))
    assert restored.shape == noisy.shape and restored.std() < noisy.std()
