"""What the tab "Label" keeps on disk: strokes become masks that the command line reads."""

import json
import shutil

import numpy as np
import pytest
import tifffile
from conftest import disc_image
from PIL import Image

from emfm import EMError, load_em_dataset
from emfm.app.painting import UNDO_BYTES, History, Painted, Stroke
from emfm.app.session import LabelSession


@pytest.fixture
def micrograph(tmp_path):
    path = tmp_path / "gold 1.tif"
    image = 40 * disc_image(96, 3)[0].astype(np.uint16)
    tifffile.imwrite(path, image, resolution=(1e7 / 0.5, 1e7 / 0.5), resolutionunit="CENTIMETER")
    return path


@pytest.fixture
def session(tmp_path, micrograph):
    session = LabelSession(tmp_path / "session")
    session.add(micrograph)
    return session


def test_a_stroke_covers_the_pixels_whose_middles_are_near_enough():
    mask = np.full((7, 9), 255, dtype=np.uint8)
    Stroke(1, 1.0, [(2.5, 3.5), (6.5, 3.5)]).paint(mask)
    expected = np.full((7, 9), 255, dtype=np.uint8)
    expected[3, 1:8] = 1
    expected[[2, 4], 2:7] = 1
    np.testing.assert_array_equal(mask, expected)


def test_the_finest_brush_paints_the_pixel_that_it_points_at():
    for x, y in ((0.01, 0.01), (3.99, 2.01), (4.5, 4.5)):
        mask = np.full((5, 5), 255, dtype=np.uint8)
        Stroke(0, 0.5, [(x, y)]).paint(mask)
        assert mask[int(y), int(x)] == 0


def test_a_stroke_is_cut_at_the_edges_and_one_outside_is_none():
    mask = np.full((5, 5), 255, dtype=np.uint8)
    assert Stroke(1, 2.0, [(-50, -50), (-10, 2)]).paint(mask) is None
    assert (mask == 255).all()
    Stroke(1, 0.5, [(-10, 2.5), (2.5, 2.5)]).paint(mask)
    assert np.argwhere(mask == 1).tolist() == [[2, 0], [2, 1], [2, 2]]
    beyond = Stroke(1, 1.0, [(-30, 30), (-20, -10), (30, -10)])  # its box meets the mask, it does not
    beyond.paint(mask)
    assert (mask == 1).sum() == 3


@pytest.mark.parametrize("points, radius", [([], 1), ([(0, 0)] * 20_001, 1), ([(float("nan"), 0)], 1), ([(0, 0)], 1e9)])
def test_what_is_no_stroke_is_one_line(points, radius):
    with pytest.raises(EMError, match="the stroke has") as error:
        Stroke(1, radius, points)
    assert "\n" not in str(error.value)


