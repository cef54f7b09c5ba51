import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from emfm.data.datasets import load_em_dataset
from emfm.data.examples import LabelledMicrographs
from emfm.errors import EMError

LABELS = {"255": "particle", "0": "background", "128": "support"}  # not in the order of the grey values


def write(path: Path, array: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)
    return array


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def random_image(seed: int = 0, shape: tuple[int, int] = (8, 10)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 60_000, shape, dtype=np.uint16)


def random_mask(values: tuple[int, ...], seed: int = 0, shape: tuple[int, int] = (8, 10)) -> np.ndarray:
    """Return a mask that holds every one of the values."""
    mask = np.resize(np.array(values, np.uint8), shape[0] * shape[1])
    return np.random.default_rng(seed).permutation(mask).reshape(shape)


def write_folder(folder: Path, names: list[str], values: tuple[int, ...], mask_suffix: str | None = None) -> None:
    """Write images and masks of random values, image number i from seed i."""
    for seed, name in enumerate(names):
        mask_name = name if mask_suffix is None else str(Path(name).with_suffix(mask_suffix))
        write(folder / "images" / name, random_image(seed))
        write(folder / "masks" / mask_name, random_mask(values, seed))


def test_labels_json_numbers_the_classes_by_increasing_grey_value(tmp_path):
    write_folder(tmp_path, ["a.tif", "b.tif"], (0, 128, 255))
    write_json(tmp_path / "labels.json", LABELS)
    data = load_em_dataset(tmp_path)
    assert data.id2label == {0: "background", 1: "support", 2: "particle"}
    assert data.names == ["a.tif", "b.tif"]
    for seed in range(2):
        assert data.images[seed].dtype == np.uint16 and data.masks[seed].dtype == np.int16
        np.testing.assert_array_equal(data.images[seed], random_image(seed))
        np.testing.assert_array_equal(data.masks[seed], random_mask((0, 1, 2), seed))


def test_a_class_of_labels_json_that_no_mask_holds_keeps_its_number(tmp_path):
    write_folder(tmp_path, ["a.tif"], (0, 255))
    write_json(tmp_path / "labels.json", LABELS)
    data = load_em_dataset(tmp_path)
    assert data.id2label == {0: "background", 1: "support", 2: "particle"}
    np.testing.assert_array_equal(data.masks[0], random_mask((0, 2)))


@pytest.mark.parametrize(
    ("values", "id2label"),
    [
        ((0, 1), {0: "background", 1: "class 1"}),
        ((0, 1, 2, 3), {0: "background", 1: "class 1", 2: "class 2", 3: "class 3"}),
    ],
)
def test_without_labels_json_the_values_are_the_classes(tmp_path, values, id2label):
    write_folder(tmp_path, ["a.png"], values)
    data = load_em_dataset(str(tmp_path))
    assert data.id2label == id2label
    np.testing.assert_array_equal(data.masks[0], random_mask(values))


def test_without_labels_json_the_classes_are_those_of_all_splits(tmp_path):
    write_folder(tmp_path, ["a.png"], (0, 1))
    write(tmp_path / "images" / "b.png", random_image(1))
    write(tmp_path / "masks" / "b.png", random_mask((0, 2)))
    write_json(tmp_path / "splits.json", {"train": ["a.png"], "test": ["b.png"]})
    for split, classes in (("train", {0, 1}), ("test", {0, 2})):
        data = load_em_dataset(tmp_path, split)
        assert data.id2label == {0: "background", 1: "class 1", 2: "class 2"}
        assert set(np.unique(data.masks[0]).tolist()) == classes


def test_a_boolean_mask_has_two_classes(tmp_path):
    write(tmp_path / "images" / "a.tif", random_image())
    mask = write(tmp_path / "masks" / "a.tif", random_image() > 30_000)
    data = load_em_dataset(tmp_path)
    assert data.id2label == {0: "background", 1: "class 1"}
    np.testing.assert_array_equal(data.masks[0], mask.astype(int))


@pytest.mark.parametrize(
    ("values", "found", "shown"),
    [
        ((0, 255), "0, 255", '{"0": "name of 0", "255": "name of 255"}'),
        ((1, 2), "1, 2", '{"1": "name of 1", "2": "name of 2"}'),
        ((0,), "0", '{"0": "name of 0"}'),
        (tuple(range(0, 20, 2)), "0, 2, 4, …, 18 (10 values)", '{"0": "background", "255": "particle"}'),
    ],
)
def test_without_labels_json_other_values_are_listed_with_the_file_to_write(tmp_path, values, found, shown):
    write_folder(tmp_path, ["a.png"], values)
    with pytest.raises(EMError, match=r"labels\.json like") as raised:
        load_em_dataset(tmp_path)
    assert f"grey values {found};" in str(raised.value)
    assert str(raised.value).endswith(shown)


