"""Unlabelled data: folders, files and datasets, decoded once, in their own dtype."""

import io
import logging
from pathlib import Path

import datasets
import numpy as np
import pytest
import tifffile
from PIL import Image

from emfm import EMError
from emfm.data import decoded_cache
from emfm.data.decoded_cache import Decoded
from emfm.data.hub_images import decode, load_images
from emfm.data.unlabelled import InMemory, Undecoded, open_micrographs


def image_of(dtype: str, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 200, (20, 30))
    return values.astype(dtype)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "micrographs"
    (place / "deep").mkdir(parents=True)
    Image.fromarray(image_of("uint8")).save(place / "a.png")
    tifffile.imwrite(place / "b.tif", image_of("uint16", 1) * 300)
    np.save(place / "deep" / "c.npy", image_of("float64", 2) / 7)
    return place


def test_a_folder_is_decoded_once_and_keeps_values_and_dtypes(folder, processor, caplog):
    opened = open_micrographs(str(folder), processor)
    assert isinstance(opened, Decoded) and len(opened) == 3
    expected = [image_of("uint8"), image_of("uint16", 1) * 300, (image_of("float64", 2) / 7).astype(np.float32)]
    for index, image in enumerate(expected):
        pixels, statistics = opened[index]
        assert pixels.dtype == image.dtype
        np.testing.assert_array_equal(pixels, image)
        measured = processor.statistics(image)
        assert (statistics.offset, statistics.scale) == pytest.approx((measured.offset, measured.scale), rel=1e-6)


def cache_of(opened: Decoded) -> list[tuple[str, int]]:
    files = [Path(entry["filename"]) for entry in opened._rows.cache_files]
    return [(str(file), file.stat().st_mtime_ns) for file in files]


def test_a_second_opening_decodes_nothing_unless_a_file_has_changed(folder, processor):
    first = cache_of(open_micrographs(str(folder), processor))
    assert len(first) == 1
    assert cache_of(open_micrographs(str(folder), processor)) == first
    Image.fromarray(image_of("uint8", 5)).resize((41, 20)).save(folder / "a.png")
    changed = open_micrographs(str(folder), processor)
    assert cache_of(changed) != first and changed[0][0].shape == (20, 41)


def test_data_too_large_for_the_disk_are_read_file_by_file(folder, processor, monkeypatch, caplog):
    monkeypatch.setattr(decoded_cache, "EXPANSION", 10**15)
    opened = open_micrographs(str(folder), processor)
    assert isinstance(opened, Undecoded)
    assert "does not fit" in caplog.text
    np.testing.assert_array_equal(opened[1][0], image_of("uint16", 1) * 300)
    assert opened[0][1] == processor.statistics(image_of("uint8"))


def test_a_broken_file_is_named(folder, processor):
    (folder / "d.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(EMError, match=r"d\.png.*damaged"):
        open_micrographs(str(folder), processor)


def test_values_that_are_not_finite_are_an_error_that_names_the_file(folder, processor):
    np.save(folder / "d.npy", np.full((8, 8), np.inf))
    with pytest.raises(EMError, match=r"d\.npy.*64 infinite"):
        open_micrographs(str(folder), processor)


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def parquet(place, column: str, content: list) -> str:
    place.mkdir()
    features = datasets.Features({"id": datasets.Value("int64"), column: datasets.Image()})
    rows = {"id": list(range(len(content))), column: [{"bytes": item, "path": None} for item in content]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(place / "train.parquet"))
    return str(place)


def test_a_parquet_dataset_gives_the_same_as_the_files_in_it(tmp_path, processor):
    deep = io.BytesIO()
    tifffile.imwrite(deep, image_of("uint16", 1) * 300)
    opened = open_micrographs(parquet(tmp_path / "set", "scan", [png(image_of("uint8")), deep.getvalue()]), processor)
    for index, image in enumerate((image_of("uint8"), image_of("uint16", 1) * 300)):
        np.testing.assert_array_equal(opened[index][0], image)
        assert opened[index][0].dtype == image.dtype
        assert opened[index][1] == processor.statistics(image)


@pytest.mark.parametrize("streaming", [False, True])
def test_the_image_column_is_found_by_its_type_and_left_undecoded(tmp_path, streaming):
    data, column = load_images(parquet(tmp_path / "set", "scan", [png(image_of("uint8"))]), streaming)
    assert column == "scan"
    sample = next(iter(data))["image"]
    assert sample["bytes"] == png(image_of("uint8"))
    np.testing.assert_array_equal(decode(sample, "row 0").image, image_of("uint8"))


def test_a_row_that_holds_a_path_is_read_from_there(folder):
    np.testing.assert_array_equal(
        decode({"bytes": None, "path": str(folder / "a.png")}, "row 0").image, image_of("uint8")
    )


def test_a_dataset_without_images_is_refused_with_its_columns(tmp_path):
    place = tmp_path / "set"
    place.mkdir()
    datasets.Dataset.from_dict({"text": ["a"], "number": [1]}).to_parquet(str(place / "train.parquet"))
    with pytest.raises(EMError, match="no image column; its columns are text, number"):
        load_images(str(place), streaming=False)


def test_a_broken_row_of_a_dataset_is_named_by_its_number(tmp_path, processor):
    source = parquet(tmp_path / "set", "scan", [png(image_of("uint8")), b"no image"])
    with pytest.raises(EMError, match="row 1, scan"):
        open_micrographs(source, processor)


def test_a_name_that_is_neither_folder_nor_dataset_says_what_was_expected(processor, monkeypatch):
    with pytest.raises(EMError, match="no folder"):
        open_micrographs("nowhere", processor)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    logging.disable(logging.CRITICAL)
    try:
        with pytest.raises(
            EMError, match=r"cannot load the split 'train' of the dataset 'nobody/nothing'.*expected a folder"
        ):
            open_micrographs("nobody/nothing", processor)
    finally:
        logging.disable(logging.NOTSET)


def test_arrays_in_memory_are_measured_once(processor):
    opened = InMemory([image_of("uint8"), image_of("uint8", 1)], processor)
    assert len(opened) == 2
    assert opened[1][1] == processor.statistics(image_of("uint8", 1))
