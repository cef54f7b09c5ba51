"""Files of labels as labelme, COCO, VIA, QuPath, ImageJ, napari and ilastik write them, all of one drawing."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import roifile
import tifffile
from PIL import Image, ImageDraw

from emfm.io.masks import read_masks
from emfm.labels.arguments import ImportArguments
from emfm.labels.importing import import_labels

SHAPE = (40, 56)
# One drawing in all programs: corners at whole numbers, which every program fills in its own way.
CELL = [[4, 5], [30, 8], [24, 30], [8, 26]]
PORE = [[20, 12], [44, 10], [46, 34], [28, 36]]


def write_image(path: Path, seed: int = 0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 255, SHAPE, dtype=np.uint8)
    Image.fromarray(image).save(path)
    return image


def labelme(folder: Path, name: str = "a", **changes: object) -> Path:
    shapes = [
        {"label": label, "points": points, "group_id": None, "shape_type": "polygon", "flags": {}}
        for label, points in (("cell", CELL), ("pore", PORE))
    ]
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": f"{name}.png",
        "imageData": None,
        "imageHeight": SHAPE[0],
        "imageWidth": SHAPE[1],
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**content, **changes}))
    return path


def coco(folder: Path, **changes: object) -> Path:
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": SHAPE[0], "width": SHAPE[1]}],
        "categories": [{"id": 3, "name": "cell"}, {"id": 5, "name": "pore"}],
        "annotations": [
            {
                "id": number,
                "image_id": 7,
                "category_id": category,
                "segmentation": [[float(value) for corner in points for value in corner]],
                "iscrowd": 0,
            }
            for number, (category, points) in enumerate(((3, CELL), (5, PORE)))
        ],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps({**content, **changes}))
    return path


def via_region(points: list, label: str) -> dict:
    x, y = zip(*points, strict=True)
    attributes = {"name": "polygon", "all_points_x": list(x), "all_points_y": list(y)}
    return {"shape_attributes": attributes, "region_attributes": {"type": label}}


def via(folder: Path, regions: object = None) -> Path:
    if regions is None:
        regions = [via_region(CELL, "cell"), via_region(PORE, "pore")]
    content = {"a.png2240": {"filename": "a.png", "size": 2240, "regions": regions, "file_attributes": {}}}
    path = folder / "via_project.json"
    path.write_text(json.dumps({"_via_settings": {}, "_via_img_metadata": content, "_via_attributes": {}}))
    return path


def feature(points: list, label: str | None, *holes: list) -> dict:
    rings = [[*ring, ring[0]] for ring in (points, *holes)]
    properties = {"objectType": "annotation"}
    if label is not None:
        properties |= {"classification": {"name": label, "color": [200, 0, 0]}}
    return {
        "type": "Feature",
        "id": "x",
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": properties,
    }


def qupath(folder: Path, features: object = None) -> Path:
    features = [feature(CELL, "cell"), feature(PORE, "pore")] if features is None else features
    path = folder / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def imagej(folder: Path) -> Path:
    path = folder / "a_RoiSet.zip"
    rois = [
        roifile.ImagejRoi.frompoints(np.array(points), name=name) for points, name in ((CELL, "cell"), (PORE, "pore"))
    ]
    roifile.roiwrite(path, rois, mode="w")
    return path


def ids() -> np.ndarray:
    """Return numbers as people paint them: two strokes of class 1, one of class 2."""
    array = np.zeros(SHAPE, dtype=np.uint8)
    array[3:6, 4:20] = 1
    array[30:33, 4:9] = 1
    array[10:30, 40:43] = 2
    return array


def napari(folder: Path, array: np.ndarray | None = None) -> Path:
    path = folder / "a.tif"
    tifffile.imwrite(path, ids() if array is None else array)
    return path


def axistags(axes: str) -> str:
    return json.dumps({"axes": [{"key": key, "typeFlags": 2, "resolution": 0, "description": ""} for key in axes]})


def ilastik(folder: Path, axes: str = "yxc", array: np.ndarray | None = None, name: str = "a_Labels.h5") -> Path:
    path = folder / name
    values = ids() if array is None else array
    order = [axes.index(key) for key in axes if key in "yx"]
    values = values if order == sorted(order) and axes.index("y") < axes.index("x") else values.T
    shape = [values.shape[[key for key in axes if key in "yx"].index(key)] if key in "yx" else 1 for key in axes]
    with h5py.File(path, "w") as file:
        file.create_dataset("exported_data", data=values.reshape(shape))
        file["exported_data"].attrs["axistags"] = axistags(axes)
    return path


@pytest.fixture
def source(tmp_path):
    """A folder with one micrograph, for labels to stand beside it."""
    write_image(tmp_path / "source" / "a.png")
    return tmp_path / "source"


@pytest.fixture
def images(tmp_path):
    """A folder with one micrograph, apart from labels that are images, too."""
    write_image(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    return tmp_path / "images"


def imported(source, output, **settings):
    made = import_labels(source, output, ImportArguments(**settings))
    return made, read_masks(output / "masks" / "a.png")[0].array, json.loads((output / "labels.json").read_text())


def pillow(points) -> np.ndarray:
    canvas = Image.new("L", SHAPE[::-1])
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in points], outline=1, fill=1)
    return np.asarray(canvas) > 0
