"""Pairs of micrograph and target: read from folders and datasets, streamed, or made from clean micrographs."""

import json

import numpy as np
import pytest
from conftest import disc_image, waves

from emfm import EMError, EMImageProcessor, load_em_dataset
from emfm.data.augmentation import Augmentation
from emfm.data.croppers import DegradingCropper, PairCropper, StreamedTrainingCrops, TrainingCrops
from emfm.data.examples import CleanMicrographs, LabelledMicrographs, PairedMicrographs
from emfm.data.restoration_pairs import DEGRADATIONS, Degradation, mosaic
from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.io.writing import write_image
from emfm.tasks.segmentation import SegmentationCropper


def image_of(index: int, side: int = 40) -> np.ndarray:
    return waves(index, side).astype(np.uint16) * 100


def enlarged(image: np.ndarray, scale: int) -> np.ndarray:
    return image.repeat(scale, axis=0).repeat(scale, axis=1).astype(np.float32)


@pytest.fixture
def paired_folder(tmp_path):
    """Return a function that writes pairs whose targets are `scale` times as large."""

    def write(scale: int, count: int = 3):
        folder = tmp_path / f"pairs_{scale}"
        for index in range(count):
            write_image(folder / "images" / f"{index}.tif", image_of(index), pixel_size=0.5)
            target = enlarged(image_of(index), scale)
            write_image(folder / "targets" / f"{index}.tif", target)
        return folder

    return write


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_paired_folder_is_read_with_its_scale_and_dtypes(scale, paired_folder):
    data = load_em_dataset(paired_folder(scale))
    assert isinstance(data, PairedMicrographs) and data.scale == scale and data.pixel_sizes == [pytest.approx(0.5)] * 3
    for index in range(3):
        np.testing.assert_array_equal(data.images[index], image_of(index))
        assert data.images[index].dtype == np.uint16 and data.targets[index].dtype == np.float32
        np.testing.assert_array_equal(data.targets[index], enlarged(image_of(index), scale))
    assert data.target_units() == (1.0, 0.0)


def test_pairs_of_other_units_that_do_not_resemble_each_other_are_refused():
    images = [image_of(0, 64)]
    targets = [np.random.default_rng(0).random((64, 64))]
    with pytest.raises(EMError, match="hardly resemble each other"):
        PairedMicrographs(images, ["a"], [None], targets).target_units()


@pytest.mark.parametrize("shape", [(40, 41), (120, 120), (80, 40)])
def test_a_target_of_a_size_that_does_not_fit_is_named_with_both_sizes(shape, paired_folder):
    folder = paired_folder(1, count=1)
    write_image(folder / "targets" / "0.tif", np.zeros(shape, np.float32))
    with pytest.raises(EMError, match=rf"targets/0\.tif is {shape[0]} x {shape[1]} pixels, its image 40 x 40"):
        load_em_dataset(folder)


def test_a_scale_that_differs_within_the_folder_or_from_the_one_asked_for_is_refused(paired_folder):
    folder = paired_folder(2)
    with pytest.raises(EMError, match=r"0\.tif is 80 x 80 pixels.*does not fit the scale 4"):
        load_em_dataset(folder, scale=4)
    write_image(folder / "targets" / "2.tif", image_of(2).astype(np.float32))
    with pytest.raises(EMError, match=r"2\.tif is 40 x 40 pixels.*does not fit the scale 2"):
        load_em_dataset(folder)


def test_a_target_with_infinity_is_refused(paired_folder):
    folder = paired_folder(1)
    broken = image_of(1).astype(np.float32)
    broken[3, 4] = np.inf
    write_image(folder / "targets" / "1.tif", broken)
    with pytest.raises(EMError, match=r"targets/1\.tif holds infinite"):
        load_em_dataset(folder)


def test_a_folder_with_masks_and_targets_has_to_be_told_which(labelled_folder):
    for index in range(6):
        write_image(labelled_folder / "targets" / f"{index}.tif", np.zeros((64, 64), np.float32))
    with pytest.raises(EMError, match="truth='masks' or truth='targets'"):
        load_em_dataset(labelled_folder)
    assert isinstance(load_em_dataset(labelled_folder, truth="masks"), LabelledMicrographs)
    assert isinstance(load_em_dataset(labelled_folder, truth="targets"), PairedMicrographs)


