"""VIA, the VGG Image Annotator: a project, or its annotations, as JSON."""

import math
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import Any

from emfm.errors import EMError
from emfm.labels.fill import fill_box, fill_canvas, fill_ellipse
from emfm.labels.formats.json_parts import part, points, read_json
from emfm.labels.shapes import Drawn, DrawnImage, Region, common_name

PROJECT = "_via_img_metadata"


def is_via(content: Any) -> bool:
    """Tell whether JSON is that of VIA: a project, or the annotations of one."""
    if not isinstance(content, dict) or not content:
        return False
    entries = content.get(PROJECT, content)
    return isinstance(entries, dict) and all(
        isinstance(entry, dict) and "filename" in entry and "regions" in entry for entry in entries.values()
    )


def read_via(path: Path, attribute: str | None = None, content: Any = None) -> list[DrawnImage]:
    """Return what was drawn on the images of a VIA file, in the order of its regions.

    A pixel belongs to a shape if its centre lies inside, as a page in the browser fills it.

    Args:
        path: the file.
        attribute: of the regions, which names the class; the only one where None.
        content: of the file, where it has been read.

    Raises:
        EMError: the file is damaged, or its regions have several attributes.
    """
    content = read_json(path) if content is None else content
    if not is_via(content):
        raise EMError(f"{path} is no VIA file: no object of images with 'filename' and 'regions'")
    found = []
    for key, entry in content.get(PROJECT, content).items():
        image = DrawnImage(str(path), PureWindowsPath(part(entry, "filename", str, f"{path}, {key}")).as_posix())
        regions = entry["regions"]
        regions = list(regions.values()) if isinstance(regions, dict) else regions  # as VIA 1 has them
        if not isinstance(regions, list):
            raise EMError(f"{path}, {key}: 'regions' is {regions!r:.60}; expected a list")
        for number, region in enumerate(regions, start=1):
            _add(image, region, attribute, f"{path}, region {number} of {image.image}")
        found.append(image)
    return found


def _add(image: DrawnImage, region: Any, attribute: str | None, where: str) -> None:
    """Add a region to its image, or count it among what has no pixels."""
    if not isinstance(region, dict):
        raise EMError(f"{where} is no object: save the file again")
    attributes = part(region, "shape_attributes", dict, where)
    kind = part(attributes, "name", str, where)
    fill = _filler(kind, attributes, where)
    if fill is None:
        image.left_out[kind] += 1
        return
    image.drawn.append(Drawn(_label(region.get("region_attributes"), attribute, where), where, fill))


def _label(attributes: Any, attribute: str | None, where: str) -> str:
    """Return the class of a region: a text, or of boxes to tick the only one that is ticked."""
    attributes = attributes if isinstance(attributes, dict) else {}
    if attribute is None and len(attributes) > 1:
        raise EMError(f"{where} has the attributes {', '.join(attributes)}: say which names the class with --attribute")
    chosen = attribute or next(iter(attributes), None)
    if chosen is None:
        return "object"
    value = attributes.get(chosen)
    if isinstance(value, dict):
        ticked = [name for name, on in value.items() if on]
        value = ticked[0] if len(ticked) == 1 else None
    if not isinstance(value, str) or not value.strip():
        raise EMError(f"{where} has no class in '{chosen}' ({attributes.get(chosen)!r:.60}): give it one there")
    return common_name(value.strip())


def _filler(kind: str, given: dict[str, Any], where: str) -> Callable[[tuple[int, int]], Region] | None:
    """Return what fills a shape, None where its kind has no pixels."""

    def number(key: str) -> float:
        return part(given, key, float, where)

    if kind == "polygon":
        x, y = part(given, "all_points_x", list, where), part(given, "all_points_y", list, where)
        if len(x) != len(y):
            raise EMError(f"{where} has {len(x)} x and {len(y)} y: save the file again")
        corners = points([list(pair) for pair in zip(x, y, strict=True)], where)
        return lambda size: fill_canvas([corners], size)
    if kind == "rect":
        left, top, width, height = map(number, ("x", "y", "width", "height"))
        return lambda size: fill_box(left, top, left + width, top + height, size)
    if kind in ("circle", "ellipse"):
        centre = (number("cx"), number("cy"))
        radii = (number("r"),) * 2 if kind == "circle" else (number("rx"), number("ry"))
        angle = float(given.get("theta") or 0.0)
        if min(radii) <= 0 or not math.isfinite(angle):
            raise EMError(f"{where}: its radii are {radii}; expected numbers above 0: correct it there")
        return lambda size: fill_ellipse(centre, radii, angle, size)
    return None
