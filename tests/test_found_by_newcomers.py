"""What newcomers ran into who had not seen the code: files lost, paths mistyped, data that teach nothing."""

import json
import logging

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from emfm import EMError, EMForSemanticSegmentation, EMFoundationConfig, load_em_dataset, predict, read_micrograph
from emfm.data.sources import is_dataset
from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.hub.arguments import PushArguments
from emfm.hub.datasets.push import describe_dataset
from emfm.inference.files import predict_files
from emfm.loading.model_files import check_checksums
from emfm.loading.names import locate
from emfm.pretraining.pretrain import pretrain
from emfm.simulate.folder import write_simulated_folder
from emfm.tasks import load_model

IMAGE = np.random.default_rng(0).integers(0, 250, (48, 56), dtype=np.uint8)


@pytest.fixture
def labelled(tmp_path):
    for index in range(3):
        for part, values in (("images", np.roll(IMAGE, index)), ("masks", np.eye(48, 56, dtype=np.uint8))):
            (tmp_path / "d" / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(tmp_path / "d" / part / f"{index}.png")
    return tmp_path / "d"


def segmenter():
    torch.manual_seed(0)
    config = EMFoundationConfig.from_name("unet2-rf44", id2label={0: "background", 1: "particle"})
    return EMForSemanticSegmentation(config).eval()


def run(data, output, **settings):
    usual = dict(task="segmentation", model="unet2-rf44", steps=1, batch_size=2, crop=32, precision="fp32")
    return finetune(FinetuneArguments(data=str(data), output=str(output), **usual | settings))


@pytest.mark.parametrize("name", ["README.md", "curve.png", "checksums.json"])
def test_a_file_of_the_users_in_the_output_folder_is_not_replaced(name, labelled, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(EMError, match=f"holds {name}, which the run would replace"):
        run(labelled, tmp_path / "out")
    assert (tmp_path / "out" / name).read_text() == "mine"


@pytest.mark.parametrize("inside", ["", "images", "masks/model"])
def test_a_model_is_not_written_among_the_data(inside, labelled):
    before = sorted(labelled.rglob("*"))
    with pytest.raises(EMError, match="lies among the data"):
        run(labelled, labelled / inside)
    assert sorted(labelled.rglob("*")) == before


def test_a_finished_run_is_not_taken_for_one_from_other_weights(labelled, tmp_path):
    run(labelled, tmp_path / "out")
    with pytest.raises(EMError, match=r"finished with other settings \(start was unet2-rf44, now unet2-rf84\)"):
        run(labelled, tmp_path / "out", model="unet2-rf84", resume=True)
    assert run(labelled, tmp_path / "out", resume=True)["start"] == "unet2-rf44"


def test_a_model_may_lie_in_a_folder_of_its_own_beside_images(labelled):
    run(labelled, labelled / "model")
    assert load_model(labelled / "model").classes


@pytest.mark.parametrize("name", ["masks/old.png", "labels.json", "splits.json"])
def test_simulations_replace_nothing(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(EMError, match=f"holds {name.partition('/')[0]} already"):
        write_simulated_folder("nanoparticles", tmp_path, 3, (32, 32), 0)
    assert (tmp_path / name).read_text() == "mine"


def test_a_mistyped_folder_is_not_looked_for_on_the_hub(labelled, monkeypatch):
    monkeypatch.chdir(labelled.parent)
    with pytest.raises(EMError, match=r"there is no d/imges, though there is a folder d; did you mean images"):
        is_dataset("d/imges")
    with pytest.raises(EMError, match=r"there is no d/model, though there is a folder d"):
        locate("d/model")
    assert is_dataset("somebody/dataset") and locate("somebody/model") == "somebody/model"


def test_micrographs_given_twice_would_be_trained_on_and_held_out(labelled, pretraining, tmp_path):
    images = str(labelled / "images")
    for sources in ((images, images), (str(labelled), images)):
        with pytest.raises(EMError, match="give each micrograph once"):
            pretrain(pretraining(tmp_path / "run", data=sources))


def test_pixel_sizes_of_the_training_are_noted_with_the_model(labelled, tmp_path, caplog):
    for index, size in enumerate((2.0, 4.0, None)):
        (labelled / "images" / f"{index}.png").unlink()
        resolution = {} if size is None else {"resolution": (1e7 / size, 1e7 / size), "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(labelled / "images" / f"{index}.tif", np.roll(IMAGE, index), **resolution)
    assert read_micrograph(labelled / "images" / "0.tif").pixel_size == pytest.approx(2.0)
    (labelled / "splits.json").write_text(json.dumps({"train": ["0.tif", "1.tif"], "validation": ["1.tif"]}))
    run(labelled, tmp_path / "known")
    assert load_model(tmp_path / "known").config.pixel_size_range == pytest.approx([2.0, 4.0])
    (labelled / "splits.json").write_text(json.dumps({"train": ["0.tif", "2.tif"], "validation": ["1.tif"]}))
    run(labelled, tmp_path / "half", model=str(tmp_path / "known"))
    assert load_model(tmp_path / "half").config.pixel_size_range is None
    assert "1 of 2 training micrographs do not say their pixel size" in caplog.text


def test_masks_of_fractions_are_not_told_to_name_them(labelled):
    for index in range(3):
        (labelled / "masks" / f"{index}.png").unlink()
        tifffile.imwrite(labelled / "masks" / f"{index}.tif", np.eye(48, 56, dtype=np.float32) / 2)
    with pytest.raises(EMError, match=r"0\.5 is none that labels.json takes: save whole numbers .* mask > 0\.25"):
        load_em_dataset(labelled)


def test_an_ome_tiff_has_its_mask_by_its_name_without_ome(labelled):
    for index in range(3):
        (labelled / "images" / f"{index}.png").unlink()
        tifffile.imwrite(labelled / "images" / f"{index}.ome.tif", np.roll(IMAGE, index))
    assert len(load_em_dataset(labelled)) == 3


def test_an_empty_object_is_called_empty(labelled):
    (labelled / "labels.json").write_text("{}")
    with pytest.raises(EMError, match=r"labels\.json is empty"):
        load_em_dataset(labelled)


def test_data_that_teach_nothing_are_said(labelled, tmp_path, caplog):
    Image.fromarray(np.full((48, 56), 7, np.uint8)).save(labelled / "images" / "1.png")
    with caplog.at_level(logging.WARNING):
        run(labelled, tmp_path / "a")
    assert "every pixel has the same value in 1.png" in caplog.text
    (labelled / "masks").rename(labelled / "targets")
    for index in range(3):
        (labelled / "targets" / f"{index}.png").write_bytes((labelled / "images" / f"{index}.png").read_bytes())
    with caplog.at_level(logging.WARNING):
        run(labelled, tmp_path / "b", task="denoising")
    assert "the target is the micrograph itself in" in caplog.text


@pytest.mark.parametrize("offset", [0.0, 1e5, 1e7, 1e9])
def test_doubles_far_from_zero_are_seen_as_near_it(offset):
    image = np.random.default_rng(0).random((48, 56))
    model = segmenter()
    np.testing.assert_array_equal(predict(model, image + offset).output, predict(model, image).output)


@pytest.mark.parametrize(("value", "dtype"), [(30000, np.uint16), (7, np.uint8), (-2.5, np.float32), (1e7, np.float64)])
def test_a_flat_micrograph_is_restored_to_itself(value, dtype):
    image = np.full((40, 40), value, dtype)
    np.testing.assert_array_equal(predict("unet2-rf44", image).output, image)


def test_a_result_whose_picture_is_gone_is_made_again(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    predict_files(segmenter(), [tmp_path / "a.png"], tmp_path / "out")
    (tmp_path / "out" / "a_overlay.png").unlink()
    (entry,) = predict_files(segmenter(), [tmp_path / "a.png"], tmp_path / "out")
    assert not entry["skipped"] and (tmp_path / "out" / "a_overlay.png").is_file()


def test_a_dry_run_of_a_push_looks_at_every_image(labelled):
    (labelled / "labels.json").write_text('{"0": "background", "1": "particle"}')
    told = dict(license="mit", citation="me")
    assert "rows" in describe_dataset(labelled, "lab/data", **told)
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(labelled / "masks" / "2.png")
    with pytest.raises(EMError, match=r"2\.png"):
        describe_dataset(labelled, "lab/data", **told)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, path: predict(model, [path]), "got list: files are read by read_micrograph"),
        (lambda model, path: predict(model, 5), r"expected a micrograph of shape \(height, width\), got int"),
        (lambda model, path: predict(IMAGE, model), "model is ndarray; expected a model"),
        (lambda model, path: predict(model, [[1, 2], [3]]), "lists of unequal lengths"),
        (lambda model, path: predict(model, path.parent), "is a folder; expected a file"),
        (lambda model, path: model.processor(str(path)), "got str: files are read by read_micrograph"),
        (lambda model, path: read_micrograph(path, index=1.5), r"index is 1\.5; expected the number of a slice"),
        (lambda model, path: read_micrograph(path, index=True), "index is True; expected the number"),
        (lambda model, path: model(torch.zeros(1, 1, 8, 8), torch.full((1, 8, 8), 255)), "labels hold 255; expected"),
        (lambda model, path: model(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8).long()), "labels have shape"),
        (lambda model, path: PushArguments("lab"), "expected owner/name"),
        (lambda model, path: PushArguments("lab/x", tag="bad tag"), "--tag is 'bad tag'"),
        (lambda model, path: load_em_dataset(path.parents[1])[0], "micrographs are no rows of tensors"),
    ],
)
def test_slips_in_python_are_told_in_words(call, message, labelled):
    with pytest.raises(EMError, match=message):
        call(segmenter(), labelled / "images" / "0.png")


def test_what_python_saved_says_how_to_verify_it(tmp_path):
    segmenter().save_pretrained(tmp_path / "m")
    with pytest.raises(EMError, match=r"has no checksums.json, .*save_pretrained alone writes none"):
        check_checksums(tmp_path / "m")
