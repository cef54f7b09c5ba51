"""Labelled folders as people have them: spellings of names and splits, stacks, files that belong to nothing."""

import json
import logging
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr

from emfm.data.datasets import load_em_dataset
from emfm.errors import EMError, MissingSplitError
from emfm.finetuning.arguments import FinetuneArguments
from emfm.finetuning.finetune import read_splits
from emfm.hub.datasets.push import describe_dataset

SHAPE = (8, 10)
COMPOSED, DECOMPOSED = "Gr\u00f6\u00dfe", "Gro\u0308\u00dfe"


def image_of(seed: int, slices: int | None = None) -> np.ndarray:
    shape = SHAPE if slices is None else (slices, *SHAPE)
    return np.random.default_rng(seed).integers(0, 60_000, shape, dtype=np.uint16)


def mask_of(image: np.ndarray) -> np.ndarray:
    return (image > 30_000).astype(np.uint8)


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".mrc", ".mrcs"):
        with mrcfile.new(path) as file:
            file.set_data(array.astype(np.int16) if array.dtype == np.uint8 else array)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["data"] = array
    elif path.suffix == ".zarr":
        zarr.create_array(path, data=array)
    elif path.suffix == ".npy":
        np.save(path, array)
    else:
        tifffile.imwrite(path, array, photometric="minisblack")


def pair(folder: Path, image: str, mask: str | None = None, seed: int = 0, slices: int | None = None) -> np.ndarray:
    array = image_of(seed, slices)
    write(folder / "images" / image, array)
    write(folder / "masks" / (mask or image), mask_of(array))
    return array


def splits(folder: Path, **listed: object) -> None:
    (folder / "splits.json").write_text(json.dumps(listed), encoding="utf-8")


def assert_pairs(data) -> None:
    for image, mask in zip(data.images, data.masks, strict=True):
        np.testing.assert_array_equal(mask, mask_of(image))


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        (f"{COMPOSED}.tif", f"{DECOMPOSED}.tif"),
        (f"{DECOMPOSED}.tif", f"{COMPOSED}.npy"),
        ("a.TIF", "a.tif"),
        ("Cell 1.tif", "cell\u00a01.npy"),
        ("sub/A.tif", "Sub/a.mrc"),
        ("a.ome.tif", "a.ome.npy"),
    ],
)
def test_images_and_masks_pair_where_their_names_look_equal(tmp_path, image, mask, caplog):
    pair(tmp_path, image, mask)
    with caplog.at_level(logging.WARNING):
        data = load_em_dataset(tmp_path)
    assert_pairs(data)
    assert len(data) == 1 and not caplog.records


def test_names_that_differ_in_case_alone_keep_their_own_masks(tmp_path):
    for seed, name in enumerate(("a.tif", "A.tif", "b.tif", "b.npy")):
        pair(tmp_path, name, seed=seed)
    if len(list((tmp_path / "images").iterdir())) < 4:
        pytest.skip("this file system takes both for one")
    data = load_em_dataset(tmp_path)
    assert len(data) == 4
    assert_pairs(data)


@pytest.mark.parametrize("missing", ["A.tif", "b.npy"])
def test_the_mask_of_another_image_is_never_taken(tmp_path, missing):
    for seed, name in enumerate(("a.tif", "A.tif", "b.tif", "b.npy")):
        pair(tmp_path, name, seed=seed)
    if len(list((tmp_path / "images").iterdir())) < 4:
        pytest.skip("this file system takes both for one")
    (tmp_path / "masks" / missing).unlink()
    with pytest.raises(EMError, match=rf"images/{missing} has no mask: expected .*masks/{missing}"):
        load_em_dataset(tmp_path)


