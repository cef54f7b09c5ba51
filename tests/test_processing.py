import numpy as np
import pytest
import torch
from PIL import Image

from emfm.errors import EMError
from emfm.processing import EMImageProcessor, IntensityStatistics

# 101 steps in random order: their percentiles 1, 50 and 99 are exactly the steps 1, 50 and 99.
STEPS = np.random.default_rng(0).permutation(101).reshape(101, 1)
STEPS_NORMALIZED = (STEPS - 50) / 49
DTYPES = ("bool", "uint8", "uint16", "uint32", "int8", "int16", "int32", "int64", "float16", "float32", "float64")


def random_image(dtype: str, shape: tuple[int, int] = (24, 30), seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random(shape) < 0.4 if dtype == "bool" else (100 * rng.random(shape)).astype(dtype)


def normalized(processor: EMImageProcessor, image: np.ndarray) -> np.ndarray:
    return processor.normalize(image, processor.statistics(image))


@pytest.mark.parametrize(
    ("dtype", "factor", "offset"),
    [
        ("uint8", 1, 0),
        ("uint8", 2, 55),
        ("int8", 1, -50),
        ("uint16", 1, 0),
        ("uint16", 600, 5000),
        ("int16", 300, -20000),
        ("uint32", 1000, 4_000_000_000),
        ("int32", 1000, 1_000_000_000),
        ("int32", 1, -1_000_000_000),
        ("int64", 10**9, -(10**12)),
        ("float16", 0.25, -8),
        ("float32", 0.25, -3),
        ("float32", 64, 1e9 - 1e9 % 64),
        ("float32", 1e-12, 0),
        ("float32", 1e30, 0),
        ("float64", 1e-20, 3e-19),
    ],
)
def test_the_same_scene_has_the_same_network_values_in_any_dtype_and_unit(processor, dtype, factor, offset):
    image = (STEPS * factor + offset).astype(dtype)
    values = normalized(processor, image)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, STEPS_NORMALIZED, rtol=0, atol=1e-5)
    assert values[STEPS == 1] == pytest.approx(-1, abs=1e-6)
    assert values[STEPS == 99] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "int32", "float32"])
def test_an_image_of_zeros_and_ones_becomes_minus_one_and_one(processor, dtype):
    image = (np.indices((20, 20)).sum(axis=0) % 2).astype(dtype)
    np.testing.assert_array_equal(normalized(processor, image), np.where(image, 1.0, -1.0))


def test_low_and_high_choose_the_percentiles_that_become_minus_one_and_one():
    statistics = EMImageProcessor(low=10, high=60).statistics(STEPS.astype(np.uint8))
    assert statistics == IntensityStatistics(offset=35.0, scale=25.0)


@pytest.mark.parametrize("clip", [1.0, 1.5, 3.0])
def test_network_values_are_cut_at_clip_on_both_sides(clip):
    image = np.arange(101, dtype=np.float32).reshape(1, -1)
    image[0, 0], image[0, -1] = -1e6, 1e6
    values = normalized(EMImageProcessor(clip=clip), image)
    assert values[0, 0] == -clip and values[0, -1] == clip
    np.testing.assert_allclose(values[0, 1:-1], (np.arange(1, 100) - 50) / 49, atol=1e-6)


@pytest.mark.parametrize(("dtype", "hot"), [("uint16", 65535), ("int32", 2_000_000_000), ("float32", 1e30)])
def test_one_hot_pixel_does_not_change_the_scale(processor, dtype, hot):
    image = np.random.default_rng(1).normal(1000, 50, (64, 64)).astype(dtype)
    spoiled = image.copy()
    spoiled[10, 20] = hot
    before, after = processor.statistics(image), processor.statistics(spoiled)
    assert after.scale == pytest.approx(before.scale, rel=0.01)
    assert after.offset == pytest.approx(before.offset, abs=0.01 * before.scale)
    assert processor.normalize(spoiled, after)[10, 20] == processor.clip


@pytest.mark.parametrize(("dtype", "high"), [("bool", 1), ("uint8", 1), ("uint8", 255), ("float32", 0.125)])
def test_a_mask_with_few_true_pixels_is_scaled_by_two_standard_deviations(dtype, high):
    processor = EMImageProcessor(clip=20)
    image = np.zeros((100, 100), dtype)
    image.flat[np.random.default_rng(2).choice(10_000, 30, replace=False)] = high  # 0.3 %
    values = normalized(processor, image)
    np.testing.assert_array_equal(values[image == 0], 0)
    np.testing.assert_allclose(values[image != 0], 1 / (2 * np.sqrt(0.003 * 0.997)), rtol=1e-5)
    assert normalized(EMImageProcessor(), image).max() == 3


