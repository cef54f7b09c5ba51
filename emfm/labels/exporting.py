"""`emfm labels export`: a labelled folder's masks as labels of other programs."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from emfm.class_names import is_background
from emfm.data.classes import IGNORE, GreyValues
from emfm.data.examples import IGNORED
from emfm.data.labelled_folder import LabelledFolder, folder_classes, open_labelled_folder
from emfm.errors import EMError
from emfm.files import whole_folder, writable_folder
from emfm.io.masks import read_masks
from emfm.labels.arguments import ExportArguments
from emfm.labels.outlines import parts_of
from emfm.labels.review import reviewed_regions
from emfm.labels.shapes import Region
from emfm.labels.writing import WRITERS, LabelledImage, Object, write_label_images


@dataclass(frozen=True)
class Exported:
    """What an export wrote, and what `emfm labels import` has to be told to read it back."""

    folder: Path
    images: int
    objects: int
    unlabelled: str  #: "ignore" where the background was drawn, too
    classes: tuple[str, ...] | None  #: of the numbers of a label image, from 1


def export_labels(folder: str | Path, output: str | Path, arguments: ExportArguments | None = None) -> Exported:
    """Write the masks of a labelled folder as labels that another program opens.

    Every connected part of a class is an object of its own, or with `arguments.instances` every
    number in `instances/`. The background is drawn only where the masks hold "ignore", or where
    there is no background. Read back by `import_labels`, they are the masks again to the pixel.

    Args:
        folder: with `images/`, `masks/` and `labels.json`.
        output: folder for the files, which must be empty or missing.
        arguments: how; the defaults if None.

    Raises:
        EMError: a mask is missing or damaged, or the folder is in use.
    """
    folder, output, how = Path(folder), Path(output), arguments or ExportArguments()
    writable_folder(output)
    if output.is_dir() and any(output.iterdir()):
        raise EMError(f"{output} is not empty: choose another --output")
    opened = open_labelled_folder(folder, "drafts" if how.drafts else "masks")
    assert opened.truth is not None
    labels = folder_classes(folder, opened.truth)
    images = list(_images(opened, labels, set(reviewed_regions(folder)) if how.drafts else None))
    background = next((index for index, name in labels.id2label.items() if is_background(name)), None)
    explicit = background is None or any((part == IGNORED).any() for image in images for part in image.classes)
    shown = {index: name for index, name in labels.id2label.items() if explicit or index != background}
    instances = open_labelled_folder(folder, "instances") if how.instances else None
    numbers = None if instances is None else [_numbers(instances, image.name, labels) for image in images]
    unlabelled = "ignore" if explicit and instances is None else "background"
    with whole_folder(output) as temporary:
        if how.format == "napari":
            objects = write_label_images(temporary, images, shown, numbers)
            order = tuple(shown.values()) if instances is None else None
            return Exported(output, len(images), objects, unlabelled, order)
        drawn = [
            (image, _objects_of(image, shown, None if numbers is None else numbers[at][0], how))
            for at, image in enumerate(images)
        ]
        WRITERS[how.format](temporary, output, drawn, list(shown.values()))
    return Exported(output, len(images), sum(len(found) for _, found in drawn), unlabelled, None)


def _numbers(instances: LabelledFolder, name: str, labels: GreyValues) -> list[np.ndarray]:
    """Return the numbers of an image's objects, 0 where there is none or nobody knows."""
    unknown = [value for value, label in labels.names.items() if label.casefold() == IGNORE]
    assert instances.truth is not None
    found = []
    for mask in read_masks(instances.truth.path(name)):
        values = np.nan_to_num(mask.array) if mask.array.dtype.kind == "f" else mask.array
        found.append(np.where((values > 0) & ~np.isin(values, unknown), values, 0).astype(np.int64))
    return found


def _images(opened: LabelledFolder, labels: GreyValues, chosen: set[str] | None) -> Iterator[LabelledImage]:
    """Yield the images of a folder with their class indices; only the chosen ones where given."""
    assert opened.truth is not None
    for name in opened.names:
        if chosen is not None and name not in chosen:
            continue
        where = opened.truth.path(name)
        masks = read_masks(where)
        classes = [labels.indices(mask, str(where)) for mask in masks]
        yield LabelledImage(name, opened.images / name, classes, masks[0].index is not None)


def _objects_of(
    image: LabelledImage, shown: dict[int, str], numbers: np.ndarray | None, how: ExportArguments
) -> list[Object]:
    """Return the objects of an image: those that have numbers, else the parts of each class."""
    if image.stack:
        raise EMError(
            f"{image.path} is a stack; files of {how.format} are of one image: save each slice as its own file"
        )
    classes = image.classes[0]
    if numbers is None:
        parts = [(label, part) for index, label in shown.items() for part in parts_of(Region(0, 0, classes == index))]
        return [(label, number, part) for number, (label, part) in enumerate(parts, start=1)]
    found = []
    values, dense = np.unique(np.append(numbers.ravel(), 0), return_inverse=True)  # 0 is the first
    dense = dense[:-1].reshape(numbers.shape)
    for position, box in enumerate(ndimage.find_objects(dense), start=1):
        mask = dense[box] == position
        most = Counter(classes[box][mask].tolist()).most_common(1)[0][0]
        region = Region(box[0].start, box[1].start, mask)
        found.append((shown.get(most, "object"), int(values[position]), region))
    return found
