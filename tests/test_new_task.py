"""A task that is defined in one file outside of the package and registered with one line goes the whole way."""

import json
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import toy_task
from conftest import disc_image
from hub_server import HubServer
from huggingface_hub import ModelCard

from emfm import predict
from emfm.cli.application import figures
from emfm.finetuning.evaluate import evaluate
from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.inference.files import predict_files
from emfm.io.reading import read_micrograph
from emfm.io.writing import write_image
from emfm.tasks import TASKS, load_model
from emfm.tasks.task import EMTaskModel


@pytest.fixture(scope="module")
def thicknesses(tmp_path_factory):
    """A folder of six 8-bit micrographs with targets in units of their own: 3 in the discs, 1 elsewhere."""
    folder = tmp_path_factory.mktemp("thicknesses")
    for index in range(6):
        image, mask = disc_image(64, index)
        write_image(folder / "images" / f"{index}.tif", image)
        write_image(folder / "targets" / f"{index}.tif", np.where(mask > 0, 3, 1).astype(np.float32))
    splits = {"train": ["0.tif", "1.tif", "2.tif"], "validation": ["3.tif"], "test": ["4.tif", "5.tif"]}
    (folder / "splits.json").write_text(json.dumps(splits))
    return folder


@pytest.fixture(scope="module")
def trained(thicknesses, tmp_path_factory):
    """The toy task's model folder and the facts of its run."""
    patch = pytest.MonkeyPatch()
    patch.setitem(TASKS, "regression", toy_task.EMForRegression)
    output = tmp_path_factory.mktemp("models") / "thickness"
    settings = dict(scratch="unet2-rf44-w8", steps=40, batch_size=4, crop=48, precision="fp32", learning_rate=5e-3)
    facts = finetune(FinetuneArguments("regression", str(thicknesses), str(output), **settings), show_progress=False)
    yield output, facts
    patch.undo()


def test_it_takes_one_file_of_sixty_lines_and_a_line_to_register():
    assert len(Path(toy_task.__file__).read_text().splitlines()) <= 60
    assert issubclass(toy_task.EMForRegression, EMTaskModel) and "emfm" not in Path(toy_task.__file__).parent.name


def test_it_learns_and_is_measured_in_its_own_units_beside_its_own_trivial_answer(trained, thicknesses):
    output, facts = trained
    curve = json.loads((output / "curve.json").read_text())
    assert facts["task"] == "regression" and facts["figure_of_merit"] == "rmse"
    assert facts["best"]["rmse"] == min(entry["rmse"] for entry in curve) < 0.6
    found = evaluate(output, thicknesses, "test")
    truths = [read_micrograph(thicknesses / "targets" / f"{index}.tif").array for index in (4, 5)]
    nothing = float(np.mean([np.mean(truth**2) for truth in truths])) ** 0.5
    assert found["rmse"] < 0.6 and found["n"] == 2
    assert found["trivial"] == {"rmse": pytest.approx(nothing)}
    assert figures(found) == f"rmse {found['rmse']:.3f}"


def test_it_predicts_arrays_and_files_with_the_report_of_an_image(trained, thicknesses, tmp_path):
    output, _ = trained
    model, path = load_model(output), thicknesses / "images" / "4.tif"
    assert type(model) is toy_task.EMForRegression
    result = predict(model, path).output
    assert result.dtype == np.float32 and result.shape == (64, 64)
    mask = disc_image(64, 4)[1] > 0
    assert result[mask].mean() == pytest.approx(3, abs=0.5) and result[~mask].mean() == pytest.approx(1, abs=0.5)
    (entry,) = predict_files(output, [path], tmp_path)
    np.testing.assert_array_equal(read_micrograph(entry["output"]).array, result)
    assert {"compare", "profile", "profile_picture"} <= set(entry) and not (tmp_path / "labels.json").exists()


def test_it_saves_loads_and_pushes_itself_with_a_card_of_its_own_figures(trained, tmp_path, monkeypatch):
    output, facts = trained
    model = load_model(output)
    model.save_pretrained(tmp_path / "again")
    image = disc_image(64, 5)[0]
    np.testing.assert_array_equal(predict(tmp_path / "again", image).output, predict(model, image).output)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with HubServer() as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        model.push_to_hub("lab/thickness")
        pushed = ModelCard(hub.repos["lab/thickness"].read("main", "README.md").decode())
    (measured,) = pushed.data.eval_results
    assert (measured.metric_type, measured.metric_name, measured.task_name) == ("rmse", "RMSE", "regression")
    assert measured.metric_value == round(facts["best"]["rmse"], 4)
    assert f"| RMSE |\n| --- |\n| {facts['best']['rmse']:.3f} |" in pushed.text
    assert "on 3 micrographs with targets" in pushed.text
    assert "result.output  # one value per pixel, float32" in pushed.text


def test_it_serves_transformers_pipeline_and_is_exported_under_its_own_name(trained, tmp_path):
    from transformers import pipeline

    import emfm.auto  # noqa: F401

    model, image = load_model(trained[0]), disc_image(64, 5)[0]
    np.testing.assert_array_equal(
        pipeline("em-image-to-image", model=model)(image)["image"], predict(model, image).output
    )
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from emfm.export.onnx_file import export_onnx

    export_onnx(model, tmp_path / "values.onnx")
    assert [output.name for output in onnx.load(tmp_path / "values.onnx").graph.output] == ["values"]