def test_two_images_cannot_share_a_mask_nor_an_image_have_two(tmp_path):
    for folder, images, masks in (("one", ["a.tif", "a.npy"], ["a.mrc"]), ("two", ["a.tif"], ["a.npy", "a.mrc"])):
        for name in images:
            write(tmp_path / folder / "images" / name, image_of(0))
        for name in masks:
            write(tmp_path / folder / "masks" / name, mask_of(image_of(0)))
    with pytest.raises(EMError, match=r"masks/a\.mrc would be the mask of a\.npy and of a\.tif"):
        load_em_dataset(tmp_path / "one")
    with pytest.raises(EMError, match=r"images/a\.tif has several masks in .*: a\.mrc, a\.npy; keep one"):
        load_em_dataset(tmp_path / "two")


def test_an_image_without_a_mask_is_named_with_the_nearest_file(tmp_path):
    pair(tmp_path, "a.tif")
    pair(tmp_path, "scan_01.tif", "scan_01_mask.tif")
    with pytest.raises(EMError, match=r"scan_01\.tif has no mask: expected .*; did you mean scan_01_mask\.tif\?"):
        load_em_dataset(tmp_path)


def test_files_that_belong_to_nothing_are_named(tmp_path, caplog):
    for name in ("a.tif", "b.tif"):
        pair(tmp_path, name)
    write(tmp_path / "masks" / "z.tif", mask_of(image_of(0)))
    write(tmp_path / "masks" / "._a.tif", mask_of(image_of(0)))
    splits(tmp_path, train=["a.tif"])
    with caplog.at_level(logging.WARNING):
        assert load_em_dataset(tmp_path).names == ["a.tif"]
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2
    assert "images: b.tif in no split: left out" in texts[0] and "no image belongs to z.tif: left out" in texts[1]


@pytest.mark.parametrize("names", [("Images", "MASKS"), ("IMAGES", "Masks")])
def test_folders_and_json_files_go_by_their_names_in_any_case(tmp_path, names):
    array = image_of(0)
    write(tmp_path / names[0] / "a.tif", array)
    write(tmp_path / names[1] / "a.tif", mask_of(array))
    (tmp_path / "Labels.JSON").write_text('{"0": "matrix", "1": "pore"}')
    (tmp_path / "Splits.json").write_text('{"TRAIN": ["A"]}')
    data = load_em_dataset(tmp_path)
    assert data.id2label == {0: "matrix", 1: "pore"} and data.names == ["a.tif"]


@pytest.mark.parametrize("name", ["label.json", "labels.json.txt", "lables.json"])
def test_a_file_that_is_nearly_called_labels_json_is_not_passed_over(tmp_path, name):
    pair(tmp_path, "a.tif")
    (tmp_path / name).write_text("{}")
    with pytest.raises(EMError, match=rf"{name} is not read: rename it to labels\.json"):
        load_em_dataset(tmp_path)


@pytest.mark.parametrize(
    ("spelled", "asked"),
    [
        *(("val", "validation"), ("Valid", "validation"), ("dev", "val"), ("eval", "validation")),
        *(("Validation", "VAL"), ("training", "train"), ("Train", "train"), ("testing", "test")),
        *(("TEST", "test"), ("Fold 1", "fold 1")),
    ],
)
def test_splits_go_by_every_usual_spelling(tmp_path, spelled, asked):
    for seed, name in enumerate(("a.tif", "b.tif")):
        pair(tmp_path, name, seed=seed)
    splits(tmp_path, **{spelled: ["b.tif"], "other": ["a.tif"]})
    assert load_em_dataset(tmp_path, asked).names == ["b.tif"]


def test_two_spellings_of_one_split_are_named(tmp_path):
    pair(tmp_path, "a.tif")
    splits(tmp_path, train=["a.tif"], val=["a.tif"], Validation=["a.tif"])
    with pytest.raises(EMError, match=r"splits\.json has the splits 'val' and 'Validation', which are one"):
        load_em_dataset(tmp_path)


def test_a_split_that_is_not_known_is_named_with_the_known_ones(tmp_path):
    pair(tmp_path, "a.tif")
    splits(tmp_path, train=["a.tif"], test=["a.tif"])
    with pytest.raises(MissingSplitError, match=r"no images in a split 'tset'; did you mean test\?"):
        load_em_dataset(tmp_path, "tset")


