"""Polygons become the very pixels that their program fills: compared with the programs' own libraries and files."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_masks

from emfm.labels.fill import fill_canvas, fill_coco, fill_ellipse, fill_java
from emfm.labels.formats.coco import decode_counts, encode_counts, runs_of
from emfm.labels.formats.imagej import read_imagej
from emfm.labels.formats.labelme import read_labelme
from emfm.labels.outlines import outline, parts_of
from emfm.labels.shapes import Region

FILES = Path(__file__).parent / "label_files"


def whole(region: Region, shape: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[region.place] = region.mask
    return mask


def bits(text: str, width: int) -> np.ndarray:
    rows = np.frombuffer(bytes.fromhex(text), dtype=np.uint8).reshape(-1, width // 8)
    return np.unpackbits(rows, axis=1).astype(bool)


def polygons(seed: int, shape: tuple[int, int]) -> list[np.ndarray]:
    """Return random polygons: within the image and across its edge, of whole, half and other numbers."""
    rng = np.random.default_rng(seed)
    reach = max(shape)
    found = []
    for number in range(120):
        low, high = (-6, reach + 6) if number % 2 else (0, min(shape))
        corners = rng.uniform(low, high, (int(rng.integers(3, 9)), 2))
        found.append([corners, np.round(corners), np.round(corners * 2) / 2][number % 3])
    return found


def test_coco_polygons_are_those_of_pycocotools():
    shape = (37, 45)
    seen = polygons(1, shape)
    for one, other in zip(seen[::2], seen[1::2], strict=True):
        flat = [one.ravel().tolist(), other.ravel().tolist()]
        wanted = coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects(flat, *shape)))
        np.testing.assert_array_equal(whole(fill_coco([one, other], shape), shape), wanted > 0)


def test_coco_runs_are_those_of_pycocotools():
    rng = np.random.default_rng(2)
    for number in range(30):
        mask = rng.random((23, 31)) < [0.02, 0.5, 0.98, 1.0, 0.0][number % 5]
        encoded = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode("ascii")
        assert encode_counts(runs_of(Region(0, 0, mask), mask.shape)) == encoded
        assert decode_counts(encoded, "x") == runs_of(Region(0, 0, mask), mask.shape)


LABELME = {
    "polygon": lambda draw, xy: draw.polygon(xy, outline=1, fill=1),
    "rectangle": lambda draw, xy: draw.rectangle(xy, outline=1, fill=1),
    "linestrip": lambda draw, xy: draw.line(xy, fill=1, width=10),
    "line": lambda draw, xy: draw.line(xy, fill=1, width=10),
    "circle": lambda draw, xy: draw.ellipse(xy, outline=1, fill=1),
    "point": lambda draw, xy: draw.ellipse(xy, outline=1, fill=1),
}


def labelme_corners(kind: str, corners: np.ndarray) -> tuple[list, list]:
    """Return a shape's points, and what labelme hands to Pillow."""
    if kind == "rectangle":
        both = [corners[:2].min(axis=0), corners[:2].max(axis=0)]
        return corners[:2].tolist(), [tuple(corner) for corner in both]
    if kind == "circle":
        centre = corners[0]
        radius = float(np.hypot(*(corners[1] - centre)))
        return corners[:2].tolist(), [*(centre - radius), *(centre + radius)]
    if kind == "point":
        return corners[:1].tolist(), [*(corners[0] - 5), *(corners[0] + 5)]
    corners = corners[:2] if kind == "line" else corners
    return corners.tolist(), [tuple(corner) for corner in corners.tolist()]


@pytest.mark.parametrize("kind", LABELME)
def test_labelme_shapes_are_what_pillow_draws_on_the_whole_image(kind):
    shape = (40, 52)
    for corners in polygons(3, shape):
        points, xy = labelme_corners(kind, corners)
        canvas = Image.new("L", shape[::-1])
        LABELME[kind](ImageDraw.Draw(canvas), xy)
        wanted = np.asarray(canvas) > 0
        content = {"imagePath": "a.png", "shapes": [{"label": "a", "points": points, "shape_type": kind}]}
        (image,) = read_labelme(Path("a.json"), content)
        np.testing.assert_array_equal(whole(image.drawn[0].fill(shape), shape), wanted)


def test_qupath_polygons_are_those_that_java_paints():
    for case in json.loads((FILES / "java_fill.json").read_text()):
        rings = [np.array(ring) for ring in case["rings"]]
        np.testing.assert_array_equal(whole(fill_java(rings, (32, 32)), (32, 32)), bits(case["rows"], 32))


def test_selections_that_imagej_wrote_have_the_pixels_that_imagej_fills():
    (image,) = read_imagej(FILES / "imagej_RoiSet.zip")
    wanted = json.loads((FILES / "imagej_masks.json").read_text())
    names = [name for name in wanted if name not in ("line", "rounded")]
    assert [drawn.where.rpartition(", ")[2] for drawn in image.drawn] == names and len(names) == 12
    for name, drawn in zip(names, image.drawn, strict=True):
        np.testing.assert_array_equal(whole(drawn.region((48, 64)), (48, 64)), bits(wanted[name], 64), err_msg=name)
    assert image.left_out == {"line selection": 1, "rounded rectangle": 1}
    labels = [
        "mito",
        "mito",
        "er",
        "er",
        "vesicle",
        "vesicle",
        "box",
        "ring",
        "two parts",
        "points",
        "ellipse",
        "rotated",
    ]
    assert [drawn.label for drawn in image.drawn] == labels


def test_a_canvas_counts_windings_of_pixel_centres():
    star = np.array([[16, 1], [25, 29], [2, 12], [30, 12], [7, 29]], dtype=float)  # its middle is wound twice
    mask = whole(fill_canvas([star], (32, 32)), (32, 32))
    angles = []
    for row, column in ((18, 15), (2, 1)):
        around = star - [column + 0.5, row + 0.5]
        angle = np.arctan2(around[:, 1], around[:, 0])
        turns = np.diff(np.append(angle, angle[0]))
        angles.append(round(float(((turns + np.pi) % (2 * np.pi) - np.pi).sum() / (2 * np.pi))))
    assert angles == [2, 0] and mask[18, 15] and not mask[2, 1]


def test_an_ellipse_is_turned_clockwise():
    shape = (40, 40)
    mask = whole(fill_ellipse((20, 20), (15, 3), np.pi / 4, shape), shape)
    assert mask[29, 29] and not mask[10, 29]  # rows go down
    rows, columns = np.nonzero(whole(fill_ellipse((20, 20), (15, 3), 0.0, shape), shape))
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (5, 34, 17, 22)


def test_outlines_lead_back_to_the_pixels_in_every_program():
    rng = np.random.default_rng(5)
    for density in (0.3, 0.6, 0.9):
        mask = rng.random((24, 30)) < density
        rings = [ring for part in parts_of(Region(0, 0, mask)) for ring in outline(part)]
        assert all((ring != np.roll(ring, 1, axis=0)).any(axis=1).all() for ring in rings)
        for fill in (fill_java, fill_canvas):
            np.testing.assert_array_equal(whole(fill(rings, mask.shape), mask.shape), mask)


def test_the_first_ring_is_the_outline_and_the_others_are_holes():
    mask = np.ones((6, 7), dtype=bool)
    mask[2:4, 2:4] = False
    mask[4, 4] = False  # touches the hole at a corner alone
    first, *holes = outline(Region(0, 0, mask))
    assert sorted(map(tuple, first.tolist())) == [(0, 0), (0, 6), (7, 0), (7, 6)]
    assert sum(len(hole) for hole in holes) == 8
