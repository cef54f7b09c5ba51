import numpy as np
import pytest
import torch
from torch import Tensor

from emfm.data import patches
from emfm.data.datasets import LabelledMicrographs
from emfm.data.degradations import Corruption, CorruptionStrength, gaussian_blur
from emfm.data.patches import LabelledCrops, UnlabelledCrops, cut, dihedral
from emfm.errors import EMError
from emfm.processing import EMImageProcessor

NOTHING = CorruptionStrength(noise=(0.0, 0.0), blur=(0.0, 0.0), masked_share=(0.0, 0.0))
BOTH_WAYS = (slice(None), slice(None, None, -1))


def random_image(seed: int, shape: tuple[int, int] = (20, 30)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, shape, dtype=np.uint16)


def labelled(images: list[np.ndarray], masks: list[np.ndarray]) -> LabelledMicrographs:
    masks = [mask.astype(np.int64) for mask in masks]
    names = [f"{i}.png" for i in range(len(images))]
    return LabelledMicrographs(images, masks, names, {0: "background", 1: "particle"}, [None] * len(images))


def make_unlabelled(seed: int = 3, side: int = 8, count: int = 24) -> UnlabelledCrops:
    return UnlabelledCrops([random_image(i) for i in range(4)], EMImageProcessor(), side, count, seed)


def make_labelled(seed: int = 3, side: int = 8, count: int = 24) -> LabelledCrops:
    images = [random_image(i) for i in range(4)]
    return LabelledCrops(labelled(images, [image % 3 for image in images]), EMImageProcessor(), side, count, seed)


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


@pytest.mark.parametrize("make", [make_unlabelled, make_labelled])
def test_a_crop_depends_on_seed_and_index_alone(make):
    first, second, other_seed = make(), make(), make(seed=4)
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


@pytest.mark.parametrize("make", [make_unlabelled, make_labelled])
def test_the_first_crops_do_not_depend_on_how_many_there_are(make):
    few, many = make(count=5), make(count=500)
    assert (len(few), len(many)) == (5, 500)
    for index in range(5):
        for name, value in few[index].items():
            torch.testing.assert_close(value, many[index][name], rtol=0, atol=0)


@pytest.mark.parametrize("make", [make_unlabelled, make_labelled])
def test_an_index_past_the_end_is_an_index_error_so_that_a_for_loop_ends(make):
    with pytest.raises(IndexError):
        make(count=5)[5]


def test_the_key_of_an_unlabelled_crop_is_its_index():
    crops = make_unlabelled()
    assert [int(crops[index]["key"]) for index in (0, 7, 23)] == [0, 7, 23]


def test_unlabelled_crops_hold_the_values_of_the_whole_micrographs_statistics():
    image = random_image(0, (12, 12))
    image[:6] += 5000
    processor = EMImageProcessor()
    whole = processor.normalize(image, processor.statistics(image))
    parts = [whole[row : row + 8, column : column + 8] for row in range(5) for column in range(5)]
    expected = {copy.tobytes() for part in parts for copy in symmetries(part)}
    crops = UnlabelledCrops([image], processor, side=8, count=60, seed=0)
    found = [crops[index]["clean"][0].numpy() for index in range(60)]
    assert all(crop.tobytes() in expected for crop in found)
    assert len({crop.tobytes() for crop in found}) > 40


def test_unlabelled_crops_come_from_every_micrograph_about_equally_often():
    images = [random_image(i, (6, 6)) for i in range(4)]
    processor = EMImageProcessor()
    values = [processor.normalize(image, processor.statistics(image)) for image in images]
    contents = [np.sort(image, axis=None).tobytes() for image in values]
    crops = UnlabelledCrops(images, processor, side=6, count=400, seed=0)
    drawn = [contents.index(np.sort(crops[index]["clean"].numpy(), axis=None).tobytes()) for index in range(400)]
    assert np.bincount(drawn, minlength=4).tolist() == pytest.approx([100] * 4, abs=35)  # 4 standard deviations


def test_labelled_crops_come_from_every_micrograph_once_per_round():
    images = [random_image(i) for i in range(5)]
    data = labelled(images, [np.full(image.shape, i) for i, image in enumerate(images)])
    crops = LabelledCrops(data, EMImageProcessor(), side=8, count=40, seed=2)
    drawn = np.array([int(crops[index]["labels"][0, 0]) for index in range(40)]).reshape(8, 5)
    np.testing.assert_array_equal(np.sort(drawn, axis=1), np.tile(np.arange(5), (8, 1)))
    assert len({tuple(turn) for turn in drawn.tolist()}) > 4