@pytest.mark.parametrize(
    "entry",
    ["sub/a.tif", "sub\\a.tif", "images/sub/a.tif", "Images\\Sub\\A.TIF", "./sub/a.tif", "sub/a", "\ufeffsub/a.tif"],
)
def test_splits_json_may_name_a_file_as_people_write_it(tmp_path, entry):
    pair(tmp_path, "sub/a.tif", seed=1)
    pair(tmp_path, "b.tif")
    splits(tmp_path, train=[entry])
    data = load_em_dataset(tmp_path)
    np.testing.assert_array_equal(data.images[0], image_of(1))
    assert len(data) == 1


@pytest.mark.parametrize("entry", ["../a.tif", "..\\a.tif", "/data/a.tif", "C:\\data\\a.tif", "\\\\server\\a.tif"])
def test_splits_json_cannot_name_files_elsewhere(tmp_path, entry):
    pair(tmp_path, "a.tif")
    splits(tmp_path, train=[entry])
    with pytest.raises(EMError, match=r"splits\.json names .*a\.tif; expected paths inside"):
        load_em_dataset(tmp_path)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ({"train": ["a.tif", "gone.tif"]}, r"'train' names gone\.tif, which is not in .*images"),
        ({"train": ["a.tif"], "test": ["b.tiff"]}, r"'test' names b\.tiff, which is not in .*did you mean b\.tif"),
        ({"train": ["a.tif", "A.tif"]}, r"'train' names a\.tif twice"),
        ({"train": [0, 1]}, r"'train' is \[0, 1\]; expected a list of file names"),
        ({"train": {"images": ["a.tif"]}}, r"'train' is .*; expected a list of file names"),
        ({"train": ["a.tif"], "comment": "by Ada"}, r"'comment' is 'by Ada'; expected a list of file names"),
        ({"train": []}, "lists no image in any split"),
    ],
)
def test_what_is_wrong_in_splits_json_is_named(tmp_path, listed, message):
    for name in ("a.tif", "b.tif"):
        pair(tmp_path, name)
    splits(tmp_path, **listed)
    with pytest.raises(EMError, match=message) as raised:
        load_em_dataset(tmp_path)
    assert "splits.json" in str(raised.value)


def test_images_that_training_and_test_share_are_named(tmp_path, caplog):
    pair(tmp_path, "a.tif")
    splits(tmp_path, train=["a.tif"], test=["a.tif"])
    with caplog.at_level(logging.WARNING):
        load_em_dataset(tmp_path, "test")
    assert "a.tif is in 'test' and in 'train'" in caplog.text


def test_folders_called_as_splits_are_the_splits(tmp_path):
    for seed, name in enumerate(("train/a.tif", "train/b.tif", "Val/c.tif", "test/deep/d.tif")):
        pair(tmp_path, name, seed=seed)
    expected = {"train": ["a.tif", "b.tif"], "validation": ["c.tif"], "test": ["d.tif"]}
    for split, names in expected.items():
        data = load_em_dataset(tmp_path, split)
        assert data.names == names
        assert_pairs(data)


def test_folders_called_as_splits_beside_others_are_asked_about(tmp_path):
    for name in ("train/a.tif", "val/b.tif", "c.tif"):
        pair(tmp_path, name)
    with pytest.raises(
        EMError, match=r"holds the folders train, val, called as splits, and beside them images such as"
    ):
        load_em_dataset(tmp_path)


@pytest.mark.parametrize("part", ["images", "masks"])
def test_the_folder_of_the_images_itself_hints_at_its_parent(tmp_path, part):
    pair(tmp_path / "sim", "a.tif")
    with pytest.raises(EMError, match=rf"there is no folder .*sim/{part}/images; did you mean .*sim\? "):
        load_em_dataset(tmp_path / "sim" / part)


def test_folders_of_splits_with_images_inside_are_explained(tmp_path):
    pair(tmp_path / "train", "a.tif")
    pair(tmp_path / "val", "b.tif")
    with pytest.raises(EMError, match=r"train and val hold images/: give one of them, or .*images/train, masks/train"):
        load_em_dataset(tmp_path)


