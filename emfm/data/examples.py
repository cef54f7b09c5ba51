"""Micrographs with what a network shall make of them: class maps, or target images."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np

from emfm.data.restoration_pairs import Degradation
from emfm.errors import EMError
from emfm.no_data import no_data, without

# A pixel with this class index has no truth: it takes part in no loss and no figure.
IGNORED = -100
# Pixels of a split from which the relation between the units of inputs and targets is found.
UNIT_SAMPLE = 200_000
# Pairs whose units differ must resemble each other at least this much.
LEAST_CORRELATION = 0.15


@dataclass(frozen=True)
class Examples:
    """Micrographs in memory."""

    images: list[np.ndarray]  #: (H, W), in the files' own dtype
    names: list[str]  #: of the files; of slice 2 of a stack "v.tif[2]"
    pixel_sizes: list[float | None]  #: nm per pixel of each image, None where the file does not say

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        raise EMError(
            "micrographs are no rows of tensors: EMTrainer trains on them, evaluate and predict measure them; their "
            "images are in `images`, their truth in `truth(index)`"
        )

    @property
    def scale(self) -> int:
        """Pixels of the truth per image pixel and axis."""
        return 1

    @property
    def degrade(self) -> str | None:
        """By which damage the pairs are made; None where the truth was given."""
        return None

    @property
    def like(self) -> "Examples":
        """Examples of the same kind, as a stream has them, too: these themselves."""
        return self

    def to_measure(self) -> "Examples":
        """Return whole micrographs with their truth, to predict and to compare."""
        return self

    def take(self, count: int, seed: int = 0) -> Self:
        """Return `count` micrographs drawn by `seed`; the first n are among the first n + 1.

        Raises:
            EMError: there are fewer.
        """
        if not 1 <= count <= len(self):
            raise EMError(f"{count} images were asked for; the split has {len(self)}: choose 1 to {len(self)}")
        return self.only(np.random.default_rng(seed).permutation(len(self))[:count].tolist())

    def without(self, nodata: float | None) -> Self:
        """Return the micrographs with NaN where they hold a value that stands for no data."""
        if nodata is None:
            return self
        return replace(self, images=[without(image, nodata) for image in self.images])

    def part(self, start: int, stop: int) -> Self:
        """Return the micrographs `start` to `stop - 1`."""
        return self.only(range(start, stop))

    def held_out(self, seed: int = 0) -> tuple[Self, Self]:
        """Return the micrographs without a fifth of them, and that fifth, drawn by `seed`.

        Slices of a stack resemble each other: those of one file stay on one side. Of a single stack
        the last fifth is held out.
        """
        wanted, stacks = len(self) // 5, self._stacks()
        if len(stacks) == len(self):
            order = np.random.default_rng(seed).permutation(len(self)).tolist()
            return self.only(order[wanted:]), self.only(order[:wanted])
        if len(stacks) == 1:
            return self.part(0, len(self) - wanted), self.part(len(self) - wanted, len(self))
        most = max(wanted, min(map(len, stacks)))
        chosen: list[int] = []
        for number in np.random.default_rng(seed).permutation(len(stacks)):
            if len(chosen) + len(stacks[number]) <= most:
                chosen += stacks[number]
        kept = sorted(set(range(len(self))) - set(chosen))
        return self.only(np.random.default_rng(seed).permutation(kept).tolist()), self.only(chosen)

    def _stacks(self) -> list[list[int]]:
        """Return the indices of the slices of each file, in a row."""
        files: dict[str, list[int]] = {}
        for index, name in enumerate(self.names):
            file = name.rpartition("[")[0] if name.endswith("]") else f"{index} {name}"
            files.setdefault(file, []).append(index)
        return list(files.values())

    def only(self, chosen: Sequence[int]) -> Self:
        """Return the micrographs of these indices."""
        lists = [field.name for field in fields(self) if isinstance(getattr(self, field.name), list)]
        changes: dict[str, Any] = {name: [getattr(self, name)[i] for i in chosen] for name in lists}
        return replace(self, **changes)

    def truth(self, index: int) -> np.ndarray:
        """Return what the network shall make of micrograph `index`."""
        raise NotImplementedError


@dataclass(frozen=True)
class LabelledMicrographs(Examples):
    """Micrographs with class maps."""

    #: (H, W) int16 class indices 0..K-1, each of its image's size; -100 where there is no truth
    masks: list[np.ndarray]
    id2label: dict[int, str]  #: class names by their index

    def __post_init__(self):
        for image, mask in zip(self.images, self.masks, strict=True):
            missing = no_data(image)
            if missing is not None:
                mask[missing] = IGNORED  # nobody knows what is there

    def truth(self, index: int) -> np.ndarray:
        """Return the class map of micrograph `index`."""
        return self.masks[index]

    def balanced_weights(self, power: float = 1.0) -> list[float]:
        """Return a weight for each class, with a mean of 1 over the pixels.

        Args:
            power: a class weighs the inverse of its share of the pixels to this power: 1 lets all
                classes count alike, 0 all pixels. A class that does not occur gets the weight 1.
        """
        counts = np.zeros(len(self.id2label))
        for mask in self.masks:
            counts += np.bincount(mask[mask >= 0].ravel(), minlength=len(counts))
        raw = np.maximum(counts, 1) ** -power
        mean = (raw * counts).sum() / max(counts.sum(), 1)
        return [float(weight / mean) if count else 1.0 for weight, count in zip(raw, counts, strict=True)]


@dataclass(frozen=True)
class PairedMicrographs(Examples):
    """Micrographs with target images."""

    targets: list[np.ndarray]  #: (H * scale, W * scale); NaN where there are no data
    scale: int = 1  #: target pixels per image pixel and axis, above 1 for super-resolution

    def __post_init__(self):
        for index, image in enumerate(self.images):
            missing = no_data(image)
            if missing is not None:  # what is not seen is not learnt
                missing = missing.repeat(self.scale, axis=0).repeat(self.scale, axis=1)
                target = self.targets[index]
                floats = target if target.dtype.kind == "f" else target.astype(np.float64)
                self.targets[index] = np.where(missing, np.nan, floats).astype(floats.dtype)

    def truth(self, index: int) -> np.ndarray:
        """Return the target of micrograph `index`."""
        return self.targets[index]

    def target_units(self) -> tuple[float, float]:
        """Return (gain, offset) from target values to the image's units: `gain * value + offset`.

        Targets are usually in their image's own units: (1, 0). Where they are not, say floats 0
        to 1 beside 16-bit counts, the least-squares line of image over target gives them; noise of
        zero mean does not bend it. A slope of 1/2 to 2, as from a blur, counts as the same units.

        Raises:
            EMError: units differ, and images and targets do not correlate enough to say how.
        """
        samples = [self._sample(index) for index in range(len(self))]
        target = np.concatenate([values for values, _ in samples])
        image = np.concatenate([values for _, values in samples])
        spread = float(np.var(target))
        if spread == 0:
            return 1.0, 0.0
        shared = float(np.mean((target - target.mean()) * (image - image.mean())))
        # a target may have its contrast inverted; its units are then still those of the image
        gain = abs(shared) / spread
        correlation = abs(shared) / np.sqrt(spread * max(float(np.var(image)), 1e-300))
        if 0.5 <= gain <= 2:
            return 1.0, 0.0
        if correlation < LEAST_CORRELATION:
            raise EMError(
                f"images and targets hardly resemble each other (correlation {correlation:.2f}): "
                "equal file names must mean the same place, and targets be in the images' units"
            )
        return gain, float(image.mean() - gain * target.mean())

    def _sample(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return values of target and image at the same places."""
        image, target = self.images[index], self.targets[index][:: self.scale, :: self.scale]
        stride = max(1, int(np.sqrt(image.size * len(self) / UNIT_SAMPLE)))
        values = [np.asarray(part[::stride, ::stride], dtype=np.float64).ravel() for part in (target, image)]
        known = np.isfinite(values[0]) & np.isfinite(values[1])
        return values[0][known], values[1][known]


