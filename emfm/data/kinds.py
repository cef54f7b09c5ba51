"""What micrographs are learnt from: masks, targets or themselves, damaged. A function each."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from emfm.data.classes import IGNORE, GreyValues, values_as_classes
from emfm.data.examples import CleanMicrographs, LabelledMicrographs, PairedMicrographs
from emfm.data.labelled_folder import Record
from emfm.data.objects import UNKNOWN, LabelledObjects
from emfm.data.restoration_pairs import SCALES, Degradation
from emfm.errors import EMError
from emfm.io.large_images import LazyImage
from emfm.io.masks import Mask
from emfm.io.reading import Micrograph
from emfm.no_data import say_data_bar


def labelled(records: Iterable[Record], source: str, labels: GreyValues | None) -> LabelledMicrographs:
    """Return micrographs with class maps; without labels the masks' values say the classes."""
    if labels is None:
        records = list(records)
        masks = [_as_mask(mask) for _, mask, _ in records]
        labels = values_as_classes(masks, f"the dataset '{source}'", "its labels.json")
    micrographs, class_maps = [], []
    for given, truth, name in records:
        micrograph, mask = above_data_bar(given, truth)
        class_maps.append(class_map(_as_mask(mask), micrograph, labels, name))
        micrographs.append(micrograph)
    return LabelledMicrographs(*columns_of(micrographs), class_maps, labels.id2label)


def paired(records: Iterable[Record], scale: int | None) -> PairedMicrographs:
    """Return micrographs with targets; without a scale all have that of the first pair."""
    micrographs, targets = [], []
    for given, truth, name in records:
        micrograph, target = above_data_bar(given, truth)
        image = target.array
        scale = target_scale(image, micrograph, scale, name)
        micrographs.append(micrograph)
        targets.append(image)
    return PairedMicrographs(*columns_of(micrographs), targets, scale or 1)


def numbered(records: Iterable[Record], labels: GreyValues | None) -> LabelledObjects:
    """Return micrographs with numbers of objects; labels may name a number "ignore"."""
    unknown = [value for value, name in labels.names.items() if name.casefold() == IGNORE] if labels else []
    micrographs, numbers = [], []
    for given, truth, name in records:
        micrograph, mask = above_data_bar(given, truth)
        numbers.append(object_numbers(_as_mask(mask), micrograph, unknown, name))
        micrographs.append(micrograph)
    return LabelledObjects(*columns_of(micrographs), numbers)


def object_numbers(mask: Mask, micrograph: Micrograph, unknown: list[int], name: str) -> np.ndarray:
    """Return numbers of objects (H, W) int32, -1 where nobody knows: negative, NaN or so named.

    Raises:
        EMError: its size is not its micrograph's, or a number is not whole or too large.
    """
    values = mask.array
    if values.shape != micrograph.image.shape:
        raise EMError(
            f"{name} is {_size(values)} pixels, its image {_size(micrograph.image)}: give it its image's size"
        )
    missing = np.isin(values, unknown)
    if values.dtype.kind == "f":
        missing |= np.isnan(values)
        values = np.where(missing, 0, values)
        if not (values == np.rint(values)).all():
            raise EMError(f"{name} holds {values[values != np.rint(values)][0]:g}; expected whole numbers of objects")
    if int(values.max(initial=0)) >= 2**31:
        raise EMError(f"{name} holds the number {int(values.max())}; expected at most {2**31 - 1}")
    return np.where(missing | (values < 0), UNKNOWN, values.astype(np.int64)).astype(np.int32)


def clean(records: Iterable[Record], degradation: Degradation) -> CleanMicrographs:
    """Return clean micrographs that are damaged to make pairs."""
    images = [above_data_bar(micrograph, micrograph)[0] for micrograph, _, _ in records]
    return CleanMicrographs(*columns_of(images), degradation)


def above_data_bar(micrograph: Micrograph, truth: Micrograph) -> tuple[Micrograph, Micrograph]:
    """Return a micrograph and its truth above the bar of the microscope's settings, if any.

    The truth may have been drawn with the bar or without it.
    """
    bar = micrograph.data_bar
    if not bar:
        return micrograph, truth
    say_data_bar(micrograph.name, bar)
    scale = max(1, truth.image.shape[1] // micrograph.image.shape[1])
    if truth.image.shape[0] == scale * micrograph.image.shape[0]:
        truth = replace(truth, data_bar=scale * bar).without_data_bar()
    return micrograph.without_data_bar(), truth


def columns_of(micrographs: list[Micrograph]) -> tuple[list[np.ndarray], list[str], list[float | None]]:
    """Return images, names and pixel sizes, as all examples have them."""
    images = [micrograph.array for micrograph in micrographs]
    return images, [part.name for part in micrographs], [part.pixel_size for part in micrographs]


def _as_mask(truth: Micrograph) -> Mask:
    """Return what was read as a mask."""
    assert isinstance(truth, Mask), "masks are read by rules of their own"
    return truth


def class_map(mask: Mask, micrograph: Micrograph, labels: GreyValues, name: str) -> np.ndarray:
    """Return the class indices (H, W) int16 of a mask.

    Raises:
        EMError: its size is not its micrograph's, or a grey value has no class; it says `name`.
    """
    if mask.image.shape != micrograph.image.shape:
        size = _size(micrograph.image)
        raise EMError(f"{name} is {_size(mask.image)} pixels, its image {size}: give it its image's size")
    return labels.indices(mask, name)


def target_scale(image: np.ndarray, micrograph: Micrograph, known: int | None, name: str) -> int:
    """Return how many pixels of a target image belong to one of its micrograph, per axis.

    Raises:
        EMError: the sizes do not fit each other, or the `known` scale of the other targets, or the
            target holds infinite values; its name stands in it.
    """
    height, width = micrograph.image.shape
    fitting = [scale for scale in (1, *SCALES) if image.shape == (scale * height, scale * width)]
    sizes = f"{name} is {_size(image)} pixels, its image {_size(micrograph.image)}"
    if known is None and not fitting:
        raise EMError(f"{sizes}: a target has its image's size, or 2 or 4 times that a side for super-resolution")
    scale = known or fitting[0]
    if image.shape != (scale * height, scale * width):
        raise EMError(f"{sizes}: that does not fit the scale {scale} of this data; give --scale or resample it")
    if image.dtype.kind == "f" and np.isinf(image).any():
        raise EMError(f"{name} holds infinite values: replace them, or leave the pair out")
    return scale


def _size(image: np.ndarray | LazyImage) -> str:
    return f"{image.shape[0]} x {image.shape[1]}"
