"""The side of a pixel that a TIFF file states, in nm: OME, microscope, ImageJ or resolution tags, in this order."""

from typing import Any
from xml.etree import ElementTree

import tifffile

from emfm.io.formats.planes import nanometres, pixel_side

_RESOLUTION_UNIT = {2: 2.54e7, 3: 1e7}  # nm in an inch and a centimetre
# 72 to 1200 dpi is a printer's resolution, not a microscope's: over 10 micrometres a pixel says nothing.
LARGEST_OF_TAGS = 1e4
Sides = tuple[float | None, float | None]


def tiff_pixel_size(tiff: tifffile.TiffFile, name: str) -> float | None:
    """Return nm a pixel from the first source that states it, None where none does; the name is for warnings."""
    for source in (_ome, _thermo_fisher, _zeiss, _resolution):
        sides = source(tiff)
        if sides != (None, None):
            return pixel_side(*sides, name)
    return None


def _ome(tiff: tifffile.TiffFile) -> Sides:
    """OME-XML: PhysicalSizeX and Y with their units, micrometres unless it says otherwise."""
    if not tiff.is_ome or not tiff.ome_metadata:
        return None, None
    try:
        pixels = ElementTree.fromstring(tiff.ome_metadata).find(".//{*}Pixels")
    except ElementTree.ParseError:
        return None, None
    if pixels is None:
        return None, None
    x, y = (nanometres(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "um")) for axis in "XY")
    return x, y


def _thermo_fisher(tiff: tifffile.TiffFile) -> Sides:
    """FEI and Thermo Fisher SEM: PixelWidth and PixelHeight in metres, of the scan or of the electron scan."""
    content = tiff.fei_metadata or {}
    for section in ("Scan", "EScan"):
        scan = content.get(section)
        if isinstance(scan, dict) and "PixelWidth" in scan:
            return nanometres(scan["PixelWidth"], "m"), nanometres(scan.get("PixelHeight"), "m")
    return None, None


def _zeiss(tiff: tifffile.TiffFile) -> Sides:
    """Zeiss SEM: the named value with its unit."""
    content = tiff.sem_metadata or {}
    for key in ("ap_image_pixel_size", "ap_pixel_size"):
        entry = content.get(key)
        if isinstance(entry, tuple) and len(entry) == 3:
            return nanometres(entry[1], entry[2]), None
    return None, None


def _resolution(tiff: tifffile.TiffFile) -> Sides:
    """Pixels per unit of the resolution tags: ImageJ's own unit, else inch or centimetre."""
    tags = tiff.pages.first.tags
    if tiff.is_imagej and tiff.imagej_metadata:
        unit = nanometres(1, tiff.imagej_metadata.get("unit", ""))
    else:
        tag = tags.get("ResolutionUnit")
        unit = _RESOLUTION_UNIT.get(int(tag.value)) if tag else None
    if unit is None:
        return None, None
    x, y = (_side(tags.get(f"{axis}Resolution"), unit) for axis in "XY")
    return x, y


def _side(tag: Any, unit: float) -> float | None:
    if tag is None or not isinstance(tag.value, tuple) or len(tag.value) != 2 or 0 in tag.value:
        return None
    side = unit * tag.value[1] / tag.value[0]
    return side if side < LARGEST_OF_TAGS else None