def test_pixels_called_ignore_have_no_truth(labelled_folder):
    (labelled_folder / "labels.json").write_text('{"0": "ignore", "255": "disc", "128": "rim"}')
    data = load_em_dataset(labelled_folder)
    assert data.id2label == {0: "rim", 1: "disc"}
    np.testing.assert_array_equal(data.masks[0], np.where(disc_image(64, 0)[1] == 255, 1, -100))


def test_balanced_weights_are_the_inverse_of_the_share_of_pixels():
    mask = np.array([[0, 0, 0, 1], [-100, -100, 0, 0]], np.int16)
    data = LabelledMicrographs([mask], ["a"], [None], [mask], {0: "a", 1: "b", 2: "c"})
    assert data.balanced_weights() == pytest.approx([6 / (2 * 5), 6 / (2 * 1), 1.0])


def test_a_dataset_holds_the_same_as_a_folder_streamed_or_not(labelled_parquet):
    data = load_em_dataset(labelled_parquet)
    streamed = load_em_dataset(labelled_parquet, streaming=True).take(100)
    assert data.id2label == streamed.id2label == {0: "background", 1: "disc"} and len(data) == len(streamed) == 8
    for index in range(8):
        image, mask = disc_image(64, index)
        for found in (data, streamed):
            np.testing.assert_array_equal(found.images[index], image)
            np.testing.assert_array_equal(found.masks[index], mask // 255)
    assert len(load_em_dataset(labelled_parquet, "validation")) == 1
    with pytest.raises(EMError, match="split 'test'"):
        load_em_dataset(labelled_parquet, "test")
    with pytest.raises(EMError, match="no column 'target'"):
        load_em_dataset(labelled_parquet, truth="targets")


def test_a_stream_of_masks_needs_labels_json_and_a_dataset_in_memory_does_not_where_values_are_classes(
    labelled_parquet,
):
    (labelled_parquet / "labels.json").unlink()
    with pytest.raises(EMError, match=r"no labels\.json"):
        load_em_dataset(labelled_parquet, streaming=True)
    with pytest.raises(EMError, match="grey values 0, 255"):
        load_em_dataset(labelled_parquet)


def test_two_consumers_of_a_stream_see_every_micrograph_once_an_epoch(labelled_parquet):
    stream = load_em_dataset(labelled_parquet, streaming=True)
    known = {disc_image(64, index)[0].tobytes(): index for index in range(8)}
    seen = []
    for consumer in range(2):
        share = stream.epochs(0, consumer, 2)
        rows = [next(share) for _ in range(8)]  # two epochs of four
        assert [epoch for epoch, _, _ in rows] == [0] * 4 + [1] * 4
        seen.append([known[image.tobytes()] for _, _, (image, _) in rows])
    assert sorted(seen[0][:4] + seen[1][:4]) == sorted(seen[0][4:] + seen[1][4:]) == list(range(8))


def test_crops_of_a_stream_are_those_of_the_micrographs_and_repeat(labelled_parquet):
    stream = load_em_dataset(labelled_parquet, streaming=True)
    cropper = SegmentationCropper(EMImageProcessor(), 64, Augmentation(0.0))
    first, second = (iter(StreamedTrainingCrops(stream, cropper, seed=5)) for _ in range(2))
    crops = [next(first) for _ in range(8)]
    sums = sorted(int(crop["labels"].sum()) for crop in crops)
    assert sums == sorted(int((disc_image(64, index)[1] // 255).sum()) for index in range(8))
    for crop in crops:
        again = next(second)
        assert all(np.array_equal(crop[name], again[name]) for name in crop)


def test_a_stream_fine_tunes(labelled_parquet, tmp_path):
    args = FinetuneArguments(
        "segmentation", str(labelled_parquet), str(tmp_path / "out"), scratch="unet2-rf44", steps=40, batch_size=4,
        crop=64, precision="fp32", learning_rate=5e-3, streaming=True,
    )  # fmt: skip
    facts = finetune(args, show_progress=False)
    assert facts["images"] == {"train": None, "validation": 1} and facts["best"]["dice"] > 0.8
    assert "a stream of labelled micrographs" in (tmp_path / "out" / "README.md").read_text()


def clean(count: int = 2, side: int = 160, kind: str = "dose", scale: int = 1) -> CleanMicrographs:
    images = [image_of(index, side) for index in range(count)]
    return CleanMicrographs(images, [str(i) for i in range(count)], [0.5] * count, Degradation(kind, scale))


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_whole_micrographs_are_always_damaged_alike_and_keep_their_units(kind):
    scale = 2 if kind == "downsample" else 1
    first, second = clean(kind=kind, scale=scale).to_measure(), clean(kind=kind, scale=scale).to_measure()
    for index in range(2):
        np.testing.assert_array_equal(first.images[index], second.images[index])
        assert first.images[index].dtype == np.float32
        assert first.images[index].mean() == pytest.approx(image_of(index, 160).mean(), rel=0.25)
        np.testing.assert_array_equal(first.targets[index], image_of(index, 160))
    assert first.pixel_sizes == [0.5 * scale] * 2
    assert first.images[0].shape == (160 // scale, 160 // scale)


def test_larger_pixels_are_the_means_of_those_that_they_replace():
    pair = CleanMicrographs([image_of(0, 83)], ["a"], [None], Degradation("downsample", 4)).to_measure()
    expected = image_of(0, 83)[:80, :80].reshape(20, 4, 20, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(pair.images[0], expected, rtol=1e-5)
    np.testing.assert_array_equal(pair.targets[0], image_of(0, 83)[:80, :80])


def test_crops_of_clean_micrographs_get_a_new_damage_each_and_depend_on_seed_and_index_alone():
    data = clean()

    def crops(seed: int) -> TrainingCrops:
        cropper = DegradingCropper(EMImageProcessor(), 32, Augmentation(0.2), data.degradation)
        return TrainingCrops(data, cropper, 20, seed)

    first, second, other = crops(1), crops(1), crops(2)
    for index in reversed(range(20)):
        for name, value in first[index].items():
            np.testing.assert_array_equal(value, second[index][name])
        assert not np.array_equal(first[index]["pixel_values"], other[index]["pixel_values"])
    noise = [float((first[index]["pixel_values"] - first[index]["labels"]).std()) for index in range(20)]
    assert min(noise) < 0.5 * max(noise)  # doses differ


@pytest.mark.parametrize("kind", ["dose", "paper", "background"])
def test_a_crop_is_scaled_as_the_whole_damaged_micrograph_would_be(kind):
    """The same damage on the whole: its percentiles and those that were estimated from a mosaic agree."""
    rng = np.random.default_rng(0)
    image = (1000 + 400 * rng.random((64, 64)).repeat(8, 0).repeat(8, 1)).astype(np.uint16)
    degradation, processor = Degradation(kind), EMImageProcessor()
    statistics = processor.statistics(image)
    values = processor.normalize(image, statistics)
    for index in range(4):
        whole = processor.statistics(degradation(values, 0, index))
        estimated = processor.statistics(degradation(mosaic(values), 0, index))
        assert estimated.scale == pytest.approx(whole.scale, rel=0.2)
        assert estimated.offset == pytest.approx(whole.offset, abs=0.2 * whole.scale)


def test_a_pairs_crop_and_its_target_are_cut_and_turned_alike(paired_folder):
    data = load_em_dataset(paired_folder(2))
    cropper = PairCropper(EMImageProcessor(clip=100), 24, Augmentation(0.0), data.scale)
    crops = TrainingCrops(data, cropper, 30, seed=0)
    for index in range(30):
        crop = crops[index]
        expected = crop["pixel_values"].repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        np.testing.assert_allclose(crop["labels"], expected, atol=1e-5)


def test_a_micrograph_too_small_for_the_damage_is_named(tmp_path):
    write_image(tmp_path / "images" / "tiny.tif", image_of(0, 20))
    (tmp_path / "splits.json").write_text(json.dumps({"train": ["tiny.tif"]}))
    with pytest.raises(EMError, match=r"tiny\.tif is 20 x 20 pixels; 'downsample' needs at least 32"):
        load_em_dataset(tmp_path, degrade="downsample")