@dataclass(frozen=True)
class CleanMicrographs(Examples):
    """Clean micrographs from which pairs are made: a new damage for every training crop."""

    degradation: Degradation

    def __post_init__(self):
        smallest = 16 * self.scale
        for image, name in zip(self.images, self.names, strict=True):
            if min(image.shape) < smallest:
                raise EMError(
                    f"{name} is {image.shape[0]} x {image.shape[1]} pixels; '{self.degrade}' "
                    f"needs at least {smallest} a side: leave it out"
                )

    @property
    def scale(self) -> int:
        """Target pixels per image pixel and axis."""
        return self.degradation.scale

    @property
    def degrade(self) -> str:
        """By which damage the pairs are made."""
        return self.degradation.kind

    def truth(self, index: int) -> np.ndarray:
        """Return the clean micrograph."""
        return self.images[index]

    def to_measure(self) -> PairedMicrographs:
        """Return whole micrographs, each damaged once, always alike, with the clean as targets.

        Damaged ones are float32 in the clean one's units, not cut off at its dtype's limits. Where
        pixels become larger, up to `scale - 1` rows and columns at the lower right are left out.
        """
        damaged = [self.degradation.whole(image, index) for index, image in enumerate(self.images)]
        targets = [
            image[: part.shape[0] * self.scale, : part.shape[1] * self.scale]
            for image, part in zip(self.images, damaged, strict=True)
        ]
        sizes = [size if size is None else size * self.scale for size in self.pixel_sizes]
        return PairedMicrographs(damaged, self.names, sizes, targets, self.scale)
