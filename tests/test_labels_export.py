"""`emfm labels export`: what is read back is what was there, to the pixel."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks
from test_cli import emfm  # noqa: F401  (a fixture)

from emfm.data.datasets import load_em_dataset
from emfm.errors import EMError
from emfm.labels.arguments import ExportArguments, ImportArguments
from emfm.labels.exporting import export_labels
from emfm.labels.importing import import_labels

PROGRAMS = ["labelme", "coco", "qupath", "imagej", "napari"]
KINDS = {
    "background": {"0": "background", "100": "cell", "200": "pore"},
    "no background": {"0": "membrane", "100": "cell", "200": "pore"},
    "ignored": {"0": "background", "100": "cell", "200": "pore", "255": "ignore"},
}


def labelled(folder, kind: str) -> None:
    """Write a folder of two images whose masks are ragged: holes, corners that touch, single pixels."""
    rng = np.random.default_rng(4)
    for part in ("images", "masks"):
        (folder / part / "day 1").mkdir(parents=True)
    for name in ("a.png", "day 1/b.png"):
        coarse = rng.choice([0, 0, 100, 200], (12, 15)).astype(np.uint8)
        mask = np.kron(coarse, np.ones((3, 4), dtype=np.uint8))
        noisy = rng.random(mask.shape) < 0.05
        mask[noisy] = rng.choice([0, 100, 200], int(noisy.sum()))
        if kind == "ignored":
            mask[rng.random(mask.shape) < 0.2] = 255
        Image.fromarray(rng.integers(0, 255, mask.shape, dtype=np.uint8)).save(folder / "images" / name)
        Image.fromarray(mask).save(folder / "masks" / name)
    (folder / "labels.json").write_text(json.dumps(KINDS[kind]))


def named(data) -> list[np.ndarray]:
    """Return masks as names of classes, which do not depend on the classes' order."""
    names = {**data.id2label, -100: "ignore"}
    return [np.vectorize(names.get)(mask) for mask in data.masks]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", PROGRAMS)
def test_masks_come_back_to_the_pixel(form, kind, tmp_path):
    labelled(tmp_path / "data", kind)
    made = export_labels(tmp_path / "data", tmp_path / "out", ExportArguments(format=form))
    how = ImportArguments(
        format=form, images=str(tmp_path / "data" / "images"), unlabelled=made.unlabelled, classes=made.classes
    )
    import_labels(tmp_path / "out", tmp_path / "back", how)
    before, after = load_em_dataset(tmp_path / "data"), load_em_dataset(tmp_path / "back")
    assert before.names == after.names and set(before.id2label.values()) == set(after.id2label.values())
    for one, other in zip(named(before), named(after), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("form", PROGRAMS)
def test_objects_come_back_to_the_pixel(form, tmp_path):
    labelled(tmp_path / "data", "background")
    (tmp_path / "data" / "instances" / "day 1").mkdir(parents=True)
    for name in ("a.png", "day 1/b.png"):
        mask = np.asarray(Image.open(tmp_path / "data" / "masks" / name)).astype(int)
        rows, columns = np.indices(mask.shape)
        ids = np.where(mask > 0, mask // 100 * 10 + rows // 12 * 2 + columns // 30, 0)
        Image.fromarray(ids.astype(np.uint16)).save(tmp_path / "data" / "instances" / name)
    export_labels(tmp_path / "data", tmp_path / "out", ExportArguments(format=form, instances=True))
    how = ImportArguments(format=form, images=str(tmp_path / "data" / "images"), instances=True)
    import_labels(tmp_path / "out", tmp_path / "back", how)
    before, after = (load_em_dataset(tmp_path / part, truth="instances") for part in ("data", "back"))
    for one, other in zip(before.ids, after.ids, strict=True):
        pairs = set(zip(one.ravel().tolist(), other.ravel().tolist(), strict=True))
        assert len(pairs) == len(np.unique(one)) == len(np.unique(other)) and (0, 0) in pairs


def test_pycocotools_reads_what_is_written_for_coco(tmp_path):
    labelled(tmp_path / "data", "background")
    export_labels(tmp_path / "data", tmp_path / "out", ExportArguments(format="coco"))
    content = json.loads((tmp_path / "out" / "annotations.json").read_text())
    mask = np.asarray(Image.open(tmp_path / "data" / "masks" / "a.png"))
    assert [category["name"] for category in content["categories"]] == ["cell", "pore"]
    for category, value in ((1, 100), (2, 200)):
        found = [part for part in content["annotations"] if (part["image_id"], part["category_id"]) == (1, category)]
        together = sum(coco_masks.decode(part["segmentation"]) for part in found)
        np.testing.assert_array_equal(together, mask == value)
        areas = [int(coco_masks.area(part["segmentation"])) for part in found]
        assert [part["area"] for part in found] == areas


def test_the_command_says_how_to_come_back(emfm, tmp_path):  # noqa: F811
    labelled(tmp_path / "data", "ignored")
    code, stdout, _ = emfm(
        "labels", "export", tmp_path / "data", "--format", "qupath", "--output", tmp_path / "out", "--json"
    )
    back = json.loads(stdout)["import"]
    assert code == 0 and back.startswith("emfm labels import ") and back.endswith("--unlabelled ignore")
    code, stdout, _ = emfm(*back.split()[1:], "--output", tmp_path / "back", "--json")
    assert code == 0 and json.loads(stdout)["classes"] == ["background", "cell", "pore"]


def test_a_folder_in_use_and_other_formats_are_refused(emfm, labelled_folder, tmp_path):  # noqa: F811
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    code, _, stderr = emfm("labels", "export", labelled_folder, "--output", tmp_path / "out")
    assert (code, stderr) == (2, f"emfm: {tmp_path / 'out'} is not empty: choose another --output\n")
    with pytest.raises(EMError, match="format is 'via'; expected one of labelme, coco, qupath, imagej, napari"):
        ExportArguments(format="via")
