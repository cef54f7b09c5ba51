"""Folders of micrographs, labelled or not, as the rows of a dataset that is to be published."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emfm.data.classes import GreyValues
from emfm.data.kinds import class_map, target_scale
from emfm.data.labelled_folder import TRUTHS, folder_classes, folder_splits, folder_truth, truth_path
from emfm.errors import EMError
from emfm.hub.datasets.card import Row
from emfm.hub.datasets.encoded_image import published_file
from emfm.io.reading import SUFFIXES, list_micrographs


@dataclass
class ImageFolder:
    """What a folder holds."""

    folder: Path  # of the user
    images: Path  # folder with the images
    truth: str | None  # "masks", "targets" or None
    splits: dict[str, list[str]]  # split: names of its images, relative to `images`
    classes: GreyValues | None  # of the masks
    _scale: int | None = field(default=None, init=False)

    @property
    def labels(self) -> Mapping[str, str] | None:
        """What labels.json shall say."""
        return {str(value): name for value, name in self.classes.names.items()} if self.classes else None

    def row(self, name: str) -> Row:
        """Return an image with its truth; an EMError names a damaged or unfit file."""
        image, micrograph = published_file(self.images / name, name)
        if self.truth is None:
            return {"image": image}
        path = truth_path(self.folder, self.images, name, self.truth)
        truth, shown = published_file(path, path.relative_to(self.folder / self.truth).as_posix())
        if self.classes is not None:
            class_map(shown.array, micrograph, self.classes, str(path))
        else:
            self._scale = target_scale(shown.array, micrograph, self._scale, str(path))
        return {"image": image, TRUTHS[self.truth]: truth}

    def unused(self) -> int:
        """Return how many images are in no split."""
        return len(set(_visible(self.images)).difference(*self.splits.values()))


def open_image_folder(folder: Path) -> ImageFolder:
    """Open a folder with `images/` and `masks/` or `targets/`, with `images/` alone, or of micrographs alone.

    `labels.json` and `splits.json` are as in `load_em_dataset`. Files and folders whose names begin with a dot are
    left out. An EMError says what is missing.
    """
    if not folder.is_dir():
        raise EMError(f"there is no folder {folder}; expected a folder of micrographs")
    truths = [truth for truth in TRUTHS if (folder / truth).is_dir()]
    truth = folder_truth(folder) if truths else None
    images = folder / "images" if (folder / "images").is_dir() else folder
    if images == folder:
        labelled = sorted(part.parent.name for truth in TRUTHS for part in folder.glob(f"*/{truth}"))
        if labelled:
            raise EMError(
                f"{folder} holds {len(labelled)} labelled folders, each a dataset: push {folder / labelled[0]}"
            )
    visible = _visible(images)
    if not visible:
        raise EMError(f"{images} holds no image; looked for {', '.join(SUFFIXES)}")
    splits = folder_splits(folder, images) if (folder / "splits.json").is_file() else {"train": visible}
    for split, names in splits.items():
        if not re.fullmatch(r"\w+", split):
            raise EMError(f"splits.json names a split '{split}'; expected letters, digits and underscores")
        if truth:
            for name in names:
                truth_path(folder, images, name, truth)  # or an error, before anything is read
    return ImageFolder(folder, images, truth, splits, folder_classes(folder) if truth == "masks" else None)


def _visible(images: Path) -> list[str]:
    found = (path.relative_to(images) for path in list_micrographs(images))
    return [name.as_posix() for name in found if not any(part.startswith(".") for part in name.parts)]
