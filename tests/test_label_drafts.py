"""Drafts: predictions count only where somebody has looked, and fine-tuning goes on from the last model."""

import json

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from test_cli import emfm, segmenter  # noqa: F401  (fixtures)

from emfm import EMForDenoising, EMForSemanticSegmentation, EMFoundationConfig, predict
from emfm.data.datasets import load_em_dataset
from emfm.errors import EMError
from emfm.labels.arguments import ReviewArguments
from emfm.labels.drafts import draft_labels
from emfm.labels.review import mark_reviewed


def read(path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.fixture
def drafted(segmenter, labelled_folder, tmp_path):  # noqa: F811
    """A folder with drafts of three images."""
    files = [labelled_folder / "images" / f"{index}.png" for index in range(3)]
    draft_labels(segmenter, files, tmp_path / "drafted")
    return tmp_path / "drafted"


def test_a_draft_is_the_prediction_and_counts_for_nothing(drafted, segmenter, labelled_folder):  # noqa: F811
    wanted = predict(segmenter, labelled_folder / "images" / "1.png").output
    np.testing.assert_array_equal(read(drafted / "drafts" / "1.png"), wanted)
    assert (read(drafted / "masks" / "1.png") == 255).all()
    assert json.loads((drafted / "labels.json").read_text()) == {"0": "background", "1": "disc", "255": "ignore"}
    assert json.loads((drafted / "review.json").read_text())["1.png"] == {"reviewed": [], "model": str(segmenter)}
    with pytest.raises(EMError, match="has no images in a split 'train'"):
        load_em_dataset(drafted)


def test_only_reviewed_regions_are_learnt_from(drafted):
    draft = read(drafted / "drafts" / "1.png").astype(int)
    made = mark_reviewed(drafted, "1.png", ReviewArguments(box=("4,8,20,16", "40,40,8,8")))
    assert made.share == (20 * 16 + 64) / 64**2
    data = load_em_dataset(drafted)
    seen = np.zeros((64, 64), dtype=bool)
    seen[8:24, 4:24] = seen[40:48, 40:48] = True
    assert data.names == ["1.png"]
    np.testing.assert_array_equal(data.masks[0], np.where(seen, draft, -100))
    assert mark_reviewed(drafted, "images/1.png").share == 1.0
    np.testing.assert_array_equal(load_em_dataset(drafted).masks[0], draft)


def test_corrections_are_made_in_the_draft_and_none_in_the_mask_is_lost(drafted):
    corrected = np.zeros((64, 64), dtype=np.uint8)
    corrected[10:20, 10:20] = 1
    Image.fromarray(corrected).save(drafted / "drafts" / "0.png")
    mark_reviewed(drafted, "0")  # without its suffix, as people write it
    np.testing.assert_array_equal(read(drafted / "masks" / "0.png"), corrected)
    mask = corrected.copy()
    mask[30:40, 30:40] = 1
    Image.fromarray(mask).save(drafted / "masks" / "0.png")
    with pytest.raises(EMError, match=r"masks/0\.png holds other labels than the draft in 100 pixels .*: --overwrite"):
        mark_reviewed(drafted, "0.png")
    mark_reviewed(drafted, "0.png", ReviewArguments(overwrite=True))
    np.testing.assert_array_equal(read(drafted / "masks" / "0.png"), corrected)


def test_a_new_draft_leaves_what_is_reviewed(drafted, segmenter):  # noqa: F811
    mark_reviewed(drafted, "2.png", ReviewArguments(box=("0,0,16,16",)))
    mask = read(drafted / "masks" / "2.png")
    image = drafted / "images" / "2.png"
    with pytest.raises(EMError, match=r"drafts/2\.png is there: --overwrite replaces drafts, not what is reviewed"):
        draft_labels(segmenter, [image], drafted)
    torch.manual_seed(1)
    config = EMFoundationConfig.from_name("unet2-rf44", id2label={0: "background", 1: "disc"})
    other = EMForSemanticSegmentation(config)
    draft_labels(other, [image], drafted, overwrite=True)
    np.testing.assert_array_equal(read(drafted / "masks" / "2.png"), mask)
    np.testing.assert_array_equal(read(drafted / "drafts" / "2.png"), predict(other, image).output)
    assert json.loads((drafted / "review.json").read_text())["2.png"]["reviewed"] == [[0, 0, 16, 16]]


def test_drafts_join_a_folder_with_grey_values_of_its_own(labelled_folder, segmenter, tmp_path):  # noqa: F811
    new = tmp_path / "new.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64), dtype=np.uint8)).save(new)
    (labelled_folder / "splits.json").unlink()  # now every image is for training
    draft_labels(segmenter, [new], labelled_folder)
    labels = json.loads((labelled_folder / "labels.json").read_text())
    assert labels == {"0": "background", "255": "disc", "254": "ignore"}
    np.testing.assert_array_equal(
        read(labelled_folder / "drafts" / "new.png"), predict(segmenter, new).output.astype(np.uint8) * 255
    )
    splits = json.loads((labelled_folder / "splits.json").read_text())
    assert splits == {"train": [f"{index}.png" for index in range(6)], "draft": ["new.png"]}
    assert load_em_dataset(labelled_folder).names == splits["train"]


def test_masks_that_are_there_keep_their_format_and_labels(labelled_folder, segmenter):  # noqa: F811
    tifffile.imwrite(labelled_folder / "masks" / "0.tif", read(labelled_folder / "masks" / "0.png") > 0)
    (labelled_folder / "masks" / "0.png").unlink()
    truth = load_em_dataset(labelled_folder, "train").masks[0]
    draft_labels(segmenter, [labelled_folder / "images" / "0.png"], labelled_folder)
    np.testing.assert_array_equal(load_em_dataset(labelled_folder, "train").masks[0], truth)  # which it stays
    mark_reviewed(labelled_folder, "0.png", ReviewArguments(box=("0,0,8,8",), overwrite=True))
    draft = read(labelled_folder / "drafts" / "0.png")
    seen = load_em_dataset(labelled_folder, "train").masks[0]
    np.testing.assert_array_equal(seen[:8, :8], draft[:8, :8] // 255)
    np.testing.assert_array_equal(seen[8:], truth[8:])


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("0,0,64", "--box is '0,0,64'; expected X,Y,WIDTH,HEIGHT"),
        ("60,0,10,10", "--box is 60,0,10,10; expected a region within the image of 64 x 64 pixels"),
        ("0,0,0,10", "expected a region within"),
    ],
)
def test_a_region_that_cannot_be_is_one_line(box, message, drafted):
    with pytest.raises(EMError, match=message):
        mark_reviewed(drafted, "0.png", ReviewArguments(box=(box,)))
    assert (read(drafted / "masks" / "0.png") == 255).all()


