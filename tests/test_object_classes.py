"""Objects of several classes: read, learnt with one network, predicted, measured and shown by class."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from test_cli import emfm  # noqa: F401  (a fixture)

from emfm import EMError, EMFoundationConfig, load_em_dataset, predict
from emfm.data.augmentation import Augmentation
from emfm.data.examples import IGNORED, LabelledMicrographs
from emfm.data.object_crops import ObjectCropper
from emfm.data.objects import BOUNDARY, INSIDE, UNKNOWN, LabelledObjects, object_map, with_classes
from emfm.finetuning.evaluate import evaluate
from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.processing import EMImageProcessor
from emfm.tasks import TASKS, load_model
from emfm.tasks.instance_metrics import InstanceMetrics
from emfm.tasks.instances import EMForInstanceSegmentation
from emfm.tasks.watershed import packed, separate

NAMES = {0: "bright", 1: "dark"}


def drawn(seed, side=96):
    """Bright and dark discs that touch: micrograph, numbers, and a class image with a speck of error."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((side, side))
    places = [(y + rng.integers(-2, 3), x + rng.integers(-2, 3)) for y in (20, 38, 70) for x in (18, 36, 70)]
    distances = np.stack([np.hypot(rows - y, columns - x) for y, x in places])
    ids = np.where(distances.min(axis=0) <= 9, distances.argmin(axis=0) + 1, 0).astype(np.int32)
    kinds = np.where(ids == 0, 0, np.where(ids % 2 == 1, 100, 200)).astype(np.uint8)
    image = np.select([kinds == 100, kinds == 200], [210, 150], 70) + rng.normal(0, 8, ids.shape)
    y, x = places[0]
    kinds[y, x] = 200  # a pixel of another class does not change an object's
    return image.clip(0, 255).astype(np.uint8), ids, kinds


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "kinds"
    names = [f"{number}.png" for number in range(6)]
    for kind in ("images", "instances", "masks"):
        (place / kind).mkdir(parents=True)
    for number, name in enumerate(names):
        image, ids, kinds = drawn(number)
        Image.fromarray(image).save(place / "images" / name)
        Image.fromarray(ids.astype(np.uint16)).save(place / "instances" / name)
        Image.fromarray(kinds).save(place / "masks" / name)
    (place / "labels.json").write_text('{"0": "background", "100": "bright", "200": "dark", "255": "ignore"}')
    (place / "splits.json").write_text(json.dumps({"train": names[:4], "validation": names[4:5], "test": names[5:]}))
    return place


def test_each_object_has_the_class_of_the_most_of_its_pixels(folder):
    data = TASKS["instances"].load(folder, "train", None, None)
    assert data.id2label == NAMES
    ids, classes = data.truth(0)
    assert (classes[ids == 0] == IGNORED).all()
    assert all((classes[ids == number] == (number + 1) % 2).all() for number in range(1, 10))


def test_ignored_pixels_of_the_mask_are_unknown_and_an_object_of_no_class_stays_an_object(folder):
    mask = np.asarray(Image.open(folder / "masks" / "0.png")).copy()
    ids = np.asarray(Image.open(folder / "instances" / "0.png"))
    mask[:4] = 255
    mask[ids == 5] = 0
    Image.fromarray(mask).save(folder / "masks" / "0.png")
    numbers, classes = TASKS["instances"].load(folder, "train", None, None).truth(0)
    assert (numbers[:4][ids[:4] == 0] == UNKNOWN).all()
    assert (numbers[ids == 5] == 5).all() and (classes[ids == 5] == IGNORED).all()


def test_of_one_class_or_of_two_that_are_only_named_nothing_is_learnt(folder):
    (folder / "labels.json").write_text('{"0": "background", "100": "particle", "200": "particle"}')
    data = TASKS["instances"].load(folder, "train", None, None)
    assert data.classes is None and data.id2label == {} and data.truth(0).ndim == 2
    assert (data.ids[0] != UNKNOWN).all()


def test_the_parts_of_masks_have_the_class_that_they_are_parts_of(folder):
    for path in (folder / "instances").iterdir():
        path.unlink()
    (folder / "instances").rmdir()
    data = TASKS["instances"].load(folder, "train", None, None)
    ids, classes = data.truth(1)
    mask = load_em_dataset(folder, "train").masks[1]
    assert data.id2label == NAMES
    np.testing.assert_array_equal(classes[ids > 0] + 1, mask[ids > 0])


def test_crops_hold_objects_and_classes_at_the_same_pixels():
    image, ids, kinds = drawn(0)
    masks = LabelledMicrographs(
        [image],
        ["a"],
        [None],
        [np.searchsorted([0, 100, 200], kinds).astype(np.int16)],
        {0: "background", 1: "bright", 2: "dark"},
    )
    data = with_classes(LabelledObjects([image], ["a"], [None], [ids]), masks)
    for strength in (0.0, 1.0):
        cropper = ObjectCropper(EMImageProcessor(), 64, Augmentation(0.0, strength))
        prepared = cropper.prepare(image, data.truth(0))
        for index in range(5):
            objects, classes = cropper.crop(prepared, (0, 0, index))["labels"]
            np.testing.assert_array_equal((objects > 0).numpy(), (classes >= 0).numpy())


def perfect(ids, classes):
    target = object_map(ids)
    edge = target >= BOUNDARY
    distance = np.where(edge, target - BOUNDARY, np.where(target > 0, target - INSIDE, 0))
    kinds = [(classes == index).astype(np.float32) for index in range(3)]
    return np.stack([target > 0, edge, distance, *kinds]).astype(np.float32)


