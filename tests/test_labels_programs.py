"""What only one program writes into its labels: QuPath, labelme, VIA, COCO, napari and ilastik."""

import json
import logging

import labels_of_programs as files
import numpy as np
import pytest
import tifffile
from labels_of_programs import CELL, PORE, SHAPE, imported, pillow
from PIL import Image
from pycocotools import mask as coco_masks

from emfm.labels.formats.qupath import read_qupath


def test_holes_unclassified_and_ignored_objects_of_qupath(source, tmp_path):
    hole = [[14, 12], [20, 12], [20, 18], [14, 18]]
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [3, 3]}, "properties": {}}
    whole = [files.feature(CELL, None, hole), files.feature([[40, 2], [50, 2], [50, 8], [40, 8]], "Ignore*"), point]
    files.qupath(source, whole)
    _, mask, labels = imported(source, tmp_path / "out")
    assert labels == {"0": "background", "1": "object", "255": "ignore"}
    assert not mask[12:18, 14:20].any() and (mask[2:8, 40:50] == 255).all()


def qupath_mask(folder, geometry, shape):
    """Return the pixels of one geometry (H, W)."""
    content = {**files.feature(CELL, "cell"), "geometry": geometry}
    (folder / "a.geojson").write_text(json.dumps(content))
    region = read_qupath(folder / "a.geojson")[0].drawn[0].region(shape)
    mask = np.zeros(shape, dtype=bool)
    mask[region.place] = region.mask
    return mask


def box_geometry(left, top, right, bottom, **more):
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {"type": "Polygon", "coordinates": [ring], **more}


@pytest.mark.parametrize(
    ("box", "filled"),  # as QuPath fills them: rows and columns, first and after the last
    [
        ((18.15, 23.9, 39.72, 39.86), (24, 40, 18, 39)),
        ((49.19, 7.57, 76.38, 28.74), (7, 28, 49, 76)),
        ((2.41, 22.66, 22.59, 51.0), (22, 51, 2, 22)),
        ((50.92, 1.34, 78.94, 14.87), (1, 15, 51, 79)),
        ((-5.5, -3.2, 4.6, 5.8), (0, 6, 0, 4)),
    ],
)
def test_a_rectangle_of_qupath_is_filled_as_a_rectangle(box, filled, tmp_path):
    expected = np.zeros((60, 90), dtype=bool)
    expected[filled[0] : filled[1], filled[2] : filled[3]] = True
    np.testing.assert_array_equal(qupath_mask(tmp_path, box_geometry(*box), (60, 90)), expected)


def test_an_ellipse_of_qupath_is_filled_as_an_ellipse(tmp_path):
    # first column and that after the last, of each row from 11 on, as QuPath fills it
    rows = [(14, 21), (13, 22), (12, 23), (11, 24), (11, 24), (10, 24), (10, 25), (10, 25)]
    rows += [(10, 25), (10, 24), (11, 24), (11, 24), (12, 23), (13, 22), (14, 21)]
    expected = np.zeros((40, 40), dtype=bool)
    for row, (first, after) in enumerate(rows, start=11):
        expected[row, first:after] = True
    geometry = box_geometry(9.72, 10.09, 24.12, 25.86, isEllipse=True)
    np.testing.assert_array_equal(qupath_mask(tmp_path, geometry, (40, 40)), expected)


@pytest.mark.parametrize(
    ("classification", "label"),
    [
        ("cell", "cell"),
        ({}, "object"),
        (None, "object"),
        ({"names": ["cell", "wall"], "color": [1, 2, 3]}, "cell: wall"),
        ({"name": "wall", "colorRGB": -3140401, "parentClass": {"name": "cell", "colorRGB": -1}}, "cell: wall"),
    ],
)
def test_classes_of_every_version_of_qupath(classification, label, tmp_path):
    content = files.feature(CELL, None)
    content["properties"]["classification"] = classification
    (tmp_path / "a.geojson").write_text(json.dumps(content))
    assert read_qupath(tmp_path / "a.geojson")[0].drawn[0].label == label


def test_an_oriented_rectangle_of_labelme_is_a_polygon(source, tmp_path):
    corners = [[10, 5], [30.4, 12.7], [25.2, 30.1], [6.5, 22.9]]
    shape = {"label": "cell", "points": corners, "shape_type": "oriented_rectangle", "mask": None}
    files.labelme(source, shapes=[shape])
    _, mask, _ = imported(source, tmp_path / "out")
    np.testing.assert_array_equal(mask == 1, pillow(corners))


