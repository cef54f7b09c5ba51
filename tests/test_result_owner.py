"""Results have one owner, a name of their own, and are never taken for input."""

import json
import logging

import h5py
import numpy as np
import pytest
import tifffile

from emfm import EMError, EMForDenoising, EMForSemanticSegmentation, EMFoundationConfig, read_micrograph
from emfm.inference.arguments import PredictArguments
from emfm.inference.files import predict_files
from emfm.inference.inputs import Input, expand_inputs
from emfm.io import own_output
from emfm.io.reading import list_micrographs, split_dataset


@pytest.fixture(scope="module")
def model():
    names = {0: "background", 1: "particle"}
    return EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44", id2label=names)).eval()


@pytest.fixture(scope="module")
def denoiser():
    return EMForDenoising(EMFoundationConfig.from_name("unet2-rf44")).eval()


@pytest.fixture(autouse=True)
def say_again():
    own_output._say.cache_clear()


def image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.random.default_rng(seed).integers(0, 200, (40, 50)).astype(np.uint8))
    return path


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def run(model, given, output, **arguments):
    return predict_files(model, expand_inputs([str(given)], output), output, PredictArguments(**arguments))


def test_another_models_result_stays_until_overwrite_and_then_all_that_it_brought_goes(model, denoiser, tmp_path):
    a, out = image(tmp_path / "a.tif"), tmp_path / "out"
    run(model, a, out)
    before = {name: (out / name).read_bytes() for name in names(out)}
    (entry,) = run(denoiser, a, out)
    assert "a.tif is the result of another model: choose another --output, or replace it" in entry["error"]
    assert {name: (out / name).read_bytes() for name in names(out)} == before
    run(denoiser, a, out, overwrite=True)
    beside = ["a_compare.png", "a_profile.csv", "a_profile.png", "a_residual.json", "a_residual.png"]
    assert names(out) == sorted(["a.tif", "a.tif.json", *beside, "labels.json"])


def test_a_result_of_another_file_of_the_same_name_stays(model, tmp_path):
    out = tmp_path / "out"
    run(model, image(tmp_path / "one" / "a.tif"), out)
    (entry,) = run(model, image(tmp_path / "two" / "a.tif", 1), out)
    assert "is the result of ../one/a.tif" in entry["error"]


@pytest.mark.parametrize("there", ["a.tif", "a_overlay.png", "labels.json"])
def test_files_that_emfm_did_not_write_are_not_replaced(there, model, tmp_path):
    a, out = image(tmp_path / "a.tif"), tmp_path / "out"
    out.mkdir()
    (out / there).write_text("mine")
    try:
        message = run(model, a, out)[0]["error"]
    except EMError as error:  # labels.json belongs to all results
        message = str(error)
    assert there in message and "--overwrite" in message
    assert names(out) == [there] and (out / there).read_text() == "mine"
    assert "output" in run(model, a, out, overwrite=True)[0]


def test_a_micrograph_is_never_replaced_by_its_result(model, tmp_path):
    a = image(tmp_path / "a.tif")
    content = a.read_bytes()
    for given in (a, tmp_path):
        with pytest.raises(EMError, match=r"would replace the micrograph .*a\.tif: choose another --output"):
            run(model, given, tmp_path, overwrite=True)
    assert names(tmp_path) == ["a.tif"] and a.read_bytes() == content


def test_results_beside_inside_and_above_the_micrographs_are_no_input(model, tmp_path, caplog):
    folder = tmp_path / "in"
    np.save(folder / "a.npy", np.ones((40, 50))) if folder.mkdir() is None else None
    assert [entry["skipped"] for entry in run(model, folder, folder)] == [False]
    assert [entry["skipped"] for entry in run(model, folder, folder)] == [True]
    assert "3 results and pictures that emfm wrote are left out" in caplog.text
    inside = folder / "out"
    assert [entry["skipped"] for entry in run(model, folder, inside)] == [False]
    assert [entry["skipped"] for entry in run(model, folder, inside)] == [True]
    (entry,) = run(model, inside, tmp_path / "again")  # results are input where they are given as such
    assert entry["input"].endswith("a.tif")
    assert [file.name for file in list_micrographs(tmp_path)] == ["a.npy"]


def test_sub_folders_datasets_and_slices_are_in_the_names_of_results(model, tmp_path):
    image(tmp_path / "in" / "day 1" / "a.tif")
    image(tmp_path / "in" / "day 2" / "a.tif", 1)
    run(model, tmp_path / "in", tmp_path / "out")
    assert [name for name in names(tmp_path / "out") if name.endswith(".tif")] == ["day 1/a.tif", "day 2/a.tif"]
    given = Input(tmp_path / "v.h5", "entry:1/raw")
    assert given.result(tmp_path, "tif", 3).name == "v_entry_1_raw_slice0003.tif"
    assert Input(tmp_path / "v.h5").result(tmp_path, "npy", None).name == "v.npy"