def test_a_mask_with_few_false_pixels_has_its_background_at_zero():
    image = np.ones((100, 100), bool)
    image[3, 4:34] = False
    values = normalized(EMImageProcessor(clip=20), image)
    np.testing.assert_array_equal(values[image], 0)
    np.testing.assert_allclose(values[~image], -1 / (2 * np.sqrt(0.003 * 0.997)), rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("bool", False),
        ("bool", True),
        *((dtype, value) for dtype in DTYPES if dtype != "bool" for value in (0, 1, 100)),
        *((dtype, np.iinfo(dtype).max) for dtype in ("uint8", "uint16", "uint32", "int32", "int64")),
        *((dtype, np.iinfo(dtype).min) for dtype in ("int8", "int16", "int32")),
        ("float16", 65504),
        ("float32", 0.1),
        ("float32", -1e30),
        ("float32", 1e-30),
        ("float32", np.finfo(np.float32).max),
    ],
)
def test_a_constant_image_becomes_zeros(processor, dtype, value):
    statistics = processor.statistics(np.full((13, 17), value, dtype))
    assert np.isfinite(statistics.scale) and statistics.scale > 0
    values = processor.normalize(np.full((13, 17), value, dtype), statistics)
    np.testing.assert_array_equal(values, np.zeros((13, 17), np.float32))


@pytest.mark.parametrize("level", [1e-9, 0.1, 1.0, 1e5, 1e9, -1e30])
def test_an_image_that_differs_only_by_float_rounding_becomes_nearly_zeros(processor, level):
    image = np.full((32, 32), level, np.float32)
    image[::2] = np.nextafter(image[::2], np.float32(np.inf))
    np.testing.assert_allclose(normalized(processor, image), 0, atol=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
def test_two_close_grey_values_keep_their_contrast(processor, dtype):
    image = np.full((20, 20), 100, dtype)
    image[::2] += 1
    np.testing.assert_array_equal(normalized(processor, image), np.where(image == 101, 1.0, -1.0))


def test_a_part_is_normalized_with_the_statistics_of_the_whole(processor):
    image = random_image("uint16", (40, 40))
    image[:20] += 500
    statistics = processor.statistics(image)
    whole = processor.normalize(image, statistics)
    np.testing.assert_array_equal(processor.normalize(image[20:, 7:19], statistics), whole[20:, 7:19])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    ("nans", "infinities", "message"),
    [
        ([], [(5, 3)], r"1 infinite values, the first at row 5, column 3"),
        ([(1023, 2), (1024, 0)], [(1023, 1)], r"1 infinite values, the first at row 1023, column 1"),
        ([(1300, 2)], [(1400, 0), (1301, 3)], r"2 infinite values, the first at row 1301, column 3"),
    ],
)
def test_infinite_values_are_counted_and_the_first_is_named(processor, dtype, nans, infinities, message):
    image = random_image(dtype, (1500, 4))
    for place in nans:
        image[place] = np.nan
    for sign, place in enumerate(infinities):
        image[place] = np.inf if sign else -np.inf
    with pytest.raises(EMError, match=message):
        processor.statistics(image)
    with pytest.raises(EMError, match=message):
        processor.normalize(image, IntensityStatistics(0.0, 1.0))
    with pytest.raises(EMError, match=message):
        processor([random_image(dtype, (1500, 4)), image])


@pytest.mark.parametrize("dtype", DTYPES)
def test_denormalize_inverts_normalize_to_rounding(dtype):
    processor, image = EMImageProcessor(clip=50), random_image(dtype)
    if dtype in ("int32", "int64"):
        image += 1_000_000_000
    statistics = processor.statistics(image)
    restored = processor.denormalize(processor.normalize(image, statistics), statistics, dtype)
    assert restored.dtype == np.dtype(dtype)
    if image.dtype.kind == "f":
        np.testing.assert_allclose(restored, image, rtol=0, atol=1e-3 if dtype == "float16" else 1e-4)
    else:
        np.testing.assert_array_equal(restored, image)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"])
def test_denormalize_limits_integers_to_the_range_of_the_dtype(processor, dtype):
    limits = np.iinfo(dtype)
    restored = processor.denormalize(np.array([-3.0, 0.0, 3.0]), IntensityStatistics(7.0, 1e30), dtype)
    np.testing.assert_array_equal(restored[:2], np.array([limits.min, 7], dtype))
    # the largest 64-bit integers have no float64 of their own: the nearest below them is fine
    assert 0 <= limits.max - int(restored[2]) <= limits.max // 2**50


def test_denormalize_rounds_integers_to_the_nearest(processor):
    restored = processor.denormalize(np.array([0.49, 0.51, 1.49, -0.51]), IntensityStatistics(10.0, 1.0), np.uint8)
    np.testing.assert_array_equal(restored, np.array([10, 11, 11, 9], np.uint8))


