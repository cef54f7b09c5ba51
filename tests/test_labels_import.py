"""`emfm labels import`: labels of other programs become a folder to train from."""

import labels_of_programs as files
import numpy as np
import pytest
import roifile
import tifffile
from labels_of_programs import CELL, PORE, SHAPE, imported, pillow
from PIL import Image
from pycocotools import mask as coco_masks

import emfm
from emfm.data.datasets import load_em_dataset
from emfm.errors import EMError
from emfm.labels.arguments import ImportArguments
from emfm.labels.fill import fill_canvas, fill_imagej, fill_java
from emfm.labels.formats.imagej import read_imagej
from emfm.labels.importing import import_labels
from emfm.tasks.instances import EMForInstanceSegmentation
from emfm.tasks.segmentation import EMForSemanticSegmentation


def pycoco(points) -> np.ndarray:
    flat = [[float(value) for point in points for value in point]]
    return coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects(flat, *SHAPE))) > 0


def filled(rule):
    def of(points) -> np.ndarray:
        region = rule([np.array(points, dtype=float)], SHAPE)
        mask = np.zeros(SHAPE, dtype=bool)
        mask[region.place] = region.mask
        return mask

    return of


PROGRAMS = {
    "labelme": (files.labelme, pillow),
    "coco": (files.coco, pycoco),
    "via": (files.via, filled(fill_canvas)),
    "qupath": (files.qupath, filled(fill_java)),
    "imagej": (files.imagej, filled(fill_imagej)),
}


@pytest.mark.parametrize("form", PROGRAMS)
def test_a_drawing_becomes_masks_as_its_program_fills_it(form, source, tmp_path):
    write, fill = PROGRAMS[form]
    write(source)
    made, mask, labels = imported(source, tmp_path / "out")
    assert (made.format, made.images, made.shapes, made.classes) == (form, 1, 2, ("background", "cell", "pore"))
    assert labels == {"0": "background", "1": "cell", "2": "pore"}
    np.testing.assert_array_equal(mask == 2, fill(PORE))  # drawn last, on top
    np.testing.assert_array_equal(mask == 1, fill(CELL) & ~fill(PORE))
    data = load_em_dataset(tmp_path / "out")
    assert data.id2label == {0: "background", 1: "cell", 2: "pore"}
    np.testing.assert_array_equal(data.masks[0], mask)
    np.testing.assert_array_equal(data.images[0], np.asarray(Image.open(source / "a.png")))


def test_the_programs_do_not_all_fill_the_same_pixels(source):
    assert len({fill(CELL).tobytes() for _, fill in PROGRAMS.values()}) == 4  # VIA and ImageJ agree on these corners


@pytest.mark.parametrize("overlap", ["last", "first", "smallest"])
def test_the_order_of_overlapping_shapes_can_be_chosen(overlap, source, tmp_path):
    files.labelme(source)
    _, mask, _ = imported(source, tmp_path / "out", overlap=overlap)
    both = pillow(CELL) & pillow(PORE)
    smaller = 1 if pillow(CELL).sum() < pillow(PORE).sum() else 2
    assert set(mask[both]) == {{"last": 2, "first": 1, "smallest": smaller}[overlap]}


def test_what_nobody_drew_on_can_be_ignored_and_classes_ordered(source, tmp_path):
    files.labelme(source)
    _, mask, labels = imported(source, tmp_path / "out", unlabelled="ignore", classes=("pore", "cell"))
    assert labels == {"0": "pore", "1": "cell", "255": "ignore"}
    np.testing.assert_array_equal(mask == 255, ~pillow(CELL) & ~pillow(PORE))
    assert (load_em_dataset(tmp_path / "out").masks[0] == -100).sum() == (mask == 255).sum()