def test_a_dataset_is_named_behind_its_file_and_goes_into_the_results_name(model, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 200, (40, 50)).astype(np.uint8)
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["raw"], file["other"] = pixels, pixels.T.copy()
    first, second = (run(model, f"{tmp_path}/v.h5::{name}", tmp_path / "o")[0] for name in ("raw", "other"))
    assert first["output"].endswith("v_raw.tif") and second["output"].endswith("v_other.tif")
    assert tifffile.imread(second["output"]).shape == (50, 40)
    (entry,) = run(model, f"{tmp_path}/*.h5::raw", tmp_path / "o")
    assert entry["skipped"]
    assert split_dataset("C:\\a.h5::raw") == (type(tmp_path)("C:\\a.h5"), "raw")
    odd = image(tmp_path / "a::b.tif")
    assert split_dataset(odd) == (odd, None)


def test_results_of_one_name_are_refused_before_the_work_even_where_case_alone_differs(model, tmp_path):
    pair = [image(tmp_path / "A.tif"), image(tmp_path / "a.tiff")]
    with pytest.raises(EMError, match=r"A\.tif and .*a\.tiff would both become"):
        predict_files(model, pair, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_an_input_left_there_is_no_success(model, tmp_path):
    image(tmp_path / "out" / "a.tif")
    with pytest.raises(EMError, match="holds no micrograph outside"):
        run(model, tmp_path, tmp_path / "out")
    with pytest.raises(EMError, match="no micrograph was given"):
        predict_files(model, [], tmp_path / "o")


def test_a_run_that_was_cut_off_after_its_result_goes_on(model, tmp_path, monkeypatch):
    a, out = image(tmp_path / "a.tif"), tmp_path / "out"
    run(model, a, out)
    record = json.loads((out / "a.tif.json").read_text())
    (out / "a.tif.json").write_text(json.dumps({**record, "unfinished": True}))
    assert not run(model, a, out)[0]["skipped"]
    assert "unfinished" not in json.loads((out / "a.tif.json").read_text())


def test_a_failure_leaves_the_old_result_and_its_record(model, tmp_path, monkeypatch):
    a, out = image(tmp_path / "a.tif"), tmp_path / "out"
    run(model, a, out)
    before = {name: (out / name).read_bytes() for name in names(out)}

    def full(*args, **kwargs):
        raise EMError("no space left on the disk")

    monkeypatch.setattr("emfm.inference.files.Flow.run", full)
    assert "no space left" in run(model, a, out, overwrite=True)[0]["error"]
    assert {name: (out / name).read_bytes() for name in names(out)} == before


def test_a_pixel_size_that_is_stated_wins_over_the_header_with_a_line_that_names_both(model, tmp_path, caplog):
    import mrcfile

    with mrcfile.new(tmp_path / "t.mrc") as file:
        file.set_data(np.random.default_rng(0).integers(0, 200, (40, 50)).astype(np.int16))
        file.voxel_size = 1  # Angstrom
    with caplog.at_level(logging.WARNING):
        (entry,) = run(model, tmp_path / "t.mrc", tmp_path / "o", pixel_size=4.0)
    assert "says 0.1 nm per pixel; the 4 nm that you state are taken" in caplog.text
    assert read_micrograph(entry["output"]).pixel_size == pytest.approx(4.0)
    assert json.loads((tmp_path / "o" / "t_summary.json").read_text())["pixel_size_nm"] == 4.0


def test_masks_beside_images_and_the_files_of_runs_are_no_micrographs(tmp_path):
    kept = [image(tmp_path / "images" / "a.tif"), image(tmp_path / "more" / "b.tif")]
    image(tmp_path / "masks" / "a.tif")
    for name in ("step_10.png", "step_20.png"):
        (tmp_path / "run" / "pictures").mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / "pictures" / name).write_bytes(b"")
    (tmp_path / "run" / "log.jsonl").write_text("")
    (tmp_path / "tuned").mkdir()
    for name in ("finetuning.json", "curve.png"):
        (tmp_path / "tuned" / name).write_text("{}")
    assert list_micrographs(tmp_path) == kept
    assert [path.name for path in list_micrographs(tmp_path / "masks")] == ["a.tif"]
    with pytest.raises(EMError, match="holds no image but what emfm wrote"):
        list_micrographs(tmp_path / "tuned")