def test_strokes_are_taken_back_last_first_and_memory_is_bounded():
    mask, history = np.zeros((4, 4), dtype=np.uint8), History()
    for value in (1, 2):
        history.add(Stroke(value, 10, [(2, 2)]).paint(mask))
    assert history.take_back(mask)
    assert (mask == 1).all()
    assert history.take_back(mask)
    assert (mask == 0).all()
    assert not history.take_back(mask)
    for _ in range(3):
        history.add(Painted(0, 0, np.zeros((1, UNDO_BYTES // 2), dtype=np.uint8)))
    assert len(history) == 2


def test_a_session_is_a_labelled_folder_after_every_stroke(session):
    session.paint("gold 1.tif", "background", 1.0, [(10.5, 10.5), (30.5, 10.5)])
    session.paint("gold 1.tif", "particle", 1.0, [(50.5, 50.5)])
    data = load_em_dataset(session.folder, "train")
    assert data.id2label == {0: "background", 1: "particle"}
    assert data.names == ["gold 1.tif"]
    assert data.pixel_sizes == [pytest.approx(0.5)]
    np.testing.assert_array_equal(np.where(data.masks[0] < 0, -1, data.masks[0]), session.labels("gold 1.tif"))
    assert session.counts("gold 1.tif") == [23 + 2 * 21, 5]


def test_a_session_survives_a_restart_and_a_mask_that_another_program_wrote(session):
    session.paint("gold 1.tif", "particle", 2.0, [(50.5, 50.5)])
    again = LabelSession(session.folder)
    assert again.names() == ["gold 1.tif"]
    np.testing.assert_array_equal(again.labels("gold 1.tif"), session.labels("gold 1.tif"))
    mask = np.full((96, 96), 255, dtype=np.uint8)
    mask[0, 0] = 0
    Image.fromarray(mask).save(session.folder / "masks" / "gold 1.png")
    assert session.counts("gold 1.tif") == [1, 0]
    assert not session.undo("gold 1.tif")  # the strokes before are not of this mask


def test_erasing_and_undo_leave_the_pixels_unlabelled(session):
    session.paint("gold 1.tif", "particle", 3.0, [(50, 50)])
    session.paint("gold 1.tif", None, 9.0, [(50, 50)])
    assert session.counts("gold 1.tif") == [0, 0]
    assert session.undo("gold 1.tif")
    assert session.counts("gold 1.tif")[1] == 32
    assert session.undo("gold 1.tif")
    assert session.counts("gold 1.tif") == [0, 0]


def test_classes_are_renamed_and_added_and_keep_their_pixels(session):
    session.paint("gold 1.tif", "particle", 3.0, [(50, 50)])
    session.name_classes(["carbon", "gold", "hole"])
    assert session.classes == ["carbon", "gold", "hole"]
    assert session.counts("gold 1.tif") == [0, 32, 0]
    written = json.loads((session.folder / "labels.json").read_text())
    assert written == {"0": "carbon", "1": "gold", "2": "hole", "255": "ignore"}
    for names in (["a", "A", "b"], ["a", "", "c"], ["a", "b", "ignore"], ["a"], [f"c{i}" for i in range(10)]):
        with pytest.raises(EMError, match="classes"):
            session.name_classes(names)
    assert session.classes == ["carbon", "gold", "hole"]


def test_a_labelled_folder_with_values_of_its_own_is_a_session(tmp_path, micrograph):
    for name in ("images", "masks"):
        (tmp_path / "own" / name).mkdir(parents=True)
    shutil.copy(micrograph, tmp_path / "own" / "images")
    mask = np.zeros((96, 96), dtype=np.uint8)
    mask[40:50, 40:50] = 255
    tifffile.imwrite(tmp_path / "own" / "masks" / "gold 1.tif", mask)
    (tmp_path / "own" / "labels.json").write_text('{"0": "background", "255": "particle"}')
    session = LabelSession(tmp_path / "own")
    assert session.counts("gold 1.tif") == [96 * 96 - 100, 100]
    session.paint("gold 1.tif", None, 100, [(48, 48)])
    session.paint("gold 1.tif", "particle", 0.5, [(0.5, 0.5)])
    assert session.unlabelled == 254
    written = tifffile.imread(tmp_path / "own" / "masks" / "gold 1.tif")
    assert (written[0, 0], written[50, 50]) == (255, 254)


def test_what_is_no_session_and_what_is_no_micrograph_is_one_line(tmp_path, session, micrograph):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("Dear Sir")
    with pytest.raises(EMError, match="not empty and no labelled folder"):
        LabelSession(tmp_path / "other")
    with pytest.raises(EMError, match=r"letter\.txt"):
        session.add(tmp_path / "other" / "letter.txt")
    with pytest.raises(EMError, match="no class 'silver'"):
        session.paint("gold 1.tif", "silver", 1, [(1, 1)])
    with pytest.raises(EMError, match=r"no micrograph 'silver\.tif'"):
        session.paint("silver.tif", "particle", 1, [(1, 1)])
    assert session.add(micrograph) == "gold 1.tif"  # the same file again
    tifffile.imwrite(tmp_path / "other" / "gold 1.tif", np.zeros((9, 9), dtype=np.uint8))
    with pytest.raises(EMError, match=r"another micrograph called gold 1\.tif"):
        session.add(tmp_path / "other" / "gold 1.tif")
