import numpy as np
import pytest
import torch
from torch import Tensor

from emfm.data.augmentation import Augmentation
from emfm.data.croppers import TrainingCrops, cut, dihedral
from emfm.data.examples import LabelledMicrographs
from emfm.pretraining.crops import random_crop
from emfm.processing import EMImageProcessor
from emfm.tasks import segmentation
from emfm.tasks.segmentation import SegmentationCropper

BOTH_WAYS = (slice(None), slice(None, None, -1))


def random_image(seed: int, shape: tuple[int, int] = (20, 30)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, shape, dtype=np.uint16)


def labelled(images: list[np.ndarray], masks: list[np.ndarray]) -> LabelledMicrographs:
    masks = [mask.astype(np.int64) for mask in masks]
    names = [f"{i}.png" for i in range(len(images))]
    return LabelledMicrographs(images, names, [None] * len(images), masks, {0: "background", 1: "particle"})


def labelled_crops(data: LabelledMicrographs, side: int, count: int, seed: int) -> TrainingCrops:
    return TrainingCrops(data, SegmentationCropper(EMImageProcessor(), side, Augmentation(0.0)), count, seed)


def make_labelled(seed: int = 3, side: int = 8, count: int = 24) -> TrainingCrops:
    images = [random_image(i) for i in range(4)]
    return labelled_crops(labelled(images, [image % 3 for image in images]), side, count, seed)


def symmetries(array: np.ndarray) -> list[np.ndarray]:
    """Return the eight symmetric copies, written with transpositions and flips instead of rotations."""
    return [copy[rows, columns] for copy in (array, array.T) for rows in BOTH_WAYS for columns in BOTH_WAYS]


def test_dihedral_gives_the_eight_symmetries_and_the_identity_at_zero():
    array = np.arange(12.0).reshape(3, 4)
    found = [dihedral(array, symmetry) for symmetry in range(8)]
    np.testing.assert_array_equal(found[0], array)
    distinct = {(copy.shape, copy.tobytes()) for copy in found}
    assert distinct == {(copy.shape, copy.tobytes()) for copy in symmetries(array)}
    assert len(distinct) == 8


@pytest.mark.parametrize("symmetry", range(8))
def test_dihedral_turns_every_image_of_a_batch_in_the_same_way(symmetry):
    batch = np.random.default_rng(0).random((2, 3, 5, 5))
    turned = dihedral(batch, symmetry)
    for place in np.ndindex(2, 3):
        np.testing.assert_array_equal(turned[place], dihedral(batch[place], symmetry))


def test_a_crop_inside_the_micrograph_is_its_part():
    image = random_image(0)
    np.testing.assert_array_equal(cut(image, 11, 4, 9), image[11:20, 4:13])


@pytest.mark.parametrize(
    ("length", "expected"), [(4, [0, 1, 2, 3, 3, 2]), (5, [0, 1, 2, 3, 4, 4]), (2, [0, 1, 1, 0, 0, 1]), (1, [0] * 6)]
)
def test_a_crop_of_a_smaller_micrograph_is_mirrored_at_its_bottom_and_right(length, expected):
    image = random_image(0, (length, 8))
    np.testing.assert_array_equal(cut(image, 0, 2, 6), image[expected, 2:8])
    np.testing.assert_array_equal(cut(image.T, 2, 0, 6), image.T[2:8, expected])


def test_a_crop_depends_on_seed_and_index_alone():
    first, second, other_seed = make_labelled(), make_labelled(), make_labelled(seed=4)
    first_items = [first[index] for index in range(24)]
    np.random.seed(0)
    torch.manual_seed(0)
    second_items = {index: second[index] for index in reversed(range(24))}  # in another order
    for index, item in enumerate(first_items):
        for name, value in item.items():
            torch.testing.assert_close(value, second_items[index][name], rtol=0, atol=0)
    name = next(iter(first_items[0]))
    assert len({item[name].numpy().tobytes() for item in first_items}) == 24
    assert sum(torch.equal(item[name], other_seed[index][name]) for index, item in enumerate(first_items)) == 0


def test_the_first_crops_do_not_depend_on_how_many_there_are():
    few, many = make_labelled(count=5), make_labelled(count=500)
    assert (len(few), len(many)) == (5, 500)
    for index in range(5):
        for name, value in few[index].items():
            torch.testing.assert_close(value, many[index][name], rtol=0, atol=0)


def test_an_index_past_the_end_is_an_index_error_so_that_a_for_loop_ends():
    with pytest.raises(IndexError):
        make_labelled(count=5)[5]


