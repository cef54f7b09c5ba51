"""Noisy micrographs without clean targets, and what is learnt from them.

Pixels are hidden, and the network must say what they are: it can learn everything but the noise,
which its neighbours do not know (Noise2Void, Krull et al. 2019, arXiv:1811.10980). A hidden pixel
shows the median of its neighbours, as in its second version (Hoeck et al. 2022, arXiv:2211.08512).
Where noise runs along lines, a part of the line is hidden (Broaddus et al. 2020). Of frames of one
place each is the other's target (Noise2Noise, Lehtinen et al. 2018, arXiv:1803.04189).
"""

import logging
from collections import Counter
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from emfm.data.augmentation import Augmentation
from emfm.data.croppers import Key, cut, dihedral, random_corner
from emfm.data.examples import Examples, PairedMicrographs
from emfm.data.kinds import columns_of
from emfm.data.labelled_folder import named_slice, open_labelled_folder
from emfm.data.noise import noise_correlation, same_place
from emfm.errors import EMError
from emfm.io.reading import FileChoice, Micrograph, read_slices
from emfm.processing import EMImageProcessor, IntensityStatistics

logger = logging.getLogger(__name__)
# Share of the pixels that are hidden at a time, and the side of the square of their neighbours.
HIDDEN, NEIGHBOURS = 0.02, 5
# Of each of so many micrographs the noise is measured.
MEASURED = 8
# Side in pixels of what evaluations of noisy micrographs look at.
CORNER = 64


@dataclass(frozen=True)
class NoisyMicrographs(Examples):
    """Micrographs that are their own truth where pixels are hidden."""

    noise: str  #: "pixels", "rows" or "columns"
    length: int  #: pixels on each side of a hidden one that are hidden with it, along the lines

    def truth(self, index: int) -> np.ndarray:
        """Return that nobody knows the clean micrograph `index`: NaN."""
        return np.full(self.images[index].shape, np.nan, dtype=np.float32)

    def corner(self) -> "NoisyMicrographs":
        """Return a corner of the first: evaluations that measure nothing shall cost little."""
        first = self.part(0, 1)
        return replace(first, images=[first.images[0][:CORNER, :CORNER]])


@dataclass(frozen=True)
class Repeats(PairedMicrographs):
    """Micrographs whose targets show the same place with noise of their own."""


@dataclass(frozen=True)
class BlindSpotCropper:
    """Cuts crops of which some pixels are hidden; these alone are the truth."""

    processor: EMImageProcessor
    side: int  # of a crop in pixels
    augmentation: Augmentation
    noise: str
    length: int

    def prepare(self, image: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, IntensityStatistics]:
        """Return a micrograph and its statistics."""
        return image, self.processor.statistics(image)

    def crop(self, prepared: tuple[np.ndarray, IntensityStatistics], key: Key) -> dict[str, Tensor]:
        """Cut the crop that the key (seed, epoch, index) decides."""
        image, statistics = prepared
        rng = np.random.default_rng(key)
        top, left = random_corner(rng, image, self.side)
        symmetry = int(rng.integers(8))
        part = cut(image, top, left, self.side)
        values = ((part - statistics.offset) / statistics.scale).astype(np.float32)
        missing = np.isnan(values)
        values = self.augmentation.draw(rng)(np.where(missing, 0, values).astype(np.float32))
        spots = rng.random(values.shape) < HIDDEN / (2 * self.length + 1 if self.noise != "pixels" else 1)
        shown = np.where(self._hidden(spots), _median_of_neighbours(values), values)
        labels = np.where(spots & ~missing, values, np.float32(np.nan))
        limit = np.float32(self.processor.clip)
        turned = [
            dihedral(array.astype(np.float32), symmetry)[None] for array in (np.clip(shown, -limit, limit), labels)
        ]
        return {"pixel_values": torch.from_numpy(turned[0]), "labels": torch.from_numpy(turned[1])}

    def _hidden(self, spots: np.ndarray) -> np.ndarray:
        """Return which pixels are hidden: the spots, and those along their lines."""
        if self.noise == "pixels":
            return spots
        line = np.ones((1, 2 * self.length + 1), dtype=bool)
        return ndimage.binary_dilation(spots, line if self.noise == "rows" else line.T)


def _median_of_neighbours(values: np.ndarray) -> np.ndarray:
    """Return for each pixel the median of those around it, itself left out."""
    around = np.ones((NEIGHBOURS, NEIGHBOURS), dtype=bool)
    around[NEIGHBOURS // 2, NEIGHBOURS // 2] = False
    return ndimage.median_filter(values, footprint=around, mode="mirror")


def load_noisy(source: str | Path, split: str, noise: str, choice: FileChoice) -> Examples:
    """Load noisy micrographs to learn from: a folder, one with `images/`, or a file.

    Args:
        source: folder, or file such as a stack.
        split: of a folder with splits.
        noise: one of `NOISES`.
        choice: which dataset of HDF5, Zarr, DM and EMD files, and which grey of colour.

    Returns:
        `NoisyMicrographs`, or `Repeats` of frames. A line says what was chosen and why.

    Raises:
        EMError: there is nothing to read, or no frames where these are asked for.
    """
    path = Path(source)
    if path.is_file():
        micrographs = [named_slice(micrograph) for micrograph in read_slices(path, choice)]
    else:
        micrographs = [micrograph for micrograph, _, _ in open_labelled_folder(path, None, choice).records(split)]
    micrographs = [micrograph.without_data_bar() if micrograph.data_bar else micrograph for micrograph in micrographs]
    pairs = _pairs(micrographs) if noise in ("auto", "frames") else []
    if noise == "frames" and not pairs:
        raise EMError(f"{source} holds no stack whose neighbouring slices show the same place: choose another --noise")
    if pairs:
        logger.warning("%s: %d pairs of slices of one place: each is the other's target", source, len(pairs))
        both = [*pairs, *((second, first) for first, second in pairs)]
        images, targets = ([pair[side] for pair in both] for side in (0, 1))
        return Repeats(*columns_of(images), [target.array for target in targets], 1)
    chosen, length = _choice(micrographs, noise, str(source))
    return NoisyMicrographs(*columns_of(micrographs), chosen, length)


def _pairs(micrographs: list[Micrograph]) -> list[tuple[Micrograph, Micrograph]]:
    """Return neighbouring slices of stacks, if all that are looked at show the same place."""
    pairs = []
    for _, group in groupby(micrographs, key=lambda one: one.name.rpartition("[")[0] or one.name):
        pairs += list(pairwise(group))
    looked_at = pairs[:: max(1, len(pairs) // MEASURED)]
    return pairs if pairs and all(same_place(first.array, second.array) for first, second in looked_at) else []


def _choice(micrographs: list[Micrograph], noise: str, source: str) -> tuple[str, int]:
    """Return what is hidden, and how long, from the noise of some micrographs."""
    some = micrographs[:: max(1, len(micrographs) // MEASURED)]
    measured = [noise_correlation(micrograph.array) for micrograph in some]
    across, down = (
        float(np.mean(values)) for values in ([m.rows[0] for m in measured], [m.columns[0] for m in measured])
    )
    kind = Counter(one.kind for one in measured).most_common(1)[0][0] if noise == "auto" else noise
    length = max(one.reach for one in measured) if kind != "pixels" else 0
    told = f"the noise of neighbours correlates by {across:.2f} along rows, {down:.2f} along columns"
    hidden = "single pixels are hidden" if kind == "pixels" else f"{2 * length + 1} pixels along {kind} are hidden"
    logger.warning("%s: %s: %s", source, told, hidden)
    return kind, length