@pytest.mark.parametrize("name", ["v.tif", "v.mrcs", "v.npy", "v.h5", "v.zarr"])
def test_stacks_with_stacks_of_masks_are_taken_slice_by_slice(tmp_path, name):
    stack = pair(tmp_path, name, slices=5)
    pair(tmp_path, "w.tif", seed=9)
    splits(tmp_path, train=[name], test=["w.tif"])
    data = load_em_dataset(tmp_path)
    assert data.names == [f"{name}[{number}]" for number in range(5)]
    np.testing.assert_array_equal(data.images, stack)
    assert_pairs(data)
    assert load_em_dataset(tmp_path, "test").names == ["w.tif"]


def test_a_stack_may_have_its_masks_in_another_format_and_targets_come_as_masks_do(tmp_path):
    stack = pair(tmp_path, "v.tif", "v.npy", slices=4)
    assert_pairs(load_em_dataset(tmp_path))
    write(tmp_path / "targets" / "v.mrc", stack // 2)
    data = load_em_dataset(tmp_path, truth="targets")
    np.testing.assert_array_equal(data.targets, stack // 2)


@pytest.mark.parametrize(
    ("slices", "of_masks", "message"),
    [
        (5, None, r"masks/v\.tif holds one image, .*images/v\.tif a stack of 5: a stack needs the truth of each slice"),
        (None, 5, r"masks/v\.tif holds a stack of 5, .*images/v\.tif one image: .* a single image needs a single one"),
        (5, 4, r"masks/v\.tif holds a stack of 4, .*images/v\.tif a stack of 5"),
    ],
)
def test_stacks_and_masks_that_do_not_fit_each_other_are_refused(tmp_path, slices, of_masks, message):
    write(tmp_path / "images" / "v.tif", image_of(0, slices))
    write(tmp_path / "masks" / "v.tif", mask_of(image_of(0, of_masks)))
    with pytest.raises(EMError, match=message) as raised:
        load_em_dataset(tmp_path)
    assert "--index" not in str(raised.value)


def test_advice_is_what_can_be_done_with_a_file_of_a_folder(tmp_path):
    pair(tmp_path / "two", "v.h5")
    with h5py.File(tmp_path / "two" / "images" / "v.h5", "a") as file:
        file["other"] = image_of(0)
    tifffile.imwrite(tmp_path / "colour.tif", np.stack([image_of(seed) for seed in range(3)], -1), photometric="rgb")
    pair(tmp_path / "colour", "a.tif")
    (tmp_path / "colour.tif").rename(tmp_path / "colour" / "images" / "a.tif")
    with pytest.raises(EMError, match=r"v\.h5 holds 2 datasets: .*; choose one with --dataset data, in Python .*"):
        load_em_dataset(tmp_path / "two")
    with pytest.raises(EMError, match=r"a\.tif: a colour image; .*, or choose how: --colour luminance, in .*"):
        load_em_dataset(tmp_path / "colour")


def test_a_jpeg_beside_an_image_of_another_suffix_is_no_mask(tmp_path):
    from PIL import Image

    write(tmp_path / "images" / "a.tif", image_of(0))
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask_of(image_of(0))).save(tmp_path / "masks" / "a.jpg")
    with pytest.raises(EMError, match=r"a\.tif has no mask but .*a\.jpg, a JPEG file, which changes values"):
        load_em_dataset(tmp_path)


def test_a_wrong_slice_of_a_stack_is_named(tmp_path):
    stack = pair(tmp_path, "v.tif", slices=3)
    masks = mask_of(stack)
    masks[2, 0, 0] = 7
    write(tmp_path / "masks" / "v.tif", masks)
    (tmp_path / "labels.json").write_text('{"0": "a", "1": "b"}')
    with pytest.raises(EMError, match=r"masks/v\.tif\[2\] holds the grey values 7"):
        load_em_dataset(tmp_path)


def arguments(folder: Path) -> FinetuneArguments:
    return FinetuneArguments(task="segmentation", data=str(folder), output="out", scratch="unet2-rf44")


def test_slices_of_a_stack_are_held_out_together(tmp_path):
    for seed, name in enumerate(("a.tif", "b.tif", "c.tif")):
        pair(tmp_path, name, seed=seed, slices=4)
    training, validation = read_splits(arguments(tmp_path))
    files = [{name.partition("[")[0] for name in part.names} for part in (training, validation)]
    assert len(training) == 8 and len(validation) == 4 and not files[0] & files[1]
    for part in (training, validation):
        assert_pairs(part)


def test_of_a_single_stack_the_last_slices_are_held_out(tmp_path):
    pair(tmp_path, "v.tif", slices=10)
    training, validation = read_splits(arguments(tmp_path))
    assert training.names == [f"v.tif[{number}]" for number in range(8)]
    assert validation.names == ["v.tif[8]", "v.tif[9]"]


@pytest.mark.parametrize("name", ["split1", "plain"])
def test_a_damaged_mask_of_the_validation_split_is_never_passed_over(tmp_path, name):
    folder = tmp_path / name
    for seed, file in enumerate(("a.tif", "b.tif")):
        pair(folder, file, seed=seed)
    splits(folder, train=["a.tif"], val=["b.tif"])
    (folder / "labels.json").write_text('{"0": "a", "1": "b"}')
    (folder / "masks" / "b.tif").write_text("no split 'validation'")
    with pytest.raises(EMError, match=r"masks/b\.tif: the file is damaged"):
        read_splits(arguments(folder))


def parquet(folder: Path, split: str) -> None:
    import datasets

    cell = {"bytes": None, "path": None}
    rows = {"image": [], "mask": []}
    for seed in range(2):
        path = folder / "files" / f"{seed}.tif"
        for column, array in (("image", image_of(seed)), ("mask", mask_of(image_of(seed)))):
            write(path, array)
            rows[column].append({**cell, "bytes": path.read_bytes()})
    features = datasets.Features({column: datasets.Image() for column in rows})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(folder / "set" / split))