def test_objects_get_numbers_and_what_is_to_be_ignored_is_unknown(source, tmp_path):
    shapes = [
        {
            "label": "cell",
            "points": [[2 * i % 50, 2 * (i // 25)], [2 * i % 50 + 1, 2 * (i // 25) + 1]],
            "shape_type": "rectangle",
        }
        for i in range(260)
    ]
    shapes += [{"label": "cell", "points": [[50, 30], [54, 34]], "shape_type": "rectangle", "group_id": 4}]
    shapes += [{"label": "cell", "points": [[50, 36], [54, 38]], "shape_type": "rectangle", "group_id": 4}]
    shapes += [{"label": "__ignore__", "points": [[44, 30], [48, 38]], "shape_type": "rectangle"}]
    files.labelme(source, shapes=shapes)
    imported(source, tmp_path / "out", instances=True)
    ids = tifffile.imread(tmp_path / "out" / "instances" / "a.tif")
    data = EMForInstanceSegmentation.load(tmp_path / "out", "train", None, None)
    assert ids.dtype == np.uint16
    assert sorted(np.unique(data.ids[0][data.ids[0] > 0])) == list(range(1, 262))
    assert ids[30, 50] == ids[36, 50]  # one object in two parts
    assert (data.ids[0][30:39, 44:49] == -1).all() and (data.ids[0] == -1).sum() == 45


def test_a_painted_stack_keeps_its_slices(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images" / "v.tif", np.zeros((3, *SHAPE), np.uint8), photometric="minisblack")
    volume = np.stack([files.ids(), np.zeros_like(files.ids()), files.ids()[::-1]])
    tifffile.imwrite(tmp_path / "labels" / "v.tif", volume, photometric="minisblack")
    how = ImportArguments(format="napari", images=str(tmp_path / "images"))
    import_labels(tmp_path / "labels", tmp_path / "out", how)
    data = load_em_dataset(tmp_path / "out")
    np.testing.assert_array_equal(data.masks[0], volume[0])
    np.testing.assert_array_equal(data.masks[2], volume[2])
    assert (data.masks[1] == -100).all()  # nobody painted there


def test_images_are_found_by_name_in_sub_folders_and_by_stem(tmp_path):
    files.write_image(tmp_path / "micrographs" / "day 1" / "a.tif")
    (tmp_path / "labels").mkdir()
    files.labelme(tmp_path / "labels", imagePath="C:\\data\\a.png")
    made = import_labels(tmp_path / "labels", tmp_path / "out", ImportArguments(images=str(tmp_path / "micrographs")))
    assert made.images == 1 and (tmp_path / "out" / "masks" / "day 1" / "a.png").exists()
    assert len(load_em_dataset(tmp_path / "out")) == 1


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("form", [*PROGRAMS, "ilastik", "napari"])
@pytest.mark.parametrize("damage", [cut, empty])
def test_a_damaged_file_of_any_program_is_one_line_and_nothing_is_written(form, damage, images, tmp_path):
    write = PROGRAMS[form][0] if form in PROGRAMS else getattr(files, form)
    path = write(tmp_path / "labels")
    damage(path)
    with pytest.raises(EMError) as caught:
        import_labels(path, tmp_path / "out", ImportArguments(format=form, images=str(images)))
    assert path.name in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("er-3", "er"),
        ("0012-rod", "rod"),
        ("0012", "object"),
        ("0001-0023-0045", "object"),
        ("stage 2 cell", "stage 2 cell"),
    ],
)
def test_the_class_of_a_selection_is_its_name_without_numbers(name, label, tmp_path):
    roifile.roiwrite(tmp_path / "a.roi", roifile.ImagejRoi.frompoints(np.array(CELL), name=name))
    assert read_imagej(tmp_path / "a.roi")[0].drawn[0].label == label


def test_a_set_of_selections_whose_content_is_damaged_is_one_line(images, tmp_path):
    path = files.imagej(tmp_path / "labels")
    content = bytearray(path.read_bytes())
    content[60:90] = bytes(30)
    path.write_bytes(content)
    with pytest.raises(EMError, match=r"a_RoiSet\.zip.* is damaged"):
        import_labels(path, tmp_path / "out", ImportArguments(images=str(images)))


FAR = [[100, 100], [120, 100], [110, 130]]
WRONG = {
    "size": (
        lambda folder: files.labelme(folder, imageHeight=41),
        r"a\.json is of an image of 41 x 56 pixels, .* has 40 x 56",
    ),
    "coco size": (
        lambda folder: files.coco(folder, images=[{"id": 7, "file_name": "a.png", "height": 4, "width": 9}]),
        r"of an image of 4 x 9 pixels",
    ),
    "unknown image": (lambda folder: files.labelme(folder, imagePath="b.png"), r"image 'b\.png', which is not in .*"),
    "outside": (
        lambda folder: files.via(folder, [files.via_region(FAR, "cell")]),
        r"region 1 of a\.png lies outside its image of 40 x 56",
    ),
    "two corners": (
        lambda folder: files.qupath(folder, [files.feature(CELL[:1], "cell")]),
        r"feature 1: it has 2 corners",
    ),
    "no number": (
        lambda folder: files.via(folder, [files.via_region([["x", 1], [2, 2], [3, 3]], "cell")]),
        r"its corners are no list of \[x, y\]",
    ),
    "infinite": (
        lambda folder: files.via(folder, [files.via_region([[1e300, 1], [2, 2], [3, 3]], "cell")]),
        "a corner is no place in an image",
    ),
    "no shapes": (lambda folder: files.labelme(folder, shapes=[]), "nothing is drawn in any of its 1 files"),
    "no class": (lambda folder: files.via(folder, [files.via_region(CELL, "")]), "has no class in 'type'"),
    "category": (
        lambda folder: files.coco(folder, categories=[{"id": 3, "name": "cell"}]),
        "of the category 5, not one of",
    ),
    "other JSON": (lambda folder: (folder / "x.json").write_text('{"a": 1}'), "is JSON of none of labelme, coco"),
    "images alone": (lambda folder: None, "holds images alone: say with --format whether napari or ilastik"),
    "not a selection": (
        lambda folder: (folder / "a.roi").write_bytes(b"Iouu" + bytes(60)),
        "is no selection of ImageJ",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_labels_that_do_not_fit_are_one_line(case, source, tmp_path):
    write, message = WRONG[case]
    write(source)
    with pytest.raises(EMError, match=message) as caught:
        import_labels(source, tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": ("cell",)}, "is of the class 'pore', which --classes does not name"),
        ({"unlabelled": "ignore", "classes": ("cell",)}, "name the class 'cell' alone; two are needed"),
        ({"format": "coco"}, "is no COCO file"),
        ({"images": "nowhere"}, "there is no folder nowhere"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(settings, message, source, tmp_path):
    files.labelme(source)
    with pytest.raises(EMError, match=message):
        import_labels(source, tmp_path / "out", ImportArguments(**settings))


def test_nothing_is_replaced(source, tmp_path):
    files.labelme(source)
    import_labels(source, tmp_path / "out")
    with pytest.raises(EMError, match=r"out is not empty: choose another --output"):
        import_labels(source, tmp_path / "out")


def test_finetuning_of_another_programs_labels_tells_where_to_go(source):
    files.labelme(source)
    with pytest.raises(EMError, match=r"emfm labels import .*source --output"):
        EMForSemanticSegmentation.load(source, "train", None, None)


@pytest.mark.parametrize("form", PROGRAMS)
@pytest.mark.parametrize("alone", [False, True])
def test_another_programs_labels_are_loaded_as_they_lie(form, alone, source, tmp_path):
    path = PROGRAMS[form][0](source)
    import_labels(source, tmp_path / "out")
    direct, imported = emfm.load_em_dataset(path if alone else source), emfm.load_em_dataset(tmp_path / "out")
    assert (direct.names, direct.id2label, direct.pixel_sizes) == (
        imported.names,
        imported.id2label,
        imported.pixel_sizes,
    )
    np.testing.assert_array_equal(direct.masks, imported.masks)
    np.testing.assert_array_equal(direct.images, imported.images)


def test_objects_of_another_program_and_what_it_ignores_are_loaded_too(source, tmp_path):
    features = [files.feature(CELL, "cell"), files.feature(PORE, "Ignore*")]
    files.qupath(source, features)
    import_labels(source, tmp_path / "out", ImportArguments(instances=True))
    objects = emfm.load_em_dataset(source, truth="instances")
    np.testing.assert_array_equal(objects.ids, emfm.load_em_dataset(tmp_path / "out", truth="instances").ids)
    assert set(np.unique(emfm.load_em_dataset(source).masks[0])) == {-100, 0, 1}
    with pytest.raises(EMError, match=r"no split 'test'"):
        emfm.load_em_dataset(source, "test")
    with pytest.raises(EMError, match=r"emfm labels import"):
        emfm.load_em_dataset(source, truth="targets")