def test_denormalize_cuts_booleans_at_one_half(processor):
    restored = processor.denormalize(np.array([-1.0, -0.01, 0.01, 1.0]), IntensityStatistics(0.5, 0.5), bool)
    np.testing.assert_array_equal(restored, np.array([False, False, True, True]))


def greyscale(mode: str) -> tuple[Image.Image, np.ndarray]:
    """Return a PIL image of a mode and the values that it holds."""
    values = random_image("uint8", seed=4)
    picture = Image.fromarray(values)
    if mode == "I;16":
        values = values.astype(np.uint16) * 300
        picture = Image.fromarray(values)
    elif mode == "1":
        values = values > 50
        picture = Image.fromarray(values)
    elif mode == "F":
        values = values.astype(np.float32) / 7
        picture = Image.fromarray(values)
    elif mode != "L":
        picture = picture.convert(mode)
    assert picture.mode == mode
    return picture, values


@pytest.mark.parametrize("mode", ["L", "I;16", "I", "1", "F", "RGB", "RGBA"])
def test_a_grey_pil_image_gives_the_values_of_its_array(processor, mode):
    picture, values = greyscale(mode)
    np.testing.assert_array_equal(processor(picture).pixel_values[0, 0].numpy(), normalized(processor, values))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "LA"])
def test_a_pil_image_that_is_not_grey_is_refused_with_its_mode(processor, mode):
    colour = np.random.default_rng(5).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    with pytest.raises(EMError, match=f"PIL mode {mode}.*convert"):
        processor(Image.fromarray(colour).convert(mode))


def test_a_list_an_array_and_a_stack_of_micrographs_give_the_same_batch(processor):
    images = [random_image("uint16", seed=seed) * (seed + 1) for seed in range(3)]
    expected = np.stack([normalized(processor, image) for image in images])[:, None]
    stack = np.stack(images)
    for batch in (images, tuple(images), stack, torch.from_numpy(stack), [torch.from_numpy(image) for image in images]):
        np.testing.assert_array_equal(processor(batch).pixel_values.numpy(), expected)
    np.testing.assert_array_equal(processor(images[1]).pixel_values.numpy(), expected[1:2])
    mixed = [images[0], Image.fromarray(images[1]), torch.from_numpy(images[2])]
    np.testing.assert_array_equal(processor(mixed, return_tensors="np").pixel_values, expected)


def test_return_tensors_chooses_torch_or_numpy(processor):
    image = random_image("uint8")
    as_torch, as_numpy = (processor(image, return_tensors=kind)["pixel_values"] for kind in ("pt", "np"))
    assert isinstance(as_torch, torch.Tensor) and as_torch.dtype == torch.float32
    assert isinstance(as_numpy, np.ndarray) and as_numpy.dtype == np.float32
    np.testing.assert_array_equal(as_torch.numpy(), as_numpy)


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.uint8, torch.int32, torch.bool]
)
def test_a_tensor_gives_the_same_values_as_its_array(processor, dtype):
    source = torch.from_numpy(random_image("float32") - 40).abs()
    tensor = (source > 30) if dtype == torch.bool else source.to(dtype)
    array = tensor.numpy() if dtype != torch.bfloat16 else tensor.float().numpy()
    np.testing.assert_array_equal(processor(tensor).pixel_values[0, 0].numpy(), normalized(processor, array))


def test_a_tensor_that_requires_a_gradient_is_accepted(processor):
    tensor = torch.from_numpy(random_image("float32")).requires_grad_()
    values = processor(tensor).pixel_values
    assert not values.requires_grad
    np.testing.assert_array_equal(values[0, 0].numpy(), normalized(processor, tensor.detach().numpy()))


def test_the_micrographs_themselves_are_left_as_they_are(processor):
    image = random_image("float32")
    before = image.copy()
    processor([image, image])
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([np.zeros((4, 5)), np.zeros((4, 6))], r"one size, got \(4, 5\), \(4, 6\)"),
        ([], "one size, got none"),
        (np.zeros((2, 1, 4, 5)), r"\(height, width\), got \(2, 1, 4, 5\)"),
        ([np.zeros((4, 5, 3))], r"\(height, width\), got \(4, 5, 3\)"),
        (np.zeros(7), r"\(height, width\), got \(7,\)"),
        (np.zeros((0, 5)), r"\(height, width\), got \(0, 5\)"),
        (np.zeros((4, 5), np.complex64), "got dtype complex64"),
        (np.full((4, 5), "a"), "got dtype <U1"),
    ],
)
def test_what_is_no_batch_of_micrographs_is_refused_with_what_was_given(processor, images, message):
    with pytest.raises(EMError, match=message):
        processor(images)
