"""Resampling by regions equals resampling of the whole, and Pillow's."""

import numpy as np
import pytest
from PIL import Image

from emfm import EMError, EMForDenoising, EMForSemanticSegmentation, EMFoundationConfig, predict
from emfm.inference.resampling import Resampled, blocks_of, matched
from emfm.io.large_images import release_pages, thinned
from emfm.io.reading import Micrograph
from emfm.processing import as_dtype

IMAGE = np.random.default_rng(0).normal(100, 20, (83, 121)).astype(np.float32)


@pytest.mark.parametrize("shape", [(40, 60), (17, 121), (166, 242), (200, 33), (83, 121)])
def test_cubic_resampling_is_that_of_pillow(shape):
    expected = np.asarray(Image.fromarray(IMAGE).resize(shape[::-1], Image.Resampling.BICUBIC))
    np.testing.assert_allclose(Resampled(IMAGE, shape)[:, :], expected, atol=2e-3)


@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("shape", [(40, 60), (166, 250)])
def test_a_region_is_the_same_as_in_the_whole(shape, nearest):
    image = Resampled(IMAGE, shape, nearest)
    whole = image[:, :]
    assert whole.shape == shape
    np.testing.assert_allclose(image[7:31, 20:55], whole[7:31, 20:55], rtol=1e-6)
    assert np.array_equal(image[3:30:4, ::5], whole[3:30:4, ::5])


def test_nearest_resampling_keeps_class_indices_and_places():
    classes = np.arange(12, dtype=np.uint8).reshape(3, 4)
    larger = Resampled(classes, (6, 8), nearest=True)[:, :]
    assert larger.dtype == np.uint8 and np.array_equal(larger, np.kron(classes, np.ones((2, 2), np.uint8)))
    assert np.array_equal(Resampled(larger, (3, 4), nearest=True)[:, :], classes)


def test_blocks_cover_an_image_once():
    times = np.zeros((1500, 2100), int)
    for region in blocks_of(times.shape):
        times[region] += 1
    assert (times == 1).all()


def test_interpolated_values_are_limited_to_an_integer_dtype():
    assert as_dtype(np.array([-5.0, 3.6, 300.0]), np.uint8).tolist() == [0, 4, 255]


@pytest.mark.parametrize("lazy", [False, True])
def test_a_thinned_image_is_every_nth_pixel_of_a_memory_map_or_a_lazy_image(lazy, tmp_path, monkeypatch):
    monkeypatch.setattr("emfm.io.large_images.READ_PIXELS", 500)
    monkeypatch.setattr("emfm.io.large_images.BLOCK", 16)
    np.save(tmp_path / "image.npy", IMAGE)
    image = np.load(tmp_path / "image.npy", mmap_mode="r")
    source = Resampled(image, image.shape, nearest=True) if lazy else image
    for step in (1, 3, 7, 50):
        assert np.array_equal(thinned(source, step), IMAGE[::step, ::step])


def test_pages_given_back_come_again_and_changes_in_memory_alone_stay(tmp_path):
    np.save(tmp_path / "image.npy", IMAGE)
    image = np.load(tmp_path / "image.npy", mmap_mode="r")
    assert image.sum() == IMAGE.sum()
    release_pages(image[2:])
    assert np.array_equal(image, IMAGE)
    private = np.load(tmp_path / "image.npy", mmap_mode="c")
    private[0, 0] = -1
    release_pages(private)
    assert private[0, 0] == -1


def model_for(pixel_sizes, kind=EMForSemanticSegmentation, **fields):
    config = EMFoundationConfig.from_name("unet2-rf44", pixel_size_range=pixel_sizes, **fields)
    return kind(config).eval()


def test_a_known_pixel_size_out_of_range_warns_in_one_line_that_names_both(caplog):
    model = model_for([1.0, 4.0])
    predict(model, Micrograph(IMAGE, 0.25, "small.tif"))
    assert len(caplog.messages) == 1
    assert all(text in caplog.text for text in ("small.tif", "0.25 nm", "1 to 4", "--match-pixel-size"))
    caplog.clear()
    for pixel_size in (None, 1.0, 3.0, 4.01):
        predict(model, Micrograph(IMAGE, pixel_size, "a.tif"))
    predict(model_for(None), Micrograph(IMAGE, 0.01, "a.tif"))
    assert caplog.messages == []


def test_a_matched_micrograph_is_seen_at_the_nearest_pixel_size_of_the_training():
    model = model_for([1.0, 4.0])
    assert matched(model, Micrograph(IMAGE, 0.5, "a")).image.shape == (42, 60)
    assert matched(model, Micrograph(IMAGE, 8.0, "a")).image.shape == (166, 242)
    inside = Micrograph(IMAGE, 2.0, "a")
    assert matched(model, inside) is inside


def test_a_matched_segmentation_is_that_of_the_resampled_micrograph_taken_back():
    model = model_for([1.0, 4.0], id2label={0: "a", 1: "b"})
    result = predict(model, Micrograph(IMAGE, 0.5, "a"), match_pixel_size=True)
    small = predict(model, Resampled(IMAGE, (42, 60))[:, :]).output
    assert len(np.unique(small)) == 2
    assert result.pixel_size == 0.5
    assert np.array_equal(result.output, Resampled(small, IMAGE.shape, nearest=True)[:, :])


def test_a_matched_restoration_comes_back_in_units_dtype_and_size():
    model = model_for([1.0, 4.0], EMForDenoising, residual=True)  # starts as the identity
    smooth = np.add.outer(np.arange(80) * 5, np.arange(90) * 3).astype(np.uint16) + 1000
    result = predict(model, Micrograph(smooth, 0.5, "a"), match_pixel_size=True).output
    assert result.dtype == np.uint16 and result.shape == smooth.shape
    inner = slice(8, -8), slice(8, -8)
    np.testing.assert_allclose(result[inner].astype(int), smooth[inner].astype(int), atol=2)


def test_matching_needs_a_pixel_size_on_both_sides():
    with pytest.raises(EMError, match="does not say which pixel sizes"):
        predict(model_for(None), Micrograph(IMAGE, 0.5, "a"), match_pixel_size=True)
    with pytest.raises(EMError, match=r"a\.tif does not say its pixel size: give it with --pixel-size"):
        predict(model_for([1.0, 2.0]), Micrograph(IMAGE, None, "a.tif"), match_pixel_size=True)