def test_what_cannot_be_drafted_or_reviewed_is_one_line(drafted, labelled_folder, segmenter, tmp_path):  # noqa: F811
    with pytest.raises(EMError, match=r"has no draft of 7\.png; did you mean"):
        mark_reviewed(drafted, "7.png")
    with pytest.raises(EMError, match=r"has no review\.json, so no drafts: emfm labels draft makes them"):
        mark_reviewed(labelled_folder, "0.png")
    denoiser = EMForDenoising(EMFoundationConfig.from_name("unet2-rf44"))
    with pytest.raises(EMError, match=r"drafts need a model for segmentation; .* is a EMForDenoising"):
        draft_labels(denoiser, [labelled_folder / "images" / "0.png"], tmp_path / "new")
    other = EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44", id2label={0: "background", 1: "pore"}))
    with pytest.raises(EMError, match="has no class pore of the model; it has background, disc, ignore"):
        draft_labels(other, [labelled_folder / "images" / "4.png"], drafted)
    (drafted / "review.json").write_text('{"0.png": {"reviewed": [[1, 2]]}}')
    with pytest.raises(EMError, match=r"'0\.png' has the region \[1, 2\]; expected \[x, y, width, height\]"):
        mark_reviewed(drafted, "0.png")


def test_from_a_draft_to_the_next_model(emfm, segmenter, labelled_folder, tmp_path):  # noqa: F811
    folder = tmp_path / "round"
    images = labelled_folder / "images"
    code, stdout, _ = emfm("labels", "draft", segmenter, images / "0.png", images / "1.png", "--output", folder)
    assert code == 0 and stdout.startswith("2 drafts: correct ")
    truth = (read(labelled_folder / "masks" / "0.png") > 0).astype(np.uint8)
    Image.fromarray(truth).save(folder / "drafts" / "0.png")  # corrected by hand
    code, stdout, _ = emfm("labels", "review", folder, "0.png", "--box", "0,0,64,40")
    assert (code, stdout) == (0, "0.png: 62.5% of the pixels are reviewed\n")
    words = ["--model", segmenter, "--data", folder, "--output", tmp_path / "next", "--steps", 8, "--crop", 32]
    code, stdout, stderr = emfm("finetune", "segmentation", *words, "--batch-size", 2, "--json")
    assert code == 0, stderr
    assert json.loads(stdout)["images"]["train"] == 1
    code, _, _ = emfm("labels", "draft", tmp_path / "next", images / "2.png", "--output", folder)
    assert code == 0 and set(json.loads((folder / "review.json").read_text())) == {"0.png", "1.png", "2.png"}
