"""A head that is fitted to painted strokes, on features that are kept."""

import numpy as np
import pytest
from conftest import disc_image

from emfm import EMError, EMForSemanticSegmentation, predict
from emfm.finetuning.strokes import StrokeSegmenter

CLASSES = ["background", "disc"]


@pytest.fixture
def network():
    labels = dict(enumerate(CLASSES))
    return EMForSemanticSegmentation.from_pretrained("unet2-rf44", id2label=labels, all_scales=True).eval()


def discs(side):
    image, mask = disc_image(side, 3)
    return image, (mask > 0).astype(int)


def strokes(mask):
    """Two rows of each class, the rest unlabelled."""
    labels = np.full(mask.shape, -1)
    for index in (0, 1):
        rows, columns = np.nonzero(mask == index)
        labels[rows[::7], columns[::7]] = index
    return labels


def test_what_is_fitted_segments_the_rest_and_its_model_predicts_the_same(network, tmp_path):
    image, mask = discs(96)
    segmenter = StrokeSegmenter(network, CLASSES)
    segmenter.fit({"a": image}, {"a": strokes(mask)})
    classes, probability = segmenter.segment("a")
    assert classes.dtype == np.uint8
    assert (classes == mask).mean() > 0.95
    np.testing.assert_allclose(probability.sum(axis=0), 1, atol=1e-4)
    np.testing.assert_array_equal(probability.argmax(axis=0), classes)
    segmenter.model.save_pretrained(tmp_path / "out")
    again = EMForSemanticSegmentation.from_pretrained(tmp_path / "out")
    assert (predict(again, image).output == classes).mean() > 0.999


def test_features_are_computed_once_and_a_correction_counts(network, monkeypatch):
    image, mask = discs(96)
    segmenter = StrokeSegmenter(network, CLASSES)
    passes = []
    of_trunk = type(network.trunk).features
    monkeypatch.setattr(type(network.trunk), "features", lambda trunk, x: passes.append(x.shape) or of_trunk(trunk, x))
    labels = strokes(mask)
    segmenter.fit({"a": image}, {"a": labels})
    segmenter.segment("a")
    before = len(passes)
    swapped = np.where(labels < 0, labels, 1 - labels)
    segmenter.fit({"a": image.copy()}, {"a": swapped})
    classes, _ = segmenter.segment("a")
    assert len(passes) == before == 1
    assert (classes == 1 - mask).mean() > 0.95
    segmenter.fit({"a": image + 1}, {"a": labels})  # another image of this name
    assert len(passes) == 2


def test_a_part_of_a_micrograph_of_several_tiles_is_that_part_of_the_whole(network, monkeypatch):
    monkeypatch.setattr("emfm.finetuning.kept_features.TILE", 64)
    monkeypatch.setattr("emfm.finetuning.kept_features.WHOLE", 64 * 64)
    image, mask = discs(160)
    segmenter = StrokeSegmenter(network, CLASSES, keep_bytes=10**5)
    segmenter.fit({"a": image}, {"a": strokes(mask)})
    whole, probability = segmenter.segment("a")
    assert (whole == mask).mean() > 0.95
    part, of_part = segmenter.segment("a", (30, 50, 100, 131))
    np.testing.assert_array_equal(part, whole[30:100, 50:131])
    np.testing.assert_allclose(of_part, probability[:, 30:100, 50:131], atol=1e-5)


def test_the_place_that_is_suggested_is_one_where_the_head_is_unsure(network):
    image, mask = discs(96)
    segmenter = StrokeSegmenter(network, CLASSES)
    segmenter.fit({"a": image}, {"a": strokes(mask)})
    doubt = segmenter.unsure("a")
    assert (doubt.min() >= 0, doubt.max() <= 1 + 1e-5) == (True, True)
    row, column = segmenter.suggest("a", (10, 20, 60, 90))
    assert (10 <= row < 60, 20 <= column < 90) == (True, True)


def test_what_cannot_be_learnt_is_one_line(network):
    image, mask = discs(96)
    segmenter = StrokeSegmenter(network, CLASSES)
    with pytest.raises(EMError, match="nothing is learnt yet"):
        segmenter.segment(image)
    with pytest.raises(EMError, match="labelled are disc: paint two classes"):
        segmenter.fit({"a": image}, {"a": np.where(mask == 1, 1, -1)})
    with pytest.raises(EMError, match="labelled are no pixels"):
        segmenter.fit({"a": image}, {"a": np.full(mask.shape, 255)})
    with pytest.raises(EMError, match=r"expected integers \(96, 96\)"):
        segmenter.fit({"a": image}, {"a": mask[:50]})
    with pytest.raises(EMError, match="a label of 'a' is 7"):
        segmenter.fit({"a": image}, {"a": np.full(mask.shape, 7)})
    with pytest.raises(EMError, match="labels of 'b', and no micrograph"):
        segmenter.fit({}, {"b": mask})
    with pytest.raises(EMError, match="each once"):
        StrokeSegmenter(network, ["a", "a"])