def test_shapes_without_pixels_are_counted(source, tmp_path, caplog):
    regions = [files.via_region(CELL, "cell"), files.via_region(PORE, "pore")]
    regions += [{"shape_attributes": {"name": "point", "cx": 3, "cy": 4}, "region_attributes": {"type": "cell"}}] * 2
    files.via(source, regions)
    with caplog.at_level(logging.WARNING):
        made, _, _ = imported(source, tmp_path / "out")
    assert made.shapes == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"{source}: shapes without pixels of their own are left out: 2 x point"
    ]


def test_rectangles_circles_and_ellipses_of_via(source, tmp_path):
    def region(**attributes):
        return {"shape_attributes": attributes, "region_attributes": {"type": attributes["name"]}}

    regions = [
        region(name="rect", x=2, y=3, width=10, height=5),
        region(name="circle", cx=30, cy=20, r=4),
        region(name="ellipse", cx=45, cy=20, rx=6, ry=3, theta=0),
    ]
    files.via(source, regions)
    _, mask, labels = imported(source, tmp_path / "out")
    of = {name: int(value) for value, name in labels.items()}
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    np.testing.assert_array_equal(mask == of["circle"], np.hypot(rows - 20, columns - 30) <= 4)
    np.testing.assert_array_equal(mask == of["ellipse"], ((columns - 45) / 6) ** 2 + ((rows - 20) / 3) ** 2 <= 1)
    assert (mask == of["rect"]).sum() == 50 and (mask[3:8, 2:12] == of["rect"]).all()


def test_coco_takes_runs_compressed_or_not(source, tmp_path):
    masks = [pillow(CELL), pillow(PORE)]
    encoded = [coco_masks.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    compressed = {"size": list(SHAPE), "counts": encoded[0]["counts"].decode("ascii")}
    flat = masks[1].T.ravel()
    ends = np.flatnonzero(np.diff(np.concatenate([[0], flat.astype(int)]))).tolist()
    plain = {"size": list(SHAPE), "counts": np.diff([0, *ends, flat.size]).tolist()}
    annotations = [
        {"id": 1, "image_id": 7, "category_id": 3, "segmentation": compressed, "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 5, "segmentation": plain, "iscrowd": 1},
    ]
    files.coco(source, annotations=annotations)
    _, mask, _ = imported(source, tmp_path / "out")
    np.testing.assert_array_equal(mask == 2, masks[1])
    np.testing.assert_array_equal(mask == 1, masks[0] & ~masks[1])


def test_napari_labels_are_classes_or_objects(images, tmp_path):
    files.napari(tmp_path / "labels")
    settings = {"format": "napari", "images": str(images)}
    _, mask, labels = imported(tmp_path / "labels", tmp_path / "classes", classes=("cell", "pore"), **settings)
    assert labels == {"0": "background", "1": "cell", "2": "pore"}
    np.testing.assert_array_equal(mask, files.ids())
    _, mask, labels = imported(tmp_path / "labels", tmp_path / "objects", instances=True, **settings)
    assert labels == {"0": "background", "1": "object"}
    np.testing.assert_array_equal(mask, files.ids() > 0)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "objects" / "instances" / "a.tif"), files.ids())


@pytest.mark.parametrize("axes", ["yxc", "yx", "xy", "tzyxc", "xyc"])
def test_what_ilastik_left_unlabelled_is_ignored_in_any_order_of_axes(axes, images, tmp_path):
    files.ilastik(tmp_path / "labels", axes)
    made, mask, labels = imported(tmp_path / "labels", tmp_path / "out", images=str(images))
    assert (made.format, labels) == ("ilastik", {"0": "class 1", "1": "class 2", "255": "ignore"})
    np.testing.assert_array_equal(mask, np.where(files.ids() == 0, 255, files.ids().astype(int) - 1))


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_labels_that_ilastik_wrote_as_images_are_read_too(suffix, images, tmp_path):
    path = tmp_path / "labels" / f"a_Labels{suffix}"
    tifffile.imwrite(path, files.ids()) if suffix == ".tif" else Image.fromarray(files.ids()).save(path)
    settings = {"format": "ilastik", "images": str(images), "classes": ("membrane", "interior")}
    _, mask, labels = imported(tmp_path / "labels", tmp_path / "out", **settings)
    assert (
        labels == {"0": "membrane", "1": "interior", "255": "ignore"}
        and (mask == 255).sum() == (files.ids() == 0).sum()
    )
