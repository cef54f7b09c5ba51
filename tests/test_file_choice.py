"""Dataset and colour can be chosen wherever a micrograph is read, and stacks are taken slice by slice."""

import h5py
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from emfm import EMError, EMForSemanticSegmentation, EMFoundationConfig, load_em_dataset
from emfm.data.unlabelled import Undecoded, open_micrographs
from emfm.finetuning.evaluate import evaluate
from emfm.finetuning.finetune import FinetuneArguments, read_splits
from emfm.inference.arguments import PredictArguments
from emfm.inference.files import predict_files
from emfm.io.reading import FileChoice
from emfm.pretraining.arguments import PretrainArguments
from emfm.processing import EMImageProcessor

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 255, (3, 40, 48, 3), dtype=np.uint8)
MASK = np.zeros((40, 48), np.uint8)
MASK[10:20, 5:30] = 1


@pytest.fixture
def coloured(tmp_path):
    """A labelled folder of colour images."""
    for index, image in enumerate(COLOURS):
        for part, values in (("images", image), ("masks", MASK)):
            (tmp_path / part).mkdir(exist_ok=True)
            Image.fromarray(values).save(tmp_path / part / f"{index}.png")
    return tmp_path


@pytest.fixture
def containers(tmp_path):
    """A labelled folder of HDF5 files with two datasets each."""
    for index, image in enumerate(COLOURS):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "masks").mkdir(exist_ok=True)
        with h5py.File(tmp_path / "images" / f"{index}.h5", "w") as file:
            file["raw"], file["other"] = image[..., 0], image[..., 1]
        Image.fromarray(MASK).save(tmp_path / "masks" / f"{index}.png")
    return tmp_path


def segmenter():
    torch.manual_seed(0)
    return EMForSemanticSegmentation(
        EMFoundationConfig.from_name("unet2-rf44", id2label={0: "background", 1: "class 1"})
    ).eval()


def test_colour_is_chosen_in_training_and_evaluation(coloured):
    with pytest.raises(EMError, match=r"0\.png: a colour image.*colour='luminance'"):
        load_em_dataset(coloured)
    data = load_em_dataset(coloured, choice=FileChoice(colour="green"))
    np.testing.assert_array_equal(data.images, COLOURS[..., 1])
    arguments = FinetuneArguments("segmentation", str(coloured), "out", scratch="unet2-rf44", colour="blue")
    np.testing.assert_array_equal(read_splits(arguments)[0].images[0], COLOURS[0, ..., 2])
    grey = coloured / "grey"
    (grey / "images").mkdir(parents=True)
    for index, image in enumerate(COLOURS):
        Image.fromarray(image[..., 1]).save(grey / "images" / f"{index}.png")
    (grey / "masks").symlink_to(coloured / "masks")
    found = evaluate(segmenter(), coloured, "train", choice=FileChoice(colour="green"))
    assert found == evaluate(segmenter(), grey, "train")


def test_a_dataset_is_chosen_in_training(containers):
    with pytest.raises(EMError, match=r"0\.h5 holds 2 datasets: .*raw.*choose one with"):
        load_em_dataset(containers)
    data = load_em_dataset(containers, choice=FileChoice(dataset="raw"))
    np.testing.assert_array_equal(data.images, COLOURS[..., 0])
    arguments = FinetuneArguments("segmentation", str(containers), "out", scratch="unet2-rf44", dataset="other")
    np.testing.assert_array_equal(read_splits(arguments)[0].images[0], COLOURS[0, ..., 1])


def test_pretraining_takes_every_slice_and_what_is_chosen(coloured, containers, tmp_path):
    processor = EMImageProcessor()
    (tmp_path / "stacks").mkdir()
    stack = RNG.integers(0, 255, (5, 32, 36), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "stacks" / "v.tif", stack, photometric="minisblack")
    tifffile.imwrite(tmp_path / "stacks" / "w.tif", stack[0] // 2, photometric="minisblack")
    expected = [*stack, stack[0] // 2]
    file = [str(tmp_path / "stacks" / name) for name in ("v.tif", "w.tif")]
    for opened in (open_micrographs(str(tmp_path / "stacks"), processor), Undecoded(file, processor)):
        assert len(opened) == 6
        for index, image in enumerate(expected):
            found, statistics = opened[index]
            np.testing.assert_array_equal(found, image)
            assert statistics == processor.statistics(image)
    chosen = open_micrographs(str(containers / "images"), processor, None, FileChoice("raw", "red"))
    assert len(chosen) == 6  # three files of each fixture share the folder


def test_predict_takes_a_dataset_for_all_files_and_names_results_after_it(containers, tmp_path):
    files = [containers / "images" / f"{index}.h5" for index in range(3)]
    entries = predict_files(segmenter(), files, tmp_path / "out", PredictArguments(dataset="raw"))
    alone = predict_files(segmenter(), [f"{files[0]}::raw"], tmp_path / "alone")
    assert [entry["output"] for entry in entries] == [str(tmp_path / "out" / f"{i}_raw.tif") for i in range(3)]
    np.testing.assert_array_equal(tifffile.imread(entries[0]["output"]), tifffile.imread(alone[0]["output"]))
    with pytest.raises(EMError, match=r"dataset is 'raw', but .*0\.h5::other names one, too"):
        predict_files(segmenter(), [f"{files[0]}::other"], tmp_path / "out", PredictArguments(dataset="raw"))


def test_a_dataset_that_no_file_could_hold_is_refused(coloured, tmp_path):
    choice = FileChoice("raw", "red")
    with pytest.raises(EMError, match=r"dataset is 'raw', but .*images holds no file with datasets"):
        load_em_dataset(coloured, choice=choice)
    with pytest.raises(EMError, match=r"dataset is 'raw', but .*images holds no file with datasets"):
        open_micrographs(str(coloured / "images"), EMImageProcessor(), None, choice)
    with pytest.raises(EMError, match="dataset is 'raw', but the input holds no file with datasets"):
        predict_files(segmenter(), [coloured / "images" / "0.png"], tmp_path / "out", PredictArguments(dataset="raw"))


def test_a_dataset_of_rows_has_no_datasets_inside():
    with pytest.raises(EMError, match="lab/rows holds rows of one image each"):
        load_em_dataset("lab/rows", choice=FileChoice(dataset="raw"))
    with pytest.raises(EMError, match="lab/rows holds rows of one image each"):
        PretrainArguments(data=("lab/rows",), output="out", dataset="raw")
    with pytest.raises(EMError, match="colour is 'grey'; expected one of luminance"):
        PretrainArguments(data=("lab/rows",), output="out", colour="grey")
