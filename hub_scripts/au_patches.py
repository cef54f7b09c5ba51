"""Micrographs of gold nanoparticles with their labels, cut into patches as the authors of the paper did."""

from pathlib import Path

import numpy as np
from au_files import IMAGES, LABELS, open_stack, read_one

from emfm.errors import EMError
from emfm.hub.datasets.encoded_image import EncodedImage, encode_image

PATCH = 512
# (index of the micrograph, first row, first column)
Patch = tuple[int, int, int]


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
        self._images = open_stack(folder / f"{name}{IMAGES}", "images")
        self._labels = open_stack(folder / f"{name}{LABELS}", "labels")
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
            labels = read_one(self._labels, index)
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
            self._held = index, read_one(self._images, index), read_one(self._labels, index)
        window = np.s_[row : row + PATCH, column : column + PATCH]
        name = f"{self.name}_{index:03d}_{row:04d}_{column:04d}"
        mask = (self._held[2][window] > 0).astype(np.uint8) * np.uint8(255)
        return {"image": encode_image(self._held[1][window], name), "mask": encode_image(mask, name)}
