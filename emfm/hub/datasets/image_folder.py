"""Folders of micrographs, labelled or not, as the rows of a dataset that is to be published."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emfm.data.classes import GreyValues
from emfm.data.json_files import find_entry
from emfm.data.kinds import class_map, target_scale
from emfm.data.labelled_folder import (
    TRUTHS,
    LabelledFolder,
    folder_classes,
    folder_truth,
    open_labelled_folder,
    truths_of,
)
from emfm.errors import EMError
from emfm.hub.datasets.card import Row
from emfm.hub.datasets.encoded_image import published_file, published_mask


@dataclass
class ImageFolder:
    """What a folder holds."""

    opened: LabelledFolder
    classes: GreyValues | None  # of the masks
    _scale: int | None = field(default=None, init=False)

    @property
    def images(self) -> Path:
        """The folder with the images."""
        return self.opened.images

    @property
    def truth(self) -> str | None:
        """Which truth it holds: "masks", "targets" or None."""
        return self.opened.truth.kind if self.opened.truth else None

    @property
    def splits(self) -> dict[str, list[str]]:
        """The names of each split's images, relative to `images`."""
        return self.opened.splits

    @property
    def labels(self) -> Mapping[str, str] | None:
        """What labels.json shall say."""
        return {str(value): name for value, name in self.classes.names.items()} if self.classes else None

    def row(self, name: str) -> Row:
        """Return an image with its truth; an EMError names a damaged or unfit file."""
        image, micrograph = published_file(self.images / name, name)
        files = self.opened.truth
        if files is None:
            return {"image": image}
        path = files.path(name)
        truth_name = path.relative_to(files.folder).as_posix()
        if self.classes is not None:
            truth, mask = published_mask(path, truth_name, self.classes)
            class_map(mask, micrograph, self.classes, str(path))
        else:
            truth, shown = published_file(path, truth_name)
            self._scale = target_scale(shown.array, micrograph, self._scale, str(path))
        return {"image": image, TRUTHS[files.kind]: truth}

    def unused(self) -> int:
        """Return how many images are in no split."""
        return len(self.opened.unused())


def open_image_folder(folder: Path) -> ImageFolder:
    """Open a folder with `images/` and perhaps `masks/` or `targets/`, or of micrographs alone.

    `labels.json` and `splits.json` are as in `load_em_dataset`. An EMError says what is missing.
    """
    if not folder.is_dir():
        raise EMError(f"there is no folder {folder}; expected a folder of micrographs")
    truth = folder_truth(folder) if truths_of(folder) else None
    if truth is None and find_entry(folder, "images", Path.is_dir) is None:
        found = sorted(part for part in folder.iterdir() if part.is_dir() and truths_of(part))
        if found:
            raise EMError(f"{folder} holds {len(found)} labelled folders, each a dataset: push {found[0]}")
    opened = open_labelled_folder(folder, truth)
    for split, names in opened.splits.items():
        if not re.fullmatch(r"\w+", split):
            raise EMError(f"splits.json names a split '{split}'; expected letters, digits and _")
        if opened.truth:
            for name in names:
                opened.truth.path(name)  # or an error, before anything is read
    if opened.truth:
        opened.truth.warn_of_unused()
    masks = opened.truth if truth == "masks" else None
    return ImageFolder(opened, folder_classes(folder, masks) if masks else None)
