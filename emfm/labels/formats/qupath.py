"""QuPath: GeoJSON of one image, filled as QuPath's own label images are, holes kept."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from emfm.errors import EMError
from emfm.labels.fill import JavaBox, fill_java, fill_java_box, fill_java_ellipse
from emfm.labels.formats.json_parts import part, points, read_json
from emfm.labels.outlines import outline, parts_of
from emfm.labels.shapes import EMPTY, Drawn, DrawnImage, Region

AREAS = ("Polygon", "MultiPolygon", "GeometryCollection")
UNCLASSIFIED = "object"
COLOUR = [230, 159, 0]  # of the classes that are written
IGNORED = "ignore*"  # QuPath's class of what is to count as nothing; "Region*" marks a place alone
Rings = list[np.ndarray]


def is_qupath(content: Any) -> bool:
    """Tell whether JSON is GeoJSON: a collection, a list of features, or one."""
    if isinstance(content, list):
        return all(isinstance(entry, dict) and entry.get("type") == "Feature" for entry in content) and bool(content)
    return isinstance(content, dict) and content.get("type") in ("FeatureCollection", "Feature")


def read_qupath(path: Path, content: Any = None) -> list[DrawnImage]:
    """Return what was drawn on the image that a GeoJSON file is named after, in its order.

    Raises:
        EMError: the file is damaged.
    """
    content = read_json(path) if content is None else content
    if not is_qupath(content):
        raise EMError(f"{path} is no GeoJSON of QuPath: no 'FeatureCollection' and no list of features")
    if isinstance(content, dict):
        whole = content["type"] == "FeatureCollection"
        content = part(content, "features", list, str(path)) if whole else [content]
    found = DrawnImage(str(path), path.stem)
    for number, feature in enumerate(content, start=1):
        where = f"{path}, feature {number}"
        if not isinstance(feature, dict):
            raise EMError(f"{where} is no object: save the file again")
        _add(found, feature, where)
    return [found]


def _add(image: DrawnImage, feature: dict[str, Any], where: str) -> None:
    """Add a feature to its image, or count it among what has no pixels."""
    geometry = part(feature, "geometry", dict, where)
    kind = part(geometry, "type", str, where)
    label = _label(feature.get("properties"), where)
    if kind not in AREAS:
        image.left_out[kind] += 1
    elif label == "Region*":
        image.left_out["Region*, which marks a place and no class"] += 1
    else:
        image.drawn.append(Drawn(label, where, _filler(geometry, where)))


def _label(properties: Any, where: str) -> str:
    """Return the class of a feature; QuPath's objects need none."""
    classification = properties.get("classification") if isinstance(properties, dict) else None
    if classification is None or classification == {}:
        return UNCLASSIFIED
    name = classification if isinstance(classification, str) else _class_name(classification, where)
    return "ignore" if name.casefold() == IGNORED else name


def _class_name(classification: Any, where: str) -> str:
    """Return the name of a class, in the layout of today or in that of QuPath 0.3 and before."""
    classification = classification if isinstance(classification, dict) else {}
    if "names" in classification:  # of classes with sub-classes
        return ": ".join(map(str, part(classification, "names", list, where)))
    name = part(classification, "name", str, where)
    parent = classification.get("parentClass")
    return f"{_class_name(parent, where)}: {name}" if parent else name


def _polygons(geometry: dict[str, Any], where: str) -> Iterator[Rings]:
    """Yield the rings of each polygon of a geometry."""
    kind = part(geometry, "type", str, where)
    if kind == "GeometryCollection":
        for inner in part(geometry, "geometries", list, where):
            if isinstance(inner, dict) and inner.get("type") in AREAS:
                yield from _polygons(inner, where)
        return
    given = part(geometry, "coordinates", list, where)
    for rings in given if kind == "MultiPolygon" else [given]:
        if not isinstance(rings, list) or not rings:
            raise EMError(f"{where}: a polygon has no corners: correct it there")
        yield [points([corner[:2] for corner in ring] if _nested(ring) else ring, where) for ring in rings]


def _nested(ring: Any) -> bool:
    return isinstance(ring, list) and all(isinstance(corner, list) for corner in ring)


def _filler(geometry: dict[str, Any], where: str) -> Callable[[tuple[int, int]], Region]:
    """Return what fills a geometry: any of its polygons, each without its holes.

    QuPath takes polygons that it marked for ellipses, and those along the axes for rectangles.
    """
    rings = [ring for polygon in _polygons(geometry, where) for ring in polygon]
    if not rings:
        return lambda size: EMPTY
    corners = np.concatenate(rings)
    box: JavaBox = (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())
    if geometry.get("isEllipse") is True:
        return lambda size: fill_java_ellipse(box, size)
    if geometry["type"] == "Polygon" and len(rings) == 1 and _is_box(corners):
        return lambda size: fill_java_box(box, size)
    return lambda size: fill_java(rings, size)


def _is_box(corners: np.ndarray) -> bool:
    """Tell whether a closed ring is a rectangle along the axes."""
    if len(corners) != 5 or (corners[0] != corners[-1]).any():
        return False
    along = np.diff(corners, axis=0) != 0  # (4, 2): which coordinate changes
    return bool((along.sum(axis=1) == 1).all() and (along[0] == along[2]).all() and (along[0] != along[1]).all())


def qupath_feature(label: str, region: Region) -> dict[str, Any]:
    """Return an annotation along the edges of pixels."""
    polygons = [[_closed(ring) for ring in outline(piece)] for piece in parts_of(region)]
    single = len(polygons) == 1
    geometry = {"type": "Polygon" if single else "MultiPolygon", "coordinates": polygons[0] if single else polygons}
    # without a colour QuPath refuses the file
    properties = {"objectType": "annotation", "classification": {"name": label, "color": COLOUR}}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _closed(ring: np.ndarray) -> list[list[int]]:
    return [*ring.tolist(), ring[0].tolist()]