def test_an_object_gets_its_class_across_blocks(monkeypatch):
    monkeypatch.setattr("emfm.tasks.watershed.BLOCK", (32, 48))
    monkeypatch.setattr("emfm.tasks.watershed.BEYOND", 32)
    _, ids, _ = drawn(3)
    truth = np.where(ids > 0, ids % 3, 0)
    noisy = np.where(np.random.default_rng(0).random(ids.shape) < 0.3, 2, truth)
    found = np.zeros(ids.shape, np.uint32)

    def write(row, column, block):
        found[row : row + block.shape[0], column : column + block.shape[1]] = block

    kinds = separate(packed(perfect(ids, noisy)), write, 3).argmax(axis=1)
    assert found.max() == 9
    for number in range(1, 10):
        assert kinds[number] == truth[found == number][0]


def test_figures_of_a_class_count_its_objects_alone():
    ids = np.zeros((40, 120), np.int64)
    ids[10:20, 10:20], ids[10:20, 40:50], ids[10:20, 70:80], ids[10:20, 100:110] = 1, 2, 3, 4
    of = np.array([0, 0, 1, 1, IGNORED])
    truth = np.stack([ids, of[ids]])
    found = np.stack([ids, np.array([0, 0, 1, 0, 1])[ids]])  # 3 is called the other class, 4 has none
    metrics = InstanceMetrics(NAMES)
    metrics.add(found, truth, 2.0)
    result = metrics.result()
    assert result["ap50"] == result["pq"] == 1 and result["size_distance_nm"] == 0
    assert result["per_class"]["bright"]["ap50"] == 0.5 and result["per_class"]["bright"]["count_error"] == 1
    assert result["per_class"]["dark"]["ap50"] == 0.5 and result["per_class"]["dark"]["count_error"] == 0.5
    empty = InstanceMetrics(NAMES)
    empty.add(np.zeros_like(ids), np.stack([np.where(ids == 1, 1, 0), np.zeros_like(ids)]))
    assert empty.result()["per_class"]["dark"]["ap50"] is None and empty.result()["per_class"]["bright"]["ap50"] == 0


def test_sizes_are_compared_in_nm_where_all_pixel_sizes_are_known():
    small, large = np.zeros((40, 40), np.int64), np.zeros((40, 40), np.int64)
    small[10:20, 10:20], large[5:25, 5:25] = 1, 1
    metrics = InstanceMetrics()
    metrics.add(small, large, 0.5)
    result = metrics.result()
    assert result["size_distance"] == pytest.approx(20 / np.sqrt(np.pi))
    assert result["size_distance_nm"] == pytest.approx(10 / np.sqrt(np.pi))
    metrics.add(small, large, None)
    assert metrics.result()["size_distance_nm"] is None and metrics.result()["size_distance"] == result["size_distance"]


def test_what_was_found_where_nobody_knows_is_no_mistake():
    truth = np.zeros((40, 40), np.int64)
    truth[10:20, 10:20], truth[25:] = 1, UNKNOWN
    found = np.where(truth == 1, 1, 0)
    found[24:36, 10:20] = 2  # one row of it lies where the truth is known
    metrics = InstanceMetrics()
    metrics.add(found, truth)
    assert metrics.result()["ap50"] == 1


def test_one_network_learns_objects_and_classes(folder, tmp_path, emfm):  # noqa: F811
    output = tmp_path / "model"
    run = dict(task="instances", data=str(folder), output=str(output), scratch="unet3-rf96-w8")
    settings = dict(steps=150, batch_size=4, crop=64, precision="fp32", learning_rate=1e-2, augment=0.0)
    finetune(FinetuneArguments(**run, **settings))
    model = load_model(output)
    assert model.object_classes == NAMES and model.classes is None
    found = evaluate(output, folder, "test")
    assert found["ap50"] > 0.5 and set(found["per_class"]) == set(NAMES.values())
    card = (output / "README.md").read_text()
    assert "| bright |" in card and "| **all objects** |" in card
    image, ids, _ = drawn(5)
    prediction = predict(model, image)
    numbers = [number for number in np.unique(prediction.output) if number]
    right = 0
    for number in numbers:
        inside = prediction.output == number
        true = np.bincount(ids[inside]).argmax()
        right += prediction.object_classes.name(number) == NAMES[(true + 1) % 2]
    assert right >= 0.8 * len(numbers) > 4
    results = tmp_path / "results"
    code, _, err = emfm("predict", folder / "images" / "5.png", "--model", output, "--output", results)
    assert code == 0, err
    with (results / "5_objects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == [prediction.object_classes.name(int(row["id"])) for row in rows]
    summary = json.loads((results / "5_summary.json").read_text())
    assert sum(part["objects"] for part in summary["classes"].values()) == summary["objects"] == len(rows)
    (folder / "labels.json").write_text('{"0": "background", "100": "bright", "200": "grey"}')
    with pytest.raises(EMError, match=r"the model's classes of objects are bright, dark, those of .* bright, grey"):
        evaluate(output, folder, "test")


@pytest.mark.parametrize("names", [{0: "background", 1: "rod", 2: "sphere"}, {0: "rod"}])
def test_a_background_or_a_single_kind_is_refused(names):
    with pytest.raises(EMError, match="expected 2 to 256 kinds of objects, without the background, or none"):
        EMForInstanceSegmentation(EMFoundationConfig.from_name("unet2-rf44", id2label=names))
