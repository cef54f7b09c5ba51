"""The scripts that turn downloads of public data sets into dataset folders, on small stand-ins of the same layout."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from dataset_rows import left, names, pixels, reloaded
from downloads import write_stack
from PIL import Image

from emfm.data.datasets import load_em_dataset
from emfm.hub.datasets.card import DatasetCard

PARTICLE = {"0": "background", "255": "particle"}
CARD = DatasetCard("T", "Some.", "image-segmentation", "cc0-1.0", "Here.", "Me.", "by hand", "None.")


# EMPS


def test_emps_keeps_its_lists_and_turns_particles_into_masks(script, emps, tmp_path, capsys):
    root, lists = emps
    out = tmp_path / "out"
    command = [str(root), "--lists", str(lists), "--output", str(out), "--num-validation", "2"]
    assert script("prepare_emps").main(command) == 0, capsys.readouterr().err
    rows = reloaded(out)
    assert names(rows["test"]) == ["e7.png", "e8.png", "e9.png"]
    assert len(rows["validation"]) == 2
    assert sorted(names(rows["train"]) + names(rows["validation"])) == [f"e{index}.png" for index in range(7)]
    for row in [row for part in rows.values() for row in part]:
        name = row["image"]["path"]
        particles = np.asarray(Image.open(root / "segmaps" / name))
        np.testing.assert_array_equal(pixels(row["mask"]), np.where(particles > 0, 255, 0))
        if name == "e0.png":  # red marks
            np.testing.assert_array_equal(
                pixels(row["image"]), np.asarray(Image.open(root / "images" / name).convert("L"))
            )
        else:
            assert row["image"]["bytes"] == (root / "images" / name).read_bytes()
    assert json.loads((out / "labels.json").read_text()) == PARTICLE
    test = load_em_dataset(out, "test")
    assert test.id2label == {0: "background", 1: "particle"}
    np.testing.assert_array_equal(test.masks[1], np.asarray(Image.open(root / "segmaps" / "e8.png")) > 0)
    card = (out / "README.md").read_text()
    assert "license: mit" in card and "| test | 3 |" in card and "255 is particle" in card
    assert "`python hub_scripts/prepare_emps.py emps --output out --lists lists --num-validation 2 --seed 0`" in card


def test_another_seed_draws_another_validation_set(script, emps, tmp_path):
    root, lists = emps
    drawn = []
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        out = str(tmp_path / name)
        assert (
            script("prepare_emps").main(
                [str(root), "--lists", str(lists), "--output", out, "--num-validation", "3", "--seed", seed]
            )
            == 0
        )
        drawn.append(names(reloaded(tmp_path / name)["validation"]))
    assert drawn[0] == drawn[1] != drawn[2]


def test_emps_with_a_missing_image_is_one_line_that_names_it(script, emps, tmp_path, capsys):
    root, lists = emps
    (root / "segmaps" / "e8.png").unlink()
    assert script("prepare_emps").main([str(root), "--lists", str(lists), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "test.csv names" in error and "segmaps/e8.png, which is missing (1 in all)" in error
    assert left(tmp_path) == ["emps", "lists"]


def test_emps_with_a_broken_image_leaves_nothing(script, emps, tmp_path, capsys):
    root, lists = emps
    (root / "images" / "e4.png").write_bytes(b"no picture")
    command = [str(root), "--lists", str(lists), "--output", str(tmp_path / "out"), "--num-validation", "2"]
    assert script("prepare_emps").main(command) == 2
    assert "e4.png is damaged" in capsys.readouterr().err
    assert left(tmp_path) == ["emps", "lists"]


# TEMImageNet


@pytest.mark.parametrize(
    "task, folder",
    [
        ("denoising", "noNoise"),
        ("background-removal", "noBackgroundnoNoise"),
        ("super-resolution", "noNoiseNoBackgroundSuperresolution"),
    ],
)
def test_temimagenet_pairs_an_image_with_the_target_of_the_task(task, folder, script, temimagenet, tmp_path):
    out = tmp_path / "out"
    assert (
        script("prepare_temimagenet").main([str(temimagenet), "--task", task, "--output", str(out), "--any-count"]) == 0
    )
    rows = reloaded(out)
    assert {split: len(part) for split, part in rows.items()} == {"train": 14, "validation": 3, "test": 3}
    everything = [row for part in rows.values() for row in part]
    assert sorted(names(everything)) == [f"{index:05d}.png" for index in range(1, 21)]
    for row in everything:
        name = row["image"]["path"]
        assert row["image"]["bytes"] == (temimagenet / "image" / name).read_bytes()
        assert row["target"]["bytes"] == (temimagenet / folder / name).read_bytes()
    assert load_em_dataset(out, "test").scale == (2 if task == "super-resolution" else 1)
    assert not (out / "labels.json").exists()


def test_two_draws_of_15_percent_give_the_papers_counts(script, temimagenet, tmp_path, monkeypatch):
    module = script("prepare_temimagenet")
    monkeypatch.setattr(module, "paired_names", lambda root, target: [f"{index:05d}.png" for index in range(14364)])
    monkeypatch.setattr(module, "run_preparation", lambda parser, prepare, argv: prepare(parser.parse_args(argv)))
    splits = module.main([str(temimagenet), "--task", "denoising", "--output", str(tmp_path / "out")]).splits
    assert [len(splits[split]) for split in ("train", "validation", "test")] == [10377, 1832, 2155]


def test_a_temimagenet_that_is_incomplete_is_refused(script, temimagenet, tmp_path, capsys):
    command = ["--task", "denoising", "--output", str(tmp_path / "out")]
    main = script("prepare_temimagenet").main
    assert main([str(temimagenet), *command]) == 2
    assert "image holds 20 images, the paper has 14364" in capsys.readouterr().err
    (temimagenet / "noNoise" / "00007.png").unlink()
    assert main([str(temimagenet), *command]) == 2
    error = capsys.readouterr().err
    assert "1 of 20 images have no target" in error and "noNoise/00007.png" in error
    assert main([str(tmp_path), *command]) == 2
    assert "holds TEM-ImageNet-v1.3-master/: give the folder with image/" in capsys.readouterr().err
    assert main([str(temimagenet), "--task", "super-resolution", "--target", "noBackground", *command[2:]]) == 2
    assert "noBackground; " in capsys.readouterr().err


# CEM500K


def cem_values(folder: Path) -> dict[str, list[int]]:
    return {split: [int(pixels(row["image"])[0, 0]) for row in rows] for split, rows in reloaded(folder).items()}


def test_cem500k_subsets_are_nested_and_share_validation_and_test(script, cem500k, tmp_path):
    main, found = script("prepare_cem500k").main, {}
    for count in (None, 10, 20):
        out = tmp_path / f"cem{count}"
        wanted = [] if count is None else ["--num-images", str(count)]
        assert main([str(cem500k), "--output", str(out), "--num-held-out", "4", *wanted]) == 0
        found[count] = cem_values(out)
    everything = found[None]
    assert sorted(value for part in everything.values() for value in part) == list(range(40))
    assert [len(everything[split]) for split in ("train", "validation", "test")] == [32, 4, 4]
    for count in (10, 20):
        assert found[count] == {**everything, "train": everything["train"][:count]}


def test_cem500k_files_are_taken_over_unchanged(script, cem500k, tmp_path):
    assert script("prepare_cem500k").main([str(cem500k), "--output", str(tmp_path / "out"), "--num-held-out", "1"]) == 0
    for row in reloaded(tmp_path / "out")["train"]:
        name = row["image"]["path"]
        assert row["image"]["bytes"] == next(cem500k.rglob(name)).read_bytes()


def test_cem500k_says_what_does_not_fit(script, cem500k, tmp_path, capsys):
    main, output = script("prepare_cem500k").main, ["--output", str(tmp_path / "out")]
    assert main([str(cem500k), *output]) == 2
    assert "holds 40 images; 5000 each for validation and test" in capsys.readouterr().err
    assert main([str(cem500k), *output, "--num-held-out", "4", "--num-images", "33"]) == 2
    assert "--num-images from 1 to 32" in capsys.readouterr().err
    tifffile.imwrite(cem500k / "deep.tif", np.zeros((6, 6), np.uint16))
    assert main([str(cem500k), *output, "--num-held-out", "4"]) == 2
    error = capsys.readouterr().err
    assert "deep.tif is uint16; CEM500K is uint8" in error and error.count("\n") == 1
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "a.zip").write_bytes(b"")
    assert main([str(tmp_path / "packed"), *output]) == 2
    assert "no .tif or .tiff file but 1 files (.zip)" in capsys.readouterr().err
    assert left(tmp_path) == ["10592", "packed"]


# gold nanoparticles


def gold_command(folder: Path, tmp_path: Path, *more: str) -> list[str]:
    return [str(folder), "--set", "Au20nm", "--output", str(tmp_path / "out"), *more]


def test_gold_patches_keep_16_bits_and_the_order_of_the_file(script, gold, tmp_path, capsys):
    folder, images, labels = gold
    assert script("prepare_au_nanoparticles").main(gold_command(folder, tmp_path, "--any-count")) == 0, (
        capsys.readouterr().err
    )
    rows = reloaded(tmp_path / "out")
    assert {split: len(part) for split, part in rows.items()} == {"train": 7, "validation": 2, "test": 2}
    corners = [(index, row, column) for index in range(3) for row in (0, 512) for column in (0, 512)][:-1]
    for corner, row in zip(corners, [*rows["train"], *rows["validation"], *rows["test"]], strict=True):
        index, top, side = corner
        assert row["image"]["path"] == f"Au_20nm_87kx_16e_{index:03d}_{top:04d}_{side:04d}.png"
        window = np.s_[index, top : top + 512, side : side + 512]
        assert pixels(row["image"]).dtype == np.uint16
        np.testing.assert_array_equal(pixels(row["image"]), images[window])
        np.testing.assert_array_equal(pixels(row["mask"]), np.where(labels[window] == 1, 255, 0))
    assert json.loads((tmp_path / "out" / "labels.json").read_text()) == PARTICLE
    assert "is not that of Kazimi" in (tmp_path / "out" / "README.md").read_text()
    assert load_em_dataset(tmp_path / "out", "test").images[0].dtype == np.uint16


def test_gold_needs_the_papers_number_of_patches(script, gold, tmp_path, capsys, monkeypatch):
    module = script("prepare_au_nanoparticles")
    assert module.main(gold_command(gold[0], tmp_path)) == 2
    error = capsys.readouterr().err
    assert "found 11 patches; the paper's Au20nm has 1100 (660/220/220)" in error and "--any-count" in error
    for name, (_, sizes) in module.SETS.items():
        assert module.split_sizes(name, sum(sizes), any_count=False) == sizes
    assert left(tmp_path) == ["zenodo"]


def test_gold_asks_which_pair_when_there_are_several(script, gold, tmp_path, capsys):
    folder, images, labels = gold
    write_stack(folder, "Au_20nm_other", images[:1], labels[:1])
    main = script("prepare_au_nanoparticles").main
    assert main(gold_command(folder, tmp_path, "--dry-run")) == 2
    assert "several pairs for Au_20nm: Au_20nm_87kx_16e, Au_20nm_other; choose with --pair" in capsys.readouterr().err
    assert main(gold_command(folder, tmp_path, "--dry-run", "--pair", "Au_20nm_other")) == 2
    assert "found 4 patches" in capsys.readouterr().err
    assert main([str(folder), "--set", "Au2.2nm", "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "no pair of files Au_2p2nm_*_Images.h5" in error and "found Au_20nm_87kx_16e" in error


def test_gold_of_another_layout_says_what_the_file_holds(script, gold, tmp_path, capsys):
    folder, images, labels = gold
    main = script("prepare_au_nanoparticles").main
    write_stack(folder, "Au_10nm_a", images, labels, keys=("frames", "labels"))
    command = [str(folder), "--set", "Au10nm", "--output", str(tmp_path / "out")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "Au_10nm_a_Images.h5 holds 'frames' (3, 1100, 1024); expected a dataset 'images'" in error
    write_stack(folder, "Au_10nm_a", images, labels * 2)
    assert main(command) == 2
    assert "Au_10nm_a_Labels.h5, labels 0: values 0, 2; expected 0 and 1" in capsys.readouterr().err
    (folder / "Au_10nm_a_Images.h5").write_bytes(b"half a download")
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "Au_10nm_a_Images.h5 is damaged or no HDF5 file" in error and error.count("\n") == 1


def test_without_h5py_the_error_says_how_to_install_it(script, gold, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    assert script("prepare_au_nanoparticles").main(gold_command(gold[0], tmp_path)) == 2
    assert "pip install h5py" in capsys.readouterr().err


# all of them


def test_a_dry_run_says_what_would_be_written_and_writes_nothing(
    script, emps, temimagenet, cem500k, gold, tmp_path, capsys
):
    root, lists = emps
    output = ["--output", str(tmp_path / "out"), "--dry-run"]
    before = left(tmp_path)
    for name, options, shown in (
        ("prepare_emps", [str(root), "--lists", str(lists), "--num-validation", "2"], "test: 3 rows in 3 files"),
        ("prepare_temimagenet", [str(temimagenet), "--task", "super-resolution", "--any-count"], "16 x 16 uint8"),
        ("prepare_cem500k", [str(cem500k), "--num-held-out", "4"], "train: 32 rows in 8 files; first row: image c"),
        (
            "prepare_au_nanoparticles",
            [str(gold[0]), "--set", "Au20nm", "--any-count"],
            "512 x 512 uint16, mask Au_20nm",
        ),
    ):
        assert script(name).main([*options, *output]) == 0, capsys.readouterr().err
        text = capsys.readouterr().out
        assert "would write" in text and shown in text, text
    assert left(tmp_path) == before


def test_a_download_that_is_not_there_and_an_output_that_is_are_refused(script, cem500k, tmp_path, capsys):
    main = script("prepare_cem500k").main
    assert main([str(tmp_path / "nowhere"), "--output", str(tmp_path / "out")]) == 2
    assert f"there is no folder {tmp_path / 'nowhere'}" in capsys.readouterr().err
    assert main([str(cem500k), "--num-held-out", "4", "--output", str(cem500k), "--dry-run"]) == 2
    assert "exists already" in capsys.readouterr().err