def test_a_grey_value_that_labels_json_does_not_name_is_listed_with_its_file(tmp_path):
    write_folder(tmp_path, ["a.tif"], (0, 128, 255))
    write(tmp_path / "images" / "b.tif", random_image())
    write(tmp_path / "masks" / "b.tif", random_mask((0, 7, 9)))
    write_json(tmp_path / "labels.json", LABELS)
    with pytest.raises(EMError, match=r"masks/b\.tif holds the grey values 7, 9, .*; it has 0, 128, 255$"):
        load_em_dataset(tmp_path)


@pytest.mark.parametrize("shape", [(10, 8), (8, 9), (16, 20)])
def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path, shape):
    write(tmp_path / "images" / "a.tif", random_image())
    write(tmp_path / "masks" / "a.tif", random_mask((0, 1), shape=shape))
    with pytest.raises(EMError, match=rf"masks/a\.tif is {shape[0]} x {shape[1]} pixels, its image 8 x 10"):
        load_em_dataset(tmp_path)


def test_an_image_without_a_mask_is_named_with_the_expected_mask(tmp_path):
    write_folder(tmp_path, ["a.tif", "b.tif"], (0, 1))
    (tmp_path / "masks" / "b.tif").unlink()
    with pytest.raises(EMError, match=r"images/b\.tif has no mask: expected .*masks/b\.tif"):
        load_em_dataset(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".npy", ".tiff"])
def test_a_mask_may_have_another_suffix_than_its_image(tmp_path, suffix):
    write(tmp_path / "images" / "a.v1.tif", random_image())
    path = tmp_path / "masks" / f"a.v1{suffix}"
    path.parent.mkdir()
    mask = random_mask((0, 1, 2))
    if suffix == ".npy":
        np.save(path, mask)
    elif suffix == ".png":
        Image.fromarray(mask).save(path)
    else:
        tifffile.imwrite(path, mask)
    np.testing.assert_array_equal(load_em_dataset(tmp_path).masks[0], mask)


def test_a_jpeg_is_never_taken_as_the_mask_of_another_suffix(tmp_path):
    write(tmp_path / "images" / "a.png", random_image())
    write(tmp_path / "masks" / "a.jpg", random_mask((0, 1)))
    write_json(tmp_path / "labels.json", LABELS)
    with pytest.raises(EMError, match=r"a\.png has no mask"):
        load_em_dataset(tmp_path)


def test_splits_json_chooses_the_files_and_their_order(tmp_path):
    write_folder(tmp_path, ["a.png", "b.png", "c.png"], (0, 1))
    write_json(tmp_path / "splits.json", {"train": ["c.png", "a.png"], "test": ["b.png"]})
    for split, seeds in (("train", [2, 0]), ("test", [1])):
        data = load_em_dataset(tmp_path, split)
        assert data.names == [f"{'abc'[seed]}.png" for seed in seeds]
        for image, mask, seed in zip(data.images, data.masks, seeds, strict=True):
            np.testing.assert_array_equal(image, random_image(seed))
            np.testing.assert_array_equal(mask, random_mask((0, 1), seed))


@pytest.mark.parametrize(
    ("split", "hint"),
    [("tests", "did you mean test?"), ("xyz", "known names: train, test"), ("validation", "known names: train, test")],
)
def test_a_missing_or_empty_split_is_refused_with_the_nearest_names(tmp_path, split, hint):
    write_folder(tmp_path, ["a.png"], (0, 1))
    write_json(tmp_path / "splits.json", {"train": ["a.png"], "validation": [], "test": ["a.png"]})
    with pytest.raises(EMError, match=rf"splits\.json has no images in a split '{split}'") as raised:
        load_em_dataset(tmp_path, split)
    assert str(raised.value).endswith(hint)


def test_without_splits_json_there_is_only_the_training_split(tmp_path):
    write_folder(tmp_path, ["a.png", "b.png"], (0, 1))
    assert load_em_dataset(tmp_path, "train").names == ["a.png", "b.png"]
    with pytest.raises(EMError, match=r"no splits\.json, so .*no split 'test': write .\"test\": \[file names\]"):
        load_em_dataset(tmp_path, "test")


@pytest.mark.parametrize("missing", ["", "images", "masks"])
def test_a_missing_folder_is_named(tmp_path, missing):
    folder = tmp_path / "data"
    for part in ("images", "masks"):
        if missing and part != missing:
            (folder / part).mkdir(parents=True)
    with pytest.raises(EMError, match=f"there is no folder {folder / missing}\\b"):
        load_em_dataset(folder)


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(EMError, match="images holds no image"):
        load_em_dataset(tmp_path)


