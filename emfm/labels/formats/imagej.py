"""ImageJ and Fiji: selections as .roi files, or a .zip of the ROI Manager, through `roifile`."""

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import roifile

from emfm.errors import EMError
from emfm.labels.fill import fill_imagej, fill_imagej_oval
from emfm.labels.outlines import outline, parts_of
from emfm.labels.shapes import EMPTY, Drawn, DrawnImage, Region, box_of, common_name

UNNAMED = "object"
# ImageJ names selections after their place, and tells equal names apart by a number; emfm's own
# outlines of objects begin with it.
PLACE = re.compile(r"[0-9]+(-[0-9]+)*")
NUMBER = re.compile(r"^[0-9]+[-_ ]+(?=[^0-9])|[-_ ]+[0-9]+$")
# What file names say beside the image's name.
SET = re.compile(r"[-_ .]*roi[-_ ]*set[-_ .]*|[-_ .]+rois?$", re.IGNORECASE)
# Kinds of steps in the path of a composite selection; others are curves.
MOVE, LINE, CLOSE = 0, 1, 4
LARGEST = 2**28  # bytes of one selection


def read_imagej(path: Path) -> list[DrawnImage]:
    """Return the selections of a .roi file or a set of them, in the order of the ROI Manager.

    The class is the group, where a selection has one, else its name without place and number.

    Raises:
        EMError: the file is damaged.
    """
    found: dict[int | None, DrawnImage] = {}
    image = SET.sub("", path.stem) or path.stem
    for name, content in _contents(path):
        where = f"{path}, {name}" if path.suffix.lower() == ".zip" else str(path)
        roi = _decode(content, where)
        index = _slice(roi)
        drawn = found.setdefault(index, DrawnImage(str(path), image, index=index))
        kind, fill = _filler(roi, where)
        if fill is None:
            drawn.left_out[kind] += 1
        else:
            drawn.drawn.append(Drawn(_label(roi, name), where, fill))
    return list(found.values())


def _contents(path: Path) -> list[tuple[str, bytes]]:
    """Return names and bytes of the selections in a file."""
    content = path.read_bytes()
    if path.suffix.lower() != ".zip":
        return [(path.stem, content)]
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            entries = [entry for entry in file.infolist() if entry.filename.lower().endswith(".roi")]
            if not entries:
                raise EMError(f"{path} holds no .roi file; expected a set of the ROI Manager")
            if large := [entry.filename for entry in entries if entry.file_size > LARGEST]:
                raise EMError(f"{path}, {large[0]} claims more than {LARGEST // 2**20} MiB: it is no selection")
            return [(Path(entry.filename).stem, file.read(entry)) for entry in entries]
    except EMError:
        raise
    except Exception as error:  # zipfile and zlib tell damage in many classes
        raise EMError(f"{path} is damaged ({error}): save it again") from error


def _decode(content: bytes, where: str) -> Any:
    if content[:4] != b"Iout":
        raise EMError(f"{where} is no selection of ImageJ: {'it is empty' if not content else 'it begins otherwise'}")
    try:
        return roifile.ImagejRoi.frombytes(content)
    except EMError:
        raise
    except Exception as error:  # roifile has no class of its own for damage
        raise EMError(f"{where} is damaged ({error}): save it again") from error


def _slice(roi: Any) -> int | None:
    """Return the slice that a selection belongs to, None where it belongs to all."""
    number = roi.position or roi.z_position or roi.t_position
    return number - 1 if number else None


def _label(roi: Any, name: str) -> str:
    if roi.group:
        return f"group {roi.group}"
    name = NUMBER.sub("", roi.name or name).strip()
    return UNNAMED if not name or PLACE.fullmatch(name) else common_name(name)