def test_labelled_crops_come_from_every_micrograph_once_per_round():
    images = [random_image(i) for i in range(5)]
    data = labelled(images, [np.full(image.shape, i) for i, image in enumerate(images)])
    crops = labelled_crops(data, side=8, count=40, seed=2)
    drawn = np.array([int(crops[index]["labels"][0, 0]) for index in range(40)]).reshape(8, 5)
    np.testing.assert_array_equal(np.sort(drawn, axis=1), np.tile(np.arange(5), (8, 1)))
    assert len({tuple(turn) for turn in drawn.tolist()}) > 4


def test_a_rare_class_is_in_far_more_crops_than_with_uniform_sampling(monkeypatch):
    mask = np.zeros((48, 80), np.int64)
    mask[30:32, 60:62] = 1
    data = labelled([random_image(0, mask.shape)], [mask])

    def share() -> float:
        crops = labelled_crops(data, side=8, count=300, seed=0)
        return sum(bool((crops[index]["labels"] == 1).any()) for index in range(300)) / 300

    balanced = share()
    monkeypatch.setattr(segmentation, "CLASS_CENTRED", 0.0)
    uniform = share()
    # half of the crops are centred, half of those on the rare class; a uniform crop meets it in 81
    # of 3840 places
    assert balanced == pytest.approx(0.27, abs=0.08)
    assert uniform < 0.06


def source(labels: Tensor, images: list[np.ndarray]) -> int:
    """Return which image a crop of its values comes from."""
    found = [i for i, image in enumerate(images) if set(labels.unique().tolist()) <= set(image.ravel().tolist())]
    assert len(found) == 1
    return found[0]


def test_image_and_mask_are_cut_and_turned_alike():
    images = [random_image(i, (16, 19)) for i in range(2)]
    processor = EMImageProcessor()
    crops = labelled_crops(labelled(images, images), side=9, count=100, seed=1)
    for index in range(100):
        item = crops[index]
        image = images[source(item["labels"], images)]
        expected = processor.normalize(item["labels"].numpy(), processor.statistics(image))
        np.testing.assert_array_equal(item["pixel_values"][0].numpy(), expected)


def test_all_eight_symmetries_occur_in_labelled_crops():
    mask = random_image(0, (8, 8)) % 3
    crops = labelled_crops(labelled([random_image(1, (8, 8))], [mask]), side=8, count=100, seed=0)
    found = {crops[index]["labels"].numpy().tobytes() for index in range(100)}
    assert found == {copy.astype(np.int64).tobytes() for copy in symmetries(mask)}


@pytest.mark.parametrize("shape", [(5, 7), (3, 40), (12, 4), (1, 1)])
def test_a_micrograph_smaller_than_the_crop_is_mirrored_in_image_and_mask(shape):
    image = random_image(0, shape)
    processor, side = EMImageProcessor(), 13
    rows, columns = (np.array([*range(length), *reversed(range(length))] * side)[:side] for length in shape)
    values = processor.normalize(image, processor.statistics(image))
    statistics = processor.statistics(image)
    with_labels = labelled_crops(labelled([image], [image]), side, 20, seed=0)
    lefts = range(max(1, shape[1] - side + 1))
    places = [(rows[:, None], columns if left == 0 else np.arange(left, left + side)) for left in lefts]
    expected = {copy.tobytes() for place in places for copy in symmetries(values[place])}
    labels = {copy.tobytes() for place in places for copy in symmetries(image.astype(np.int64)[place])}
    for index in range(20):
        unlabelled = random_crop(image, statistics, processor, side, (0, 0, index))
        assert unlabelled["clean"][0].numpy().tobytes() in expected
        assert with_labels[index]["pixel_values"][0].numpy().tobytes() in expected
        assert with_labels[index]["labels"].numpy().tobytes() in labels


@pytest.mark.parametrize("value", [0, 1])
def test_a_mask_with_a_single_class_works(value):
    image = random_image(0, (30, 30))
    crops = labelled_crops(labelled([image], [np.full(image.shape, value)]), 8, 40, seed=0)
    for index in range(40):
        np.testing.assert_array_equal(crops[index]["labels"].numpy(), np.full((8, 8), value))
    assert len({crops[index]["pixel_values"].numpy().tobytes() for index in range(40)}) > 35


def test_a_crop_of_a_whole_micrograph_can_be_changed_without_changing_the_micrograph():
    """A transform in place would otherwise damage the images and masks in memory for the rest of a training."""
    images = [random_image(0, (8, 8))]
    crops = labelled_crops(labelled(images, [images[0] % 3]), 8, 40, seed=0)
    before = [{name: value.clone() for name, value in crops[index].items()} for index in range(40)]
    for index in range(40):
        for value in crops[index].values():
            value.fill_(-7)
    for index in range(40):
        for name, value in crops[index].items():
            torch.testing.assert_close(value, before[index][name], rtol=0, atol=0)
