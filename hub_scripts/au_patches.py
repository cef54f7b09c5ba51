"""Reads the HDF5 files of Sytwu et al. 2022: stacks of micrographs and of particle labels, cut into patches.

The layout is that of the authors' own code (github.com/ScottLabUCB/HRTEM-Receptive-Field): `NAME_Images.h5` holds the
dataset `images`, `NAME_Labels.h5` the dataset `labels`, both (N, H, W), labels 0 or 1.
"""

from pathlib import Path
from typing import Any

import numpy as np
from prepare_command import contents

from emfm.data.encoded_image import EncodedImage, encode_image
from emfm.errors import EMError

PATCH = 512
IMAGES, LABELS = "_Images.h5", "_Labels.h5"
# (index of the micrograph, first row, first column)
Patch = tuple[int, int, int]


def find_pair(folder: Path, size: str, name: str | None) -> str:
    """Return the name that the two files of a set begin with.

    Args:
        folder: with the HDF5 files.
        size: of the particles as the file names have it, as "2p2nm".
        name: what the user chose, None for the only one there is.

    Raises:
        EMError: there is no such pair, or more than one.
    """
    found = [path.name.removesuffix(IMAGES) for path in sorted(folder.glob(f"*{IMAGES}"))]
    pairs = [stem for stem in found if (folder / f"{stem}{LABELS}").is_file()]
    if name is not None:
        if name in pairs:
            return name
        known = f"has the pairs {', '.join(pairs)}" if pairs else f"holds {contents(folder)}"
        raise EMError(f"there are no {folder / name}{IMAGES} and {name}{LABELS}; {folder} {known}")
    fitting = [stem for stem in pairs if stem.startswith(f"Au_{size}_")]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise EMError(f"{folder} has several pairs for Au_{size}: {', '.join(fitting)}; choose with --pair")
    raise EMError(
        f"{folder} has no pair of files Au_{size}_*{IMAGES} and Au_{size}_*{LABELS}; found {', '.join(pairs) or 'none'}"
        f" (the folder holds {contents(folder)}); if the set has another name, give it with --pair"
    )


class MicrographStack:
    """The micrographs and labels of one pair of files; one micrograph is in memory at a time.

    Args:
        folder: with the files.
        name: they begin with.

    Raises:
        EMError: h5py is missing, a file is broken, or the layout is another.
    """

    def __init__(self, folder: Path, name: str):
        self.name = name
        self._images = _open(folder / f"{name}{IMAGES}", "images")
        self._labels = _open(folder / f"{name}{LABELS}", "labels")
        if self._images.shape != self._labels.shape:
            raise EMError(f"{name}: images have the shape {self._images.shape}, labels {self._labels.shape}")
        _, height, width = self._images.shape
        if min(height, width) < PATCH:
            raise EMError(f"{name}: micrographs are {height} x {width}; expected at least {PATCH} pixels a side")
        self._held: tuple[int, np.ndarray, np.ndarray] | None = None

    def patches(self, min_particle_pixels: int) -> list[Patch]:
        """Return the patches with more than so many particle pixels, in the order of the file.

        Raises:
            EMError: labels are not 0 and 1.
        """
        rows, columns = (side // PATCH for side in self._labels.shape[1:])
        found = []
        for index in range(self._labels.shape[0]):
            labels = self._read(self._labels, index)
            values = np.unique(labels)
            if not np.isin(values, (0, 1)).all():
                shown = ", ".join(f"{value:g}" for value in values[:8])
                raise EMError(f"{self.name}{LABELS}, labels {index}: values {shown}; expected 0 and 1")
            whole = labels[: rows * PATCH, : columns * PATCH] > 0  # the authors' patches leave out the rest, too
            blocks = whole.reshape(rows, PATCH, columns, PATCH).sum(axis=(1, 3))
            found += [
                (index, int(row) * PATCH, int(column) * PATCH)
                for row, column in np.argwhere(blocks > min_particle_pixels)
            ]
        return found

    def row(self, patch: Patch) -> dict[str, EncodedImage]:
        """Return a patch and its mask, 255 where the label is 1.

        Raises:
            EMError: the dtype cannot be kept, or pixels are not finite.
        """
        index, row, column = patch
        if self._held is None or self._held[0] != index:
            self._held = index, self._read(self._images, index), self._read(self._labels, index)
        window = np.s_[row : row + PATCH, column : column + PATCH]
        name = f"{self.name}_{index:03d}_{row:04d}_{column:04d}"
        mask = (self._held[2][window] > 0).astype(np.uint8) * np.uint8(255)
        return {"image": encode_image(self._held[1][window], name), "mask": encode_image(mask, name)}

    def _read(self, stack: Any, index: int) -> np.ndarray:
        try:
            return stack[index]
        except OSError as error:
            raise EMError(
                f"{stack.file.filename}: {stack.name[1:]} {index} is damaged ({error}); download it again"
            ) from error


def _open(path: Path, key: str) -> Any:
    """Return a dataset (N, H, W) of an HDF5 file, unread."""
    try:
        import h5py
    except ImportError as error:
        raise EMError("reading HDF5 files needs h5py: pip install h5py") from error
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise EMError(f"{path} is damaged or no HDF5 file ({error}); download it again") from error
    stack = file.get(key)
    if not isinstance(stack, h5py.Dataset) or stack.ndim != 3 or 0 in stack.shape:
        held = ", ".join(f"'{name}' {getattr(item, 'shape', 'group')}" for name, item in file.items()) or "nothing"
        raise EMError(f"{path} holds {held}; expected a dataset '{key}' of shape (images, height, width)")
    return stack
