import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import SegformerImageProcessor

from emfm.errors import EMError
from emfm.processing import EMImageProcessor


def test_an_option_that_the_processor_does_not_have_is_refused(processor):
    with pytest.raises(EMError, match="does not know do_resize"):
        processor(np.eye(8, dtype=np.uint8), do_resize=True)


def test_a_saved_processor_comes_back_with_its_fields_and_values(tmp_path):
    written = EMImageProcessor(low=5, high=90.5, clip=2)
    written.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert {key: stored[key] for key in ("low", "high", "clip")} == {"low": 5.0, "high": 90.5, "clip": 2.0}
    read = EMImageProcessor.from_pretrained(tmp_path)
    assert (read.low, read.high, read.clip) == (5.0, 90.5, 2.0)
    image = np.random.default_rng(0).integers(0, 60_000, (24, 30)).astype(np.uint16)
    np.testing.assert_array_equal(read(image).pixel_values.numpy(), written(image).pixel_values.numpy())


def test_a_field_given_to_from_pretrained_replaces_the_stored_one(tmp_path):
    EMImageProcessor(low=5, high=90, clip=2).save_pretrained(tmp_path)
    read = EMImageProcessor.from_pretrained(tmp_path, high=80)
    assert (read.low, read.high, read.clip) == (5.0, 80.0, 2.0)


def test_a_stored_field_that_the_processor_does_not_have_is_refused(tmp_path, processor):
    processor.save_pretrained(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"image_mean": 0.5}))
    with pytest.raises(EMError, match="holds image_mean; EMImageProcessor has low, high and clip"):
        EMImageProcessor.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"low": -1}, "low=-1 and high=99.0"),
        ({"high": 101}, "low=1.0 and high=101"),
        ({"low": 50, "high": 50}, "low=50 and high=50"),
        ({"low": float("nan")}, "low=nan"),
        ({"clip": 0.5}, "clip is 0.5"),
        ({"clip": float("nan")}, "clip is nan"),
    ],
)
def test_fields_out_of_range_are_refused_with_their_value(fields, message):
    with pytest.raises(EMError, match=message):
        EMImageProcessor(**fields)


def test_statistics_of_a_large_memory_mapped_image_are_close_to_the_exact_ones(tmp_path, processor):
    side = 2300  # more pixels than SAMPLE_PIXELS
    file = np.lib.format.open_memmap(tmp_path / "large.npy", "w+", np.uint16, (side, side))
    noise = np.random.default_rng(6).integers(0, 400, (side, side), dtype=np.uint16)
    file[:] = noise + np.arange(side, dtype=np.uint16)  # a gradient across the columns
    file.flush()
    mapped = np.load(tmp_path / "large.npy", mmap_mode="r")
    low, high = np.percentile(mapped[:], [1, 99])
    statistics = processor.statistics(mapped)
    assert statistics.scale == pytest.approx((high - low) / 2, rel=0.005)
    assert statistics.offset == pytest.approx((high + low) / 2, abs=0.005 * statistics.scale)


def test_the_class_map_is_the_class_of_the_largest_logit(processor):
    classes = torch.from_numpy(np.random.default_rng(7).integers(0, 3, (2, 5, 6)))
    logits = torch.nn.functional.one_hot(classes, 3).permute(0, 3, 1, 2) * 4.0 - 1.0
    outputs = SimpleNamespace(logits=logits)
    for maps in (
        processor.post_process_semantic_segmentation(outputs),
        processor.post_process_semantic_segmentation(outputs, target_sizes=[(5, 6), (5, 6)]),
    ):
        assert [found.dtype for found in maps] == [torch.int64, torch.int64]
        torch.testing.assert_close(torch.stack(maps), classes)


def test_logits_are_resized_to_the_target_sizes_as_transformers_does(processor):
    outputs = SimpleNamespace(logits=torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0)))
    segformer = SegformerImageProcessor()
    for sizes in ([(10, 12), (7, 3)], [(5, 6), (5, 6)]):
        found = processor.post_process_semantic_segmentation(outputs, sizes, return_segmentation_scores=True)
        expected = segformer.post_process_semantic_segmentation(outputs, sizes, return_segmentation_scores=True)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours.segmentation, theirs.segmentation)
            torch.testing.assert_close(ours.segmentation_scores, theirs.segmentation_scores)
    with pytest.raises(EMError, match="3 target sizes for 2 images"):
        processor.post_process_semantic_segmentation(outputs, [(5, 6)] * 3)
