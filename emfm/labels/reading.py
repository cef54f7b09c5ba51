"""Which program made labels, and what they hold, whatever the program."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from emfm.errors import EMError
from emfm.io.listing import walk
from emfm.io.masks import MASK_SUFFIXES
from emfm.labels.arguments import UNLABELLED_OF, ImportArguments
from emfm.labels.formats.coco import is_coco, read_coco
from emfm.labels.formats.imagej import read_imagej
from emfm.labels.formats.json_parts import read_json
from emfm.labels.formats.label_images import HDF5, is_ilastik, read_ilastik, read_napari
from emfm.labels.formats.labelme import is_labelme, read_labelme
from emfm.labels.formats.qupath import is_qupath, read_qupath
from emfm.labels.formats.via import is_via, read_via
from emfm.labels.shapes import DrawnImage

SUFFIXES = {
    "labelme": (".json",),
    "coco": (".json",),
    "via": (".json",),
    "qupath": (".geojson", ".json"),
    "imagej": (".roi", ".zip"),
    "napari": MASK_SUFFIXES,
    "ilastik": (*HDF5, *MASK_SUFFIXES),
}
OWN = ("labels.json", "splits.json", "review.json")
FROM_JSON: dict[str, Callable[[Any], bool]] = {
    "labelme": is_labelme,
    "coco": is_coco,
    "qupath": is_qupath,
    "via": is_via,
}


def read_labels_of(source: Path, how: ImportArguments) -> tuple[str, list[DrawnImage]]:
    """Return the format of labels, and what was drawn on each image.

    Raises:
        EMError: there is nothing, or it is damaged or of another format.
    """
    form, files = _files(source, how.format)
    found: list[DrawnImage] = []
    for path in files:
        found += _read(path, form, how)
    if form not in ("napari", "ilastik") and not any(image.drawn for image in found):
        raise EMError(
            f"{source}: nothing is drawn in any of its {len(files)} files of labels; expected shapes with classes"
        )
    return form, found


def _read(path: Path, form: str, how: ImportArguments) -> list[DrawnImage]:
    if form == "via":
        return read_via(path, how.attribute)
    if form == "napari":
        return read_napari(path, how.instances)
    readers = {
        "labelme": read_labelme,
        "coco": read_coco,
        "qupath": read_qupath,
        "imagej": read_imagej,
        "ilastik": read_ilastik,
    }
    return readers[form](path)


def _files(source: Path, form: str) -> tuple[str, list[Path]]:
    """Return the format and the files of labels at a place."""
    if not source.exists():
        raise EMError(f"there is no file or folder {source}")
    everything = [source] if source.is_file() else [place / name for place, _, names in walk(source) for name in names]
    files = [path for path in everything if path.name.casefold() not in OWN]
    if form == "auto":
        form = _format_of(source, files)
    chosen = [path for path in files if path.suffix.lower() in SUFFIXES[form]]
    if form == "qupath" and any(path.suffix.lower() == ".geojson" for path in chosen):
        chosen = [path for path in chosen if path.suffix.lower() == ".geojson"]
    if not chosen:
        raise EMError(f"{source} holds no labels of {form}; looked for {', '.join(SUFFIXES[form][:6])}")
    return form, chosen


def _format_of(source: Path, files: Iterable[Path]) -> str:
    """Return which program made the labels, by the first file that tells it."""
    seen = []
    for path in files:
        suffix = path.suffix.lower()
        if suffix == ".geojson":
            return "qupath"
        if suffix in (".roi", ".zip"):
            return "imagej"
        if suffix in HDF5 and is_ilastik(path):
            return "ilastik"
        if suffix == ".json":
            content = read_json(path)
            known = next((name for name, fits in FROM_JSON.items() if fits(content)), None)
            if known is None:
                raise EMError(
                    f"{path} is JSON of none of {', '.join(FROM_JSON)}: take it away, or say which with --format"
                )
            return known
        seen.append(suffix)
    if any(suffix in MASK_SUFFIXES for suffix in seen):
        raise EMError(f"{source} holds images alone: say with --format whether napari or ilastik made them")
    raise EMError(f"{source} holds no labels of {', '.join(UNLABELLED_OF)}")