def _filler(roi: Any, where: str) -> tuple[str, Callable[[tuple[int, int]], Region] | None]:
    """Return what kind a selection is, and what fills it: None where it has no area."""
    kinds, options = roifile.ROI_TYPE, roifile.ROI_OPTIONS
    kind = roi.roitype
    box = (roi.left, roi.top, roi.right, roi.bottom)
    if roi.multi_coordinates is not None and roi.shape_roi_size:
        rings = _path(roi.multi_coordinates, where)
        return "composite with curves", None if rings is None else lambda size: fill_imagej(rings, size)
    if kind == kinds.RECT and roi.rounded_rect_arc_size:
        return "rounded rectangle", None
    if kind == kinds.RECT:
        corners = np.array([[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]]], dtype=float)
        return "rectangle", lambda size: fill_imagej([corners], size)
    if kind == kinds.OVAL:
        return "oval", lambda size: fill_imagej_oval(box, size)
    if roi.options & options.SPLINE_FIT:
        return "curve that was fitted (spline)", None
    if kind in (kinds.POLYGON, kinds.FREEHAND, kinds.TRACED):
        corners = _corners(roi, where)
        return "polygon", lambda size: fill_imagej([corners], size)
    if kind == kinds.POINT:
        places = np.floor(_corners(roi, where) - box[:2] + 0.5) + box[:2]
        return "points", lambda size: _pixels(places, size)
    return f"{kind.name.lower()} selection", None


def _corners(roi: Any, where: str) -> np.ndarray:
    corners = np.asarray(roi.coordinates(), dtype=float)
    if corners.ndim != 2 or not len(corners) or not np.isfinite(corners).all():
        raise EMError(f"{where} has no corners: save it again")
    return corners


def _path(steps: np.ndarray, where: str) -> list[np.ndarray] | None:
    """Return the rings of a composite selection, None where it has curves."""
    rings: list[list[list[float]]] = []
    values, at = steps.astype(float).tolist(), 0
    while at < len(values):
        kind = values[at]
        if kind == CLOSE:
            at += 1
            continue
        if kind not in (MOVE, LINE):
            return None
        if at + 2 >= len(values) or (kind == LINE and not rings):
            raise EMError(f"{where} is damaged: its path is cut off; save it again")
        if kind == MOVE:
            rings.append([])
        rings[-1].append(values[at + 1 : at + 3])
        at += 3
    found = [np.array(ring) for ring in rings if len(ring) > 2]
    if not found or not all(np.isfinite(ring).all() for ring in found):
        raise EMError(f"{where} is damaged: its path has no corners; save it again")
    return found


def _pixels(places: np.ndarray, size: tuple[int, int]) -> Region:
    """Return one pixel for each place (N, 2) x, y."""
    top, bottom, left, right = box_of(places, size)
    if top >= bottom or left >= right:
        return EMPTY
    mask = np.zeros((bottom - top, right - left), dtype=bool)
    x, y = places.astype(int).T
    inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    mask[y[inside] - top, x[inside] - left] = True
    return Region(top, left, mask)


def imagej_selection(name: str, region: Region) -> bytes:
    """Return a selection along the edges of pixels: a traced one, or a composite with holes."""
    rings = [ring for piece in parts_of(region) for ring in outline(piece)]
    if len(rings) == 1:
        roi = roifile.ImagejRoi.frompoints(rings[0], name=name)
        roi.roitype = roifile.ROI_TYPE.TRACED
        roi.right, roi.bottom = roi.right - 1, roi.bottom - 1  # corners lie between pixels
        return roi.tobytes()
    steps: list[float] = []
    for ring in rings:
        for number, (x, y) in enumerate(ring.tolist()):
            steps += [LINE if number else MOVE, x, y]
        steps.append(CLOSE)
    height, width = region.mask.shape
    roi = roifile.ImagejRoi(
        roitype=roifile.ROI_TYPE.RECT,
        name=name,
        left=region.left,
        top=region.top,
        right=region.left + width,
        bottom=region.top + height,
        shape_roi_size=len(steps),
        multi_coordinates=np.array(steps, dtype=np.float32),
    )
    return roi.tobytes()


def write_selections(path: Path, regions: dict[str, Region]) -> None:
    """Write a set of the ROI Manager: a selection for each name."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, region in regions.items():
            entry = zipfile.ZipInfo(f"{name.replace('/', '_')}.roi")  # of a fixed date: the same set is the same file
            file.writestr(entry, imagej_selection(name, region))