def test_a_rare_class_is_in_far_more_crops_than_with_uniform_sampling(monkeypatch):
    mask = np.zeros((48, 80), np.int64)
    mask[30:32, 60:62] = 1
    data = labelled([random_image(0, mask.shape)], [mask])

    def share() -> float:
        crops = LabelledCrops(data, EMImageProcessor(), side=8, count=300, seed=0)
        return sum(bool((crops[index]["labels"] == 1).any()) for index in range(300)) / 300

    balanced = share()
    monkeypatch.setattr(patches, "CLASS_CENTRED", 0.0)
    uniform = share()
    # half of the crops are centred, half of those on the rare class; a uniform crop meets it in 81 of 3840 places
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
    crops = LabelledCrops(labelled(images, images), processor, side=9, count=100, seed=1)
    for index in range(100):
        item = crops[index]
        image = images[source(item["labels"], images)]
        expected = processor.normalize(item["labels"].numpy(), processor.statistics(image))
        np.testing.assert_array_equal(item["pixel_values"][0].numpy(), expected)


def test_all_eight_symmetries_occur_in_labelled_crops():
    mask = random_image(0, (8, 8)) % 3
    crops = LabelledCrops(labelled([random_image(1, (8, 8))], [mask]), EMImageProcessor(), side=8, count=100, seed=0)
    found = {crops[index]["labels"].numpy().tobytes() for index in range(100)}
    assert found == {copy.astype(np.int64).tobytes() for copy in symmetries(mask)}


@pytest.mark.parametrize("shape", [(5, 7), (3, 40), (12, 4), (1, 1)])
def test_a_micrograph_smaller_than_the_crop_is_mirrored_in_image_and_mask(shape):
    image = random_image(0, shape)
    processor, side = EMImageProcessor(), 13
    rows, columns = (np.array([*range(length), *reversed(range(length))] * side)[:side] for length in shape)
    values = processor.normalize(image, processor.statistics(image))
    unlabelled = UnlabelledCrops([image], processor, side, 20, seed=0)
    with_labels = LabelledCrops(labelled([image], [image]), processor, side, 20, seed=0)
    lefts = range(max(1, shape[1] - side + 1))
    places = [(rows[:, None], columns if left == 0 else np.arange(left, left + side)) for left in lefts]
    expected = {copy.tobytes() for place in places for copy in symmetries(values[place])}
    labels = {copy.tobytes() for place in places for copy in symmetries(image.astype(np.int64)[place])}
    for index in range(20):
        assert unlabelled[index]["clean"][0].numpy().tobytes() in expected
        assert with_labels[index]["pixel_values"][0].numpy().tobytes() in expected
        assert with_labels[index]["labels"].numpy().tobytes() in labels


@pytest.mark.parametrize("value", [0, 1])
def test_a_mask_with_a_single_class_works(value):
    image = random_image(0, (30, 30))
    crops = LabelledCrops(labelled([image], [np.full(image.shape, value)]), EMImageProcessor(), 8, 40, seed=0)
    for index in range(40):
        np.testing.assert_array_equal(crops[index]["labels"].numpy(), np.full((8, 8), value))
    assert len({crops[index]["pixel_values"].numpy().tobytes() for index in range(40)}) > 35


@pytest.mark.parametrize("make", [make_unlabelled, make_labelled])
def test_a_crop_of_a_whole_micrograph_can_be_changed_without_changing_the_micrograph(make):
    """A transform in place would otherwise damage the images and masks in memory for the rest of a training."""
    images = [random_image(0, (8, 8))]
    if make is make_labelled:
        crops = LabelledCrops(labelled(images, [images[0] % 3]), EMImageProcessor(), 8, 40, seed=0)
    else:
        crops = UnlabelledCrops(images, EMImageProcessor(), 8, 40, seed=0)
    before = [{name: value.clone() for name, value in crops[index].items()} for index in range(40)]
    for index in range(40):
        for value in crops[index].values():
            value.fill_(-7)
    for index in range(40):
        for name, value in crops[index].items():
            torch.testing.assert_close(value, before[index][name], rtol=0, atol=0)


