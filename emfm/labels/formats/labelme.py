"""labelme: a JSON file beside each image, filled as labelme does, with Pillow's polygons."""

import base64
import binascii
import io
import math
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from emfm.errors import EMError
from emfm.labels.formats.json_parts import part, points, read_json
from emfm.labels.shapes import EMPTY, Drawn, DrawnImage, Region, box_of, common_name

# labelme's own widths of lines and points, in pixels.
LINE_WIDTH, POINT_RADIUS = 10, 5
KINDS = ("polygon", "rectangle", "oriented_rectangle", "circle", "line", "linestrip", "point", "mask")
VERSION = "5.5.0"  #: of the layout that is written


def is_labelme(content: Any) -> bool:
    """Tell whether JSON is that of labelme."""
    return isinstance(content, dict) and "shapes" in content and "imagePath" in content


def read_labelme(path: Path, content: Any = None) -> list[DrawnImage]:
    """Return what was drawn on the image of a labelme file, in the order of its shapes.

    Raises:
        EMError: the file is damaged.
    """
    content = read_json(path) if content is None else content
    if not is_labelme(content):
        raise EMError(f"{path} is no labelme file: it has no 'shapes' and 'imagePath'")
    name = PureWindowsPath(part(content, "imagePath", str, str(path))).name  # which knows both slashes
    found = DrawnImage(str(path), name, shape=_stated_shape(content, path))
    for number, shape in enumerate(part(content, "shapes", list, str(path)), start=1):
        where = f"{path}, shape {number}"
        if not isinstance(shape, dict):
            raise EMError(f"{where} is no object: save the file again")
        kind = shape.get("shape_type") or "polygon"
        if kind not in KINDS:
            found.left_out[str(kind)] += 1
            continue
        label = common_name(part(shape, "label", str, where))
        group = shape.get("group_id")
        owner = None if group is None else (label, str(group))
        found.drawn.append(Drawn(label, where, _filler(kind, shape, where), owner))
    return [found]


def _stated_shape(content: dict[str, Any], path: Path) -> tuple[int, int] | None:
    if content.get("imageHeight") is None or content.get("imageWidth") is None:
        return None
    return part(content, "imageHeight", int, str(path)), part(content, "imageWidth", int, str(path))


def _filler(kind: str, shape: dict[str, Any], where: str) -> Callable[[tuple[int, int]], Region]:
    """Return what fills a shape, by the rules of labelme."""
    least = {"polygon": 3, "oriented_rectangle": 4, "point": 1}.get(kind, 2)
    corners = points(shape.get("points"), where, least)
    if kind == "mask":
        return _mask_filler(part(shape, "mask", str, where), corners, where)
    if kind == "circle":
        radius = math.dist(corners[0], corners[1])
        return lambda size: _draw("ellipse", np.array([corners[0] - radius, corners[0] + radius]), size)
    if kind == "point":
        return lambda size: _draw("ellipse", np.array([corners[0] - POINT_RADIUS, corners[0] + POINT_RADIUS]), size)
    if kind == "rectangle":
        return lambda size: _draw("rectangle", np.array([corners[:2].min(axis=0), corners[:2].max(axis=0)]), size)
    if kind in ("polygon", "oriented_rectangle"):
        return lambda size: _draw("polygon", corners, size)
    return lambda size: _draw("line", corners, size, LINE_WIDTH)


def _draw(method: str, corners: np.ndarray, size: tuple[int, int], width: int = 0) -> Region:
    """Let Pillow draw a shape on as much of the image as it may touch."""
    corners = np.trunc(corners)  # as Pillow does, which is not the same once they are shifted
    margin = np.array([width, width])
    top, bottom, left, right = box_of(np.vstack([corners - margin, corners + margin]), size)
    if top >= bottom or left >= right:
        return EMPTY
    canvas = Image.new("L", (right - left, bottom - top))
    shifted = [tuple(corner) for corner in (corners - [left, top]).tolist()]
    how = {"width": width, "fill": 1} if method == "line" else {"outline": 1, "fill": 1}
    getattr(ImageDraw.Draw(canvas), method)(shifted, **how)
    return Region(top, left, np.asarray(canvas) > 0)


def _mask_filler(encoded: str, corners: np.ndarray, where: str) -> Callable[[tuple[int, int]], Region]:
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True))) as picture:
            mask = np.asarray(picture) > 0
    except (OSError, ValueError, binascii.Error, Image.DecompressionBombError) as error:
        raise EMError(f"{where}: its mask is damaged ({error}): save it again") from error
    left, top = (int(value) for value in np.trunc(corners.min(axis=0)))
    if mask.ndim != 2:
        raise EMError(f"{where}: its mask is no picture in grey: save it again")

    def fill(size: tuple[int, int]) -> Region:
        rows = slice(max(-top, 0), max(size[0] - top, 0))
        columns = slice(max(-left, 0), max(size[1] - left, 0))
        inside = mask[rows, columns]
        return Region(max(top, 0), max(left, 0), inside) if inside.size else EMPTY

    return fill


def labelme_file(image: str, shape: tuple[int, int], drawn: list[tuple[str, int, Region]]) -> dict[str, Any]:
    """Return a labelme file whose shapes are masks, exact to the pixel.

    Args:
        image: path of the image from the file.
        shape: (H, W) of it.
        drawn: class, number of the object and pixels of each.
    """
    shapes = []
    for label, number, region in drawn:
        height, width = region.mask.shape
        left, top = float(region.left), float(region.top)
        file = io.BytesIO()
        Image.fromarray(region.mask.astype(np.uint8)).save(file, "PNG")
        shapes.append(
            {
                "label": label,
                "points": [[left, top], [left + width - 1, top + height - 1]],
                "group_id": number,
                "description": "",
                "shape_type": "mask",
                "flags": {},
                "mask": base64.b64encode(file.getvalue()).decode("ascii"),
            }
        )
    height, width = shape
    return {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
