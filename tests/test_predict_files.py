"""Files to files: formats, going on after a stop, bad files, several processes, bounded memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from processes import share

from emfm import EMError, EMForSemanticSegmentation, EMForSuperResolution, EMFoundationConfig, predict, read_micrograph
from emfm.cli import main
from emfm.inference.arguments import PredictArguments
from emfm.inference.files import predict_files
from emfm.inference.inputs import expand_inputs
from emfm.inference.result_files import ResultFile, open_result


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = EMFoundationConfig.from_name("unet2-rf44", id2label={0: "a", 1: "b"}, pixel_size_range=[1.0, 4.0])
    return EMForSemanticSegmentation(config).eval()


@pytest.fixture
def folder(tmp_path):
    """Three 16-bit micrographs of 2 nm, one of them higher than wide."""
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name, shape in (("a", (150, 200)), ("b", (120, 90)), ("c", (260, 130))):
        image = rng.integers(0, 4000, shape).astype(np.uint16)
        path = tmp_path / "in" / f"{name}.tif"
        tifffile.imwrite(path, image, resolution=(1e7 / 2, 1e7 / 2), resolutionunit="CENTIMETER")
    return tmp_path / "in"


def run(model, folder, output, **arguments):
    return predict_files(model, expand_inputs([str(folder)], output), output, PredictArguments(**arguments))


@pytest.mark.parametrize("form", ["tif", "npy", "zarr"])
def test_a_result_in_a_file_is_that_of_python(form, model, folder, tmp_path):
    entries = run(model, folder, tmp_path / "out", tile=96, format=form)
    for entry in entries:
        expected = predict(model, entry["input"], tile=96)
        found = np.asarray(open_result(tmp_path / "out" / entry["output"]))
        assert found.dtype == np.uint8 and len(np.unique(found)) == 2
        assert np.array_equal(found, expected.output)
    if form == "tif":
        assert read_micrograph(entry["output"]).pixel_size == pytest.approx(2.0)
    if form == "zarr":
        ome = json.loads((tmp_path / "out" / "a.zarr" / "zarr.json").read_text())["attributes"]["ome"]
        assert ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] == [2.0, 2.0]
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64", ">u2"])
def test_a_restoration_keeps_dtype_and_halves_the_pixel_size(dtype, tmp_path):
    enlarger = EMForSuperResolution(EMFoundationConfig.from_name("unet2-rf44", scale=2)).eval()
    image = np.random.default_rng(0).integers(0, 100, (70, 90)).astype(dtype)
    np.save(tmp_path / "a.npy", image)
    entry = predict_files(enlarger, [tmp_path / "a.npy"], tmp_path / "out", PredictArguments(pixel_size=3.0))[0]
    found = read_micrograph(entry["output"])
    assert found.image.dtype == np.dtype(dtype).newbyteorder("=")
    assert found.pixel_size == pytest.approx(1.5)
    assert np.array_equal(found.image, predict(enlarger, image).output)


def test_a_finished_result_is_skipped_until_input_model_or_settings_change(model, folder, tmp_path):
    out = tmp_path / "out"
    assert [entry["skipped"] for entry in run(model, folder, out)] == [False] * 3
    assert [entry["skipped"] for entry in run(model, folder, out, tile=64)] == [True] * 3  # the same result
    (out / "a.tif").unlink()
    tifffile.imwrite(folder / "b.tif", np.zeros((50, 60), np.uint8))
    assert [entry["skipped"] for entry in run(model, folder, out)] == [False, False, True]
    assert [entry["skipped"] for entry in run(model, folder, out, pixel_size=1.0)] == [False] * 3
    assert [entry["skipped"] for entry in run(model, folder, out, pixel_size=1.0, overwrite=True)] == [False] * 3
    model.class_head.bias.data += 1
    assert all("is the result of another model" in entry["error"] for entry in run(model, folder, out, pixel_size=1.0))
    assert [entry["skipped"] for entry in run(model, folder, out, pixel_size=1.0, overwrite=True)] == [False] * 3


def test_a_run_that_was_stopped_leaves_no_half_result_and_goes_on(model, folder, tmp_path, monkeypatch):
    write, times = ResultFile.write, []

    def stopped(self, row, column, block):
        times.append(self.path.name)
        if len(times) > 6:  # the first has six tiles
            raise KeyboardInterrupt
        write(self, row, column, block)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ResultFile, "write", stopped)
        run(model, folder, tmp_path / "out", tile=120)
    finished = sorted(path.name for path in (tmp_path / "out").glob("*.tif"))
    assert finished and len(finished) < 3
    assert not list((tmp_path / "out").glob(".*"))
    entries = run(model, folder, tmp_path / "out", tile=120)
    assert [entry["skipped"] for entry in entries] == [f"{name}.tif" in finished for name in "abc"]


def test_a_bad_file_is_reported_and_does_not_stop_the_others(model, folder, tmp_path):
    (folder / "b.tif").write_bytes(b"II*\0 broken")
    broken = np.ones((5000, 4000), np.float32)  # so large that its values are looked at tile by tile
    broken[4321, 2345] = np.inf
    np.save(folder / "d.npy", broken)
    entries = run(model, folder, tmp_path / "out", tile=512)
    assert ["error" in entry for entry in entries] == [False, True, False, True]
    assert "b.tif" in entries[1]["error"]
    assert "d.npy" in entries[3]["error"] and "row 4321, column 2345" in entries[3]["error"]
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith((".", "d", "b"))]


def test_names_patterns_and_folders_stand_for_files_but_not_for_results(folder):
    found = expand_inputs([str(folder / "*.tif"), str(folder / "a.tif"), str(folder / "none.tif")], folder / "out")
    assert [given.file.name for given in found] == ["a.tif", "b.tif", "c.tif", "none.tif"]
    (folder / "out").mkdir()
    (folder / "out" / "a.tif").write_bytes((folder / "a.tif").read_bytes())
    assert [given.file.name for given in expand_inputs([str(folder)], folder / "out")] == ["a.tif", "b.tif", "c.tif"]
    with pytest.raises(EMError, match=r"no micrograph matches .*\*.dm9"):
        expand_inputs([str(folder / "*.dm9")], folder / "out")


@pytest.mark.parametrize("wrong", [{"format": "jpg"}, {"pixel_size": 0.0}, {"pixel_size": float("nan")}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(EMError, match="expected"):
        PredictArguments(**wrong)


def test_a_matched_result_is_the_same_in_a_file(model, folder, tmp_path):
    expected = predict(model, folder / "a.tif", match_pixel_size=True).output
    image = tifffile.imread(folder / "a.tif")
    tifffile.imwrite(folder / "a.tif", image, resolution=(1e7 / 0.5, 1e7 / 0.5), resolutionunit="CENTIMETER")
    entry = run(model, folder, tmp_path / "out", match_pixel_size=True)[0]
    found = read_micrograph(entry["output"])
    assert found.pixel_size == pytest.approx(0.5) and found.image.shape == (150, 200)
    again = predict(model, folder / "a.tif", match_pixel_size=True).output
    assert np.array_equal(found.image, again) and not np.array_equal(again, expected)
    assert not list((tmp_path / "out").glob(".*"))


def call_emfm(*arguments: str) -> None:
    sys.argv[1:] = arguments
    main()


def test_two_processes_divide_the_files_and_do_the_last_one_together(model, folder, tmp_path):
    model.save_pretrained(tmp_path / "model")
    (folder / "broken.tif").write_bytes(b"II*\0 broken")
    expected = {name: predict(model, folder / f"{name}.tif", tile=100).output for name in "ac"}
    for form, names in (("zarr", ["a", "broken", "c"]), ("tif", ["c"])):
        files = [str(folder / f"{name}.tif") for name in names]
        command = ["predict", "--tile", "100", "--json", "--format", form, "--model", str(tmp_path / "model")]
        done, other = share(call_emfm, *command, "--output", str(tmp_path / form), *files)
        assert (done.returncode != 0) == (form == "zarr"), done.stderr[-3000:]
        entries = json.loads(done.stdout + other.stdout)  # one of them speaks for both
        assert ["error" in entry for entry in entries] == [name == "broken" for name in names], entries
        assert all(Path(entry["picture"]).is_file() for entry in entries if "output" in entry)
        for name in {"a", "c"} & set(names):
            result = np.asarray(open_result(tmp_path / form / f"{name}.{form}"))
            assert np.array_equal(result, expected[name]), (form, name)
        assert not list((tmp_path / form).glob(".*"))


MEMORY = """
import sys
from pathlib import Path
from benchmarks.tiling import run_memory
print(run_memory(int(sys.argv[1]), Path(sys.argv[2]))["peak_mib"])
"""


@pytest.mark.slow
def test_memory_stays_below_a_gibibyte_and_does_not_grow_with_the_micrograph(tmp_path):
    peaks = []
    for side in (4096, 8192):
        command = [sys.executable, "-c", MEMORY, str(side), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout.splitlines()[-1]))
    assert max(peaks) < 1024 and peaks[1] < 1.15 * peaks[0]


def test_slices_of_a_stack_have_results_of_their_own(model, tmp_path):
    stack = np.random.default_rng(0).integers(0, 4000, (3, 60, 70)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    for index in (1, -1):
        (entry,) = predict_files(
            model, [tmp_path / "stack.tif"], tmp_path / "out", PredictArguments(index=index, pixel_size=2.0)
        )
        assert not entry["skipped"]
        np.testing.assert_array_equal(tifffile.imread(entry["output"]), predict(model, stack[index]).output)
    (again,) = predict_files(
        model, [tmp_path / "stack.tif"], tmp_path / "out", PredictArguments(index=-1, pixel_size=2.0)
    )
    assert again == {**entry, "skipped": True}
    names = ["stack_slice-1.tif", "stack_slice0001.tif"]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tif")) == names
    (refused,) = predict_files(model, [tmp_path / "stack.tif"], tmp_path / "out")
    assert "choose one with index=0 to 2 (--index)" in refused["error"]