def clean_batch(count: int = 6, side: int = 40) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (count, 1, side, side)).astype(np.float32))


@pytest.mark.parametrize("kind", ["paper", "masked"])
def test_the_damage_of_a_crop_depends_on_seed_and_key_and_not_on_its_batch(kind):
    clean, keys = clean_batch(), torch.tensor([5, 0, 17, 3, 1000, 8])
    corrupt = Corruption(kind, CorruptionStrength(), seed=1)
    together = corrupt(clean, keys)
    torch.manual_seed(0)
    np.random.seed(0)
    order = torch.tensor([3, 5, 1, 0, 4, 2])
    shuffled = Corruption(kind, CorruptionStrength(), seed=1)(clean[order], keys[order])
    torch.testing.assert_close(shuffled, together[order], rtol=0, atol=1e-5)
    for index in range(len(clean)):
        alone = corrupt(clean[index : index + 1], keys[index : index + 1])
        torch.testing.assert_close(alone, together[index : index + 1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["paper", "masked"])
def test_another_key_or_seed_gives_other_damage(kind):
    clean = clean_batch(1).expand(8, -1, -1, -1)
    keys = torch.arange(8)
    damaged = Corruption(kind, CorruptionStrength(), seed=1)(clean, keys)
    assert len({crop.numpy().tobytes() for crop in damaged}) == 8
    other = Corruption(kind, CorruptionStrength(), seed=2)(clean, keys)
    assert all((one - two).abs().max() > 0.01 for one, two in zip(damaged, other, strict=True))


@pytest.mark.parametrize("kind", ["paper", "masked"])
@pytest.mark.parametrize("strength", [CorruptionStrength(), NOTHING])
def test_the_clean_crops_are_not_modified(kind, strength):
    clean = clean_batch()
    before = clean.clone()
    Corruption(kind, strength, seed=1)(clean, torch.arange(6)).fill_(9)
    torch.testing.assert_close(clean, before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["paper", "masked"])
def test_damage_of_no_strength_leaves_the_crops_as_they_are(kind):
    clean = clean_batch()
    torch.testing.assert_close(Corruption(kind, NOTHING, seed=1)(clean, torch.arange(6)), clean, rtol=0, atol=0)


@pytest.mark.parametrize("sigmas", [[0.0, 0.0], [0.0, 2.0]])
def test_a_blur_of_zero_leaves_the_image_whatever_the_others_get(sigmas):
    clean = clean_batch(2)
    blurred = gaussian_blur(clean, torch.tensor(sigmas))
    torch.testing.assert_close(blurred[0], clean[0], rtol=0, atol=1e-6)
    assert (blurred[1] - clean[1]).abs().max() > 0.1 or sigmas[1] == 0


def reference_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur (H, W) with a Gaussian that reaches 5 standard deviations, edges mirrored."""
    radius = int(np.ceil(5 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(image, radius, mode="reflect")
    rows = np.apply_along_axis(np.convolve, 0, padded, kernel, mode="valid")
    return np.apply_along_axis(np.convolve, 1, rows, kernel, mode="valid")


def test_the_blur_of_each_image_equals_a_reference_gaussian():
    images = clean_batch(4, side=36)
    images[:, :, :, 18:] = 1  # an edge, and a corner of noise
    images[:, :, 12:, :18] = -1
    sigmas = torch.tensor([0.5, 1.0, 1.5, 2.0])
    blurred = gaussian_blur(images, sigmas)
    for image, found, sigma in zip(images[:, 0].double().numpy(), blurred[:, 0].numpy(), sigmas.tolist(), strict=True):
        np.testing.assert_allclose(found, reference_blur(image, sigma), rtol=0, atol=0.01)
        # the tolerance tells a blur that is a tenth stronger
        assert np.abs(found - reference_blur(image, 1.1 * sigma)).max() > 0.02


def test_a_blur_keeps_a_constant_image_and_is_symmetric_about_a_point():
    images = torch.stack([torch.full((1, 25, 25), 0.7), torch.zeros(1, 25, 25)])
    images[1, 0, 12, 12] = 1
    constant, point = gaussian_blur(images, torch.tensor([1.3, 1.3]))[:, 0]
    torch.testing.assert_close(constant, images[0, 0], rtol=0, atol=1e-6)
    for copy in symmetries(point.numpy()):
        np.testing.assert_allclose(copy, point.numpy(), atol=1e-7)
    offsets = torch.arange(25.0) - 12
    assert float((point.sum(dim=0) * offsets**2).sum()) == pytest.approx(1.3**2, rel=0.04)


def test_a_blur_that_reaches_beyond_the_image_is_refused_with_both_sizes():
    with pytest.raises(EMError, match=r"blur of 4\.0 px reaches 12 px, the image is 12 x 30"):
        gaussian_blur(torch.zeros(1, 1, 12, 30), torch.tensor([4.0]))


@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_the_noise_has_the_standard_deviation_of_its_strength(sigma):
    clean = clean_batch(8, side=64)
    strength = CorruptionStrength(noise=(sigma, sigma), blur=(0.0, 0.0))
    noise = (Corruption("paper", strength, seed=0)(clean, torch.arange(8)) - clean).numpy().reshape(8, -1)
    np.testing.assert_allclose(noise.std(axis=1), sigma, rtol=0.06)  # 5 standard deviations of 4096 samples
    np.testing.assert_allclose(noise.mean(axis=1), 0, atol=0.08 * sigma)
    between = np.corrcoef(noise) - np.eye(8)
    assert np.abs(between).max() < 0.08
    kurtosis = ((noise / noise.std()) ** 4).mean()
    assert kurtosis == pytest.approx(3, abs=0.15)  # Gaussian


def test_each_crop_draws_its_noise_uniformly_from_the_range():
    clean = torch.zeros(200, 1, 24, 24)
    strength = CorruptionStrength(noise=(0.2, 0.6), blur=(0.0, 0.0))
    drawn = Corruption("paper", strength, seed=0)(clean, torch.arange(200)).std(dim=(1, 2, 3))
    assert 0.17 < drawn.min() < 0.25 and 0.55 < drawn.max() < 0.68
    assert float(drawn.mean()) == pytest.approx(0.4, abs=0.04)
    assert float(drawn.std()) == pytest.approx(0.4 / np.sqrt(12), rel=0.2)


@pytest.mark.parametrize(("share", "block"), [(0.2, 4), (0.5, 8)])
def test_masked_hides_its_share_of_the_area_in_blocks(share, block):
    clean = torch.ones(8, 1, 64, 64)
    strength = CorruptionStrength(noise=(0.0, 0.0), blur=(0.0, 0.0), masked_share=(share, share), block=block)
    damaged = Corruption("masked", strength, seed=0)(clean, torch.arange(8))[:, 0]
    assert set(damaged.unique().tolist()) == {0.0, 1.0}
    cells = damaged.reshape(8, 64 // block, block, 64 // block, block)
    torch.testing.assert_close(cells.amin(dim=(2, 4)), cells.amax(dim=(2, 4)), rtol=0, atol=0)  # blocks are whole
    assert float(1 - damaged.mean()) == pytest.approx(share, abs=0.08)
    assert len({crop.numpy().tobytes() for crop in damaged}) == 8


def test_masked_hides_blocks_cut_by_the_edge_where_the_size_is_no_multiple():
    strength = CorruptionStrength(noise=(0.0, 0.0), blur=(0.0, 0.0), masked_share=(0.5, 0.5), block=8)
    damaged = Corruption("masked", strength, seed=0)(torch.ones(6, 1, 20, 13), torch.arange(6))
    for rows in (slice(0, 8), slice(8, 16), slice(16, 20)):
        for columns in (slice(0, 8), slice(8, 13)):
            cell = damaged[:, 0, rows, columns].flatten(1)
            torch.testing.assert_close(cell.amin(dim=1), cell.amax(dim=1), rtol=0, atol=0)
    assert 0.2 < float(damaged[:, :, 16:].mean()) < 0.8


def test_masked_damages_what_it_leaves_visible_as_paper_does():
    clean, keys = clean_batch() + 5, torch.arange(6)
    paper, masked = (Corruption(kind, CorruptionStrength(), seed=1)(clean, keys) for kind in ("paper", "masked"))
    visible = masked != 0
    assert 0.3 < float(visible.float().mean()) < 0.9
    torch.testing.assert_close(masked[visible], paper[visible], rtol=0, atol=0)


def test_an_unknown_corruption_is_refused_with_the_known_ones():
    with pytest.raises(EMError, match="corruption 'rain' is not known; expected one of paper, masked"):
        Corruption("rain", CorruptionStrength(), seed=0)
