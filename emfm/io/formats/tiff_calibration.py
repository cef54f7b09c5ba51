"""Pixel size and data bar of a TIFF file, as microscopes and image programs write them.

Sources in their order: OME, Thermo Fisher and FEI, Zeiss, DigitalMicrograph, JEOL, and at last the
resolution tags, with ImageJ's unit.
"""

import math
import re
from typing import Any
from xml.etree import ElementTree

import tifffile

from emfm.io.formats.planes import nanometres, pixel_side, side_in_nm

_RESOLUTION_UNIT = {2: 2.54e7, 3: 1e7}  # nm in an inch and a centimetre
# Over 10 micrometres a pixel is a printer's resolution (72 to 1200 dpi), not a microscope's.
LARGEST_OF_TAGS = 1e4
_TESCAN = 50431  # tag of TESCAN's settings
MOST_OF_BAR = 0.3  # share of a picture that a data bar may have
ZEISS_SIDE, ZEISS_WIDTH = 3, 1024  # place of the pixel size among Zeiss's unnamed values
Sides = tuple[float | None, float | None]


def pixel_size_of(tiff: tifffile.TiffFile, name: str) -> float | None:
    """Return nm a pixel from the first source that states it; the name is for warnings."""
    for source in (_ome, _thermo_fisher, _zeiss, _digital_micrograph):
        sides = source(tiff)
        if sides != (None, None):
            return pixel_side(*sides, name)
    sides = _resolution(tiff)
    magnification = _jeol_magnification(tiff)
    if magnification is not None:  # the tags say the size of a pixel of the camera
        x, y = (None if side is None else side / magnification for side in sides)
        sides = x, y
    elif max(sides[0] or 0, sides[1] or 0) >= LARGEST_OF_TAGS:
        return None
    return pixel_side(*sides, name)


def slice_distance_of(tiff: tifffile.TiffFile) -> float | None:
    """Return nm from a slice to the next: of OME, of ImageJ, or as emfm writes it; else None."""
    pixels = _ome_pixels(tiff)
    if pixels is not None:
        return side_in_nm(nanometres(pixels.get("PhysicalSizeZ"), pixels.get("PhysicalSizeZUnit", "um")))
    described = tiff.imagej_metadata or (tiff.shaped_metadata or [{}])[0]
    return side_in_nm(nanometres(described.get("spacing"), described.get("unit", "")))


def data_bar_of(tiff: tifffile.TiffFile) -> int:
    """Return how many rows at the bottom hold the microscope's settings, by its own words.

    FEI and Thermo Fisher: what the picture has below the scanned `ResolutionY` rows. TESCAN: the
    `ImageStripSize`.
    """
    page = tiff.pages.first
    height, width = page.imagelength, page.imagewidth
    image = (tiff.fei_metadata or {}).get("Image")
    rows = 0
    if isinstance(image, dict) and image.get("ResolutionX") == width and isinstance(image.get("ResolutionY"), int):
        rows = height - image["ResolutionY"]
    strip = page.tags.get(_TESCAN)
    if strip is not None:
        text = strip.value if isinstance(strip.value, str) else bytes(strip.value).decode("latin-1")
        stated = re.search(r"ImageStripSize=(\d+)", text)
        rows = int(stated[1]) if stated else rows
    return rows if 0 < rows <= MOST_OF_BAR * height else 0


def _ome(tiff: tifffile.TiffFile) -> Sides:
    """OME-XML: PhysicalSizeX and Y with their units, micrometres unless it says otherwise."""
    pixels = _ome_pixels(tiff)
    if pixels is None:
        return None, None
    x, y = (nanometres(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "um")) for axis in "XY")
    return x, y


def _ome_pixels(tiff: tifffile.TiffFile) -> ElementTree.Element | None:
    """Return what OME-XML says of the pixels, None where there is none."""
    if not tiff.is_ome or not tiff.ome_metadata:
        return None
    try:
        return ElementTree.fromstring(tiff.ome_metadata).find(".//{*}Pixels")
    except ElementTree.ParseError:
        return None


def _thermo_fisher(tiff: tifffile.TiffFile) -> Sides:
    """FEI and Thermo Fisher SEM: PixelWidth and PixelHeight in metres, of Scan or EScan."""
    content = tiff.fei_metadata or {}
    for section in ("Scan", "EScan"):
        scan = content.get(section)
        if isinstance(scan, dict) and "PixelWidth" in scan:
            return nanometres(scan["PixelWidth"], "m"), nanometres(scan.get("PixelHeight"), "m")
    camera, image = content.get("IRBeam"), content.get("Image")  # of a view of the chamber
    if isinstance(camera, dict) and isinstance(image, dict):
        return _share(camera.get("HFW"), image.get("ResolutionX")), _share(camera.get("VFW"), image.get("ResolutionY"))
    return None, None


def _share(metres: Any, pixels: Any) -> float | None:
    width = nanometres(metres, "m")
    return width / pixels if width and isinstance(pixels, int) and pixels > 0 else None


def _zeiss(tiff: tifffile.TiffFile) -> Sides:
    """Zeiss SEM: the size in the stored picture, from its named value or from that of the scan."""
    content = tiff.sem_metadata or {}
    entry = content.get("ap_image_pixel_size")
    if isinstance(entry, tuple) and len(entry) == 3:  # of the stored picture
        return nanometres(entry[1], entry[2]), None
    unnamed = content.get("")
    width = tiff.pages.first.imagewidth
    if isinstance(unnamed, tuple) and len(unnamed) > ZEISS_SIDE and width:
        # of a picture 1024 pixels wide, whatever width is stored
        return nanometres(float(unnamed[ZEISS_SIDE]) * ZEISS_WIDTH / width, "m"), None
    entry = content.get("ap_pixel_size")
    return (nanometres(entry[1], entry[2]) if isinstance(entry, tuple) and len(entry) == 3 else None), None


def _digital_micrograph(tiff: tifffile.TiffFile) -> Sides:
    """DigitalMicrograph's export: scale and unit along rows and columns in tags of its own."""
    tags = tiff.pages.first.tags
    x, x_unit, y, y_unit = (getattr(tags.get(code), "value", None) for code in (65009, 65003, 65010, 65004))
    return nanometres(x, x_unit), nanometres(y, y_unit)


def _jeol_magnification(tiff: tifffile.TiffFile) -> float | None:
    """JEOL SightX: the magnification of an image; infinite for diffraction, None of other files."""
    tags = tiff.pages.first.tags
    maker, text = tags.get("Make"), tags.get("ImageDescription")
    if maker is None or text is None or str(maker.value).strip("\0 ") != "JEOL Ltd.":
        return None
    try:
        report = ElementTree.fromstring(re.sub("[\0-\x1f]", "", str(text.value)))
    except ElementTree.ParseError:
        return None
    mode, value = report.findtext(".//ImageFormingSystem/ModeString"), report.findtext(".//SelectorValue")
    if mode is None or report.findtext(".//EosMode") != "eosTEM":
        return None
    try:
        magnification = float(value or "")
    except ValueError:
        return None
    return magnification if mode == "MAG" and magnification > 0 else math.inf


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
    return unit * tag.value[1] / tag.value[0]