@pytest.mark.parametrize("file", ["labels.json", "splits.json"])
@pytest.mark.parametrize("content", ["{", "[1, 2]", "{}", '"train"', "\xff\xfe"])
def test_a_broken_json_file_is_refused_with_its_name_and_an_example(tmp_path, file, content):
    write_folder(tmp_path, ["a.png"], (0, 1))
    (tmp_path / file).write_bytes(content.encode("latin-1"))
    with pytest.raises(EMError, match=rf"{file} .*; expected \{{\""):
        load_em_dataset(tmp_path)


def test_a_label_that_is_not_a_grey_value_is_refused_with_an_example(tmp_path):
    write_folder(tmp_path, ["a.png"], (0, 1))
    write_json(tmp_path / "labels.json", {"background": "0"})
    with pytest.raises(EMError, match=r"labels\.json has a key that is not a grey value .*background.*expected"):
        load_em_dataset(tmp_path)


@pytest.mark.parametrize("names", [5, [1], [["a.png"]], "a.png", {"a.png": 1}])
def test_a_split_that_is_no_list_of_file_names_is_refused(tmp_path, names):
    write_folder(tmp_path, ["a.png"], (0, 1))
    write_json(tmp_path / "splits.json", {"train": names})
    with pytest.raises(EMError, match=r"splits\.json"):
        load_em_dataset(tmp_path)


@pytest.mark.parametrize("name", ["../outside.png", "sub/../../outside.png", "ABSOLUTE"])
def test_a_split_cannot_name_files_outside_its_folder(tmp_path, name):
    folder = tmp_path / "data"
    write_folder(folder, ["a.png", "sub/b.png"], (0, 1))
    for outside in (folder / "outside.png", tmp_path / "outside.png"):
        write(outside, random_mask((0, 1)))
    name = str(tmp_path / "outside.png") if name == "ABSOLUTE" else name
    write_json(folder / "splits.json", {"train": [name]})
    with pytest.raises(EMError, match=r"splits\.json.*outside\.png"):
        load_em_dataset(folder)


@pytest.mark.parametrize("with_splits", [False, True])
def test_images_of_one_name_in_two_subfolders_keep_their_own_masks(tmp_path, with_splits):
    names = ["a.tif", "sub/a.tif"]
    write_folder(tmp_path, names, (0, 1), mask_suffix=".png")
    if with_splits:
        write_json(tmp_path / "splits.json", {"train": names})
    data = load_em_dataset(tmp_path)
    assert sorted(image.tobytes() for image in data.images) == sorted(random_image(seed).tobytes() for seed in range(2))
    for image, mask in zip(data.images, data.masks, strict=True):
        seed = 0 if (image == random_image(0)).all() else 1
        np.testing.assert_array_equal(mask, random_mask((0, 1), seed))


def test_each_image_keeps_the_pixel_size_of_its_file(tmp_path):
    write_folder(tmp_path, ["a.tif", "b.tif"], (0, 1))
    tifffile.imwrite(tmp_path / "images" / "b.tif", random_image(), resolution=(2e7, 2e7), resolutionunit="CENTIMETER")
    assert load_em_dataset(tmp_path).pixel_sizes == [None, 0.5]


def numbered(count: int) -> LabelledMicrographs:
    """Return micrographs whose image, mask, name and pixel size all tell their number."""
    return LabelledMicrographs(
        images=[np.full((2, 3), i, np.uint8) for i in range(count)],
        masks=[np.full((2, 3), i, np.int64) for i in range(count)],
        names=[str(i) for i in range(count)],
        id2label={i: str(i) for i in range(count)},
        pixel_sizes=[float(i) for i in range(count)],
    )


def assert_numbers(data: LabelledMicrographs, numbers: list[int]) -> None:
    assert [int(name) for name in data.names] == numbers
    assert [image.max() for image in data.images] == [mask.max() for mask in data.masks] == data.pixel_sizes == numbers


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_taking_more_images_of_one_seed_only_adds_images(seed):
    data = numbered(12)
    taken = [[int(name) for name in data.take(count, seed).names] for count in range(1, 13)]
    for fewer, more in pairwise(taken):
        assert more[: len(fewer)] == fewer
    assert sorted(taken[-1]) == list(range(12))
    assert_numbers(data.take(5, seed), taken[4])
    assert data.take(5, seed).id2label == data.id2label


def test_taking_depends_on_the_seed_alone():
    data = numbered(12)
    np.random.seed(1)
    first = data.take(6, seed=3).names
    np.random.seed(2)
    assert data.take(6, seed=3).names == first
    assert len({tuple(data.take(6, seed).names) for seed in range(5)}) == 5


@pytest.mark.parametrize("count", [-1, 0, 5])
def test_taking_none_or_more_than_there_are_is_refused(count):
    with pytest.raises(EMError, match=f"{count} images were asked for; the split has 4: choose 1 to 4"):
        numbered(4).take(count)


def test_a_part_is_a_range_of_the_micrographs():
    assert_numbers(numbered(6).part(2, 5), [2, 3, 4])
    assert len(numbered(6).part(2, 5)) == 3
