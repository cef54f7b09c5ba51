"""Datasets written as the Hub keeps them come back with the same bytes and values, or leave nothing."""

import shutil

import numpy as np
import pytest
import tifffile
from dataset_rows import left, pixels, reloaded

from emfm.errors import EMError
from emfm.hub.datasets.card import DatasetCard
from emfm.hub.datasets.encoded_image import encode_image, kept_file
from emfm.hub.datasets.parquet_folder import write_parquet_folder

CARD = DatasetCard("T", "Some.", "image-segmentation", "cc0-1.0", "Here.", "Me.", "by hand", "None.")
PARTICLE = {"0": "background", "255": "particle"}


def test_every_dtype_comes_back_with_its_values(tmp_path):
    rng = np.random.default_rng(0)
    images = {
        "uint8": rng.integers(0, 256, (5, 7), dtype=np.uint8),
        "uint16": rng.integers(0, 2**16, (5, 7), dtype=np.uint16),
        "big": rng.integers(0, 2**16, (5, 7), dtype=np.uint16).astype(">u2"),
        "int16": rng.integers(-(2**15), 2**15, (5, 7), dtype=np.int16),
        "int32": rng.integers(-(2**31), 2**31, (5, 7), dtype=np.int32),
        "float32": rng.normal(size=(5, 7)).astype(np.float32),
    }
    write_parquet_folder(
        tmp_path / "out", {"train": list(images)}, lambda key: {"image": encode_image(images[key], key)}, CARD
    )
    for row, (key, image) in zip(reloaded(tmp_path / "out")["train"], images.items(), strict=True):
        found = pixels(row["image"])
        assert found.dtype == image.dtype.newbyteorder("="), key
        np.testing.assert_array_equal(found, image)
    import datasets

    shown = [np.asarray(row["image"]) for row in datasets.load_dataset(str(tmp_path / "out"), split="train")]
    for picture, image in zip(shown, images.values(), strict=True):
        np.testing.assert_array_equal(picture, image)


def test_a_file_is_kept_byte_for_byte(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.arange(12, dtype=np.uint16).reshape(3, 4), resolution=(1e7, 1e7))
    write_parquet_folder(
        tmp_path / "out", {"train": ["a.tif"]}, lambda name: {"image": kept_file(tmp_path / name)}, CARD
    )
    row = reloaded(tmp_path / "out")["train"][0]
    assert row["image"] == {"bytes": (tmp_path / "a.tif").read_bytes(), "path": "a.tif"}


def test_there_are_eight_files_for_a_split_and_never_more_than_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("emfm.hub.datasets.parquet_folder.ROW_GROUP", 2)
    image = np.zeros((4, 4), np.uint8)
    splits = {"train": list(range(21)), "validation": [21, 22, 23], "test": [24]}

    def row(index):
        return {"image": encode_image(image + np.uint8(index), str(index))}

    write_parquet_folder(tmp_path / "out", splits, row, CARD)
    files = left(tmp_path / "out" / "data")
    assert sum(name.startswith("train-") for name in files) == 8
    assert [name for name in files if "train" not in name] == [
        "test-00000-of-00001.parquet",
        *(f"validation-{shard:05d}-of-00003.parquet" for shard in range(3)),
    ]
    found = reloaded(tmp_path / "out")
    assert {split: [int(pixels(row["image"])[0, 0]) for row in rows] for split, rows in found.items()} == splits
    monkeypatch.setattr("emfm.hub.datasets.parquet_folder.SHARD_BYTES", 100)
    write_parquet_folder(tmp_path / "large", splits, row, CARD)
    assert 8 < len(left(tmp_path / "large" / "data")) - 4 <= 21


def test_after_an_error_half_way_nothing_is_left(tmp_path):
    def row(index):
        if index == 5:
            raise EMError("row 5 is broken")
        return {"image": encode_image(np.zeros((4, 4), np.uint8), str(index))}

    with pytest.raises(EMError, match="row 5 is broken"):
        write_parquet_folder(tmp_path / "deep" / "out", {"train": list(range(9))}, row, CARD)
    assert left(tmp_path) == []


def test_an_output_that_exists_and_an_item_in_two_splits_are_refused(tmp_path):
    def row(index):
        return {"image": encode_image(np.zeros((4, 4), np.uint8), str(index))}

    (tmp_path / "out").mkdir()
    with pytest.raises(EMError, match="out exists already"):
        write_parquet_folder(tmp_path / "out", {"train": [1]}, row, CARD)
    with pytest.raises(EMError, match="'2' is in the split 'train' and again in 'test'"):
        write_parquet_folder(tmp_path / "new", {"train": [1, 2], "test": [2]}, row, CARD)
    with pytest.raises(EMError, match="'test' has no images"):
        write_parquet_folder(tmp_path / "new", {"train": [1, 2], "test": []}, row, CARD)
    assert left(tmp_path) == ["out"]


def test_a_dataset_written_anew_is_not_mixed_up_with_the_old_one(tmp_path):
    for value in (3, 4):
        image = np.full((4, 4), value, np.uint8)
        for folder in (tmp_path / "out", tmp_path / "other" / "out"):
            write_parquet_folder(folder, {"train": [0]}, lambda _, kept=image: {"image": encode_image(kept, "a")}, CARD)
            np.testing.assert_array_equal(pixels(reloaded(folder)["train"][0]["image"]), image)
            shutil.rmtree(folder)


def test_values_that_no_image_file_keeps_are_refused():
    with pytest.raises(EMError, match="a: 1 pixels are NaN or infinite"):
        encode_image(np.array([[0.0, np.nan]]), "a")
    with pytest.raises(EMError, match="a: dtype int64; expected uint8"):
        encode_image(np.zeros((2, 2), np.int64), "a")