@pytest.mark.parametrize("file", ["val-00000-of-00001.parquet", "Validation.parquet", "valid-00000.parquet"])
@pytest.mark.parametrize("streaming", [False, True])
def test_splits_of_parquet_folders_go_by_every_usual_spelling(tmp_path, file, streaming):
    (tmp_path / "set").mkdir()
    parquet(tmp_path, file)
    (tmp_path / "set" / "labels.json").write_text('{"0": "a", "1": "b"}')
    data = load_em_dataset(tmp_path / "set", "validation", streaming=streaming)
    assert_pairs(data.take(2) if streaming else data)
    with pytest.raises(MissingSplitError, match=r"has no split 'test'; known names: "):
        load_em_dataset(tmp_path / "set", "test", streaming=streaming)


def test_pushing_refuses_a_stack_in_words_that_fit(tmp_path):
    said = {"license": "mit", "citation": "Ada"}
    for name in ("v.npy", "v.tif"):
        folder = tmp_path / name.partition(".")[2]
        pair(folder, name, slices=3)
        (folder / "labels.json").write_text('{"0": "a", "1": "b"}')
        with pytest.raises(EMError, match=rf"images/{name}: a stack.*save each slice as its own file") as raised:
            describe_dataset(folder, "lab/stacks", **said)
        assert "--index" not in str(raised.value)


def test_a_damaged_validation_split_of_a_dataset_is_never_a_missing_one(tmp_path):
    (tmp_path / "set").mkdir()
    parquet(tmp_path, "train-00000-of-00001.parquet")
    (tmp_path / "set" / "val-00000-of-00001.parquet").write_bytes(b"PAR1 no split 'validation' PAR1")
    (tmp_path / "set" / "labels.json").write_text('{"0": "a", "1": "b"}')
    with pytest.raises(EMError, match="cannot load the split 'validation'") as raised:
        read_splits(arguments(tmp_path / "set"))
    assert not isinstance(raised.value, MissingSplitError)
