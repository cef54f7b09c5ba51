"""`emfm labels import`: labels of other programs become a labelled folder."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from emfm.errors import EMError
from emfm.files import whole_folder, writable_folder, write_atomically, write_text
from emfm.io.reading import FileChoice
from emfm.io.writing import write_image
from emfm.labels.arguments import ImportArguments
from emfm.labels.painting import PaintedImage, Paintings

COLOURED = FileChoice(colour="luminance")  # only sizes are asked for


@dataclass(frozen=True)
class Imported:
    """What an import made."""

    folder: Path
    images: int
    shapes: int  #: that cover pixels
    classes: tuple[str, ...]
    format: str


def import_labels(source: str | Path, output: str | Path, arguments: ImportArguments | None = None) -> Imported:
    """Make a labelled folder from labels of another program; nothing is written if a file is wrong.

    Polygons become masks as their program fills them (docs/labels.md says how).

    Args:
        source: a file of labels, or a folder of them.
        output: the new folder: `images/` (copies), `masks/`, `labels.json`, `splits.json`, and with
            `arguments.instances` the numbers of objects in `instances/`.
        arguments: how; the defaults if None.

    Raises:
        EMError: a file is damaged, belongs to no image or does not fit it, a shape lies outside, or
            the folder is there.
    """
    how, source, output = arguments or ImportArguments(), Path(source), Path(output)
    writable_folder(output)
    if output.is_dir() and any(output.iterdir()):
        raise EMError(f"{output} is not empty: choose another --output")
    paintings = Paintings(source, how, COLOURED)
    with whole_folder(output) as temporary:
        for painted in paintings:
            _copy(painted.path, temporary / "images" / painted.name)
            _write(temporary / "masks" / painted.mask_name, painted.masks, painted.stack)
            if how.instances:
                _write_ids(temporary / "instances" / painted.mask_name, painted)
        labels = paintings.classes.labels(paintings.ignored)
        write_text(temporary / "labels.json", json.dumps(labels, indent=1, ensure_ascii=False))
        write_text(temporary / "splits.json", json.dumps({"train": paintings.names}, indent=1, ensure_ascii=False))
    names = paintings.names
    return Imported(output, len(names), paintings.shapes, paintings.classes.names, paintings.format)


def _write_ids(path: Path, painted: PaintedImage) -> None:
    """Write the numbers of objects, in 16 bits where these are enough."""
    few = max(int(numbers.max(initial=0)) for numbers in painted.ids) < 2**16
    found = [numbers.astype(np.uint16 if few else np.uint32) for numbers in painted.ids]
    _write(path.with_suffix(".tif"), found, painted.stack)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():  # Zarr
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _write(path: Path, slices: list[np.ndarray], stack: bool) -> None:
    """Write a mask, or the masks of a stack."""
    if stack:
        path = path.with_suffix(".tif")
        write_atomically(
            path, lambda temporary: tifffile.imwrite(temporary, np.stack(slices), photometric="minisblack")
        )
    else:
        write_image(path, slices[0])
