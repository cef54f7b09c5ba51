"""QuPath: GeoJSON of one image, filled as QuPath's own label images are, holes kept."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from emfm.errors import EMError
from emfm.labels.fill import fill_java
from emfm.labels.formats.json_parts import part, points, read_json
from emfm.labels.outlines import outline, parts_of
from emfm.labels.shapes import EMPTY, Drawn, DrawnImage, Region

AREAS = ("Polygon", "MultiPolygon", "GeometryCollection")
UNCLASSIFIED = "object"
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
        polygons = list(_polygons(geometry, where))
        image.drawn.append(Drawn(label, where, lambda size: _fill(polygons, size)))


def _label(properties: Any, where: str) -> str:
    """Return the class of a feature; QuPath's objects need none."""
    classification = properties.get("classification") if isinstance(properties, dict) else None
    if classification is None:
        return UNCLASSIFIED
    if isinstance(classification, dict) and "names" in classification:  # of classes with sub-classes
        names = part(classification, "names", list, where)
        name = ": ".join(map(str, names))
    else:
        name = part(classification if isinstance(classification, dict) else {}, "name", str, where)
    return "ignore" if name.casefold() == IGNORED else name


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


def _fill(polygons: list[Rings], size: tuple[int, int]) -> Region:
    """Return the pixels of any of the polygons, each without its holes."""
    rings = [ring for polygon in polygons for ring in polygon]
    return fill_java(rings, size) if rings else EMPTY


def qupath_feature(label: str, region: Region) -> dict[str, Any]:
    """Return an annotation along the edges of pixels."""
    polygons = [[_closed(ring) for ring in outline(piece)] for piece in parts_of(region)]
    single = len(polygons) == 1
    geometry = {"type": "Polygon" if single else "MultiPolygon", "coordinates": polygons[0] if single else polygons}
    properties = {"objectType": "annotation", "classification": {"name": label}}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _closed(ring: np.ndarray) -> list[list[int]]:
    return [*ring.tolist(), ring[0].tolist()]
