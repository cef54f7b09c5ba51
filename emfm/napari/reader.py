"""Opens micrographs of every format in napari, with their pixel size; imports no napari itself."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emfm.io.formats.planes import Planes
from emfm.io.large_images import LazyImage, thinned
from emfm.io.reading import READERS, ZARR, open_planes
from emfm.napari.layers import LayerData, image_layer

# A larger stack stays in its file; napari reads the slice that it shows.
STACK_BYTES = 1 << 30
# A larger image is shown from copies of it that are thinned by this factor again and again.
WHOLE_PIXELS, FACTOR = 64_000_000, 4


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Return what reads a file, or several of them; None for formats that emfm does not know."""
    paths = [path] if isinstance(path, str) else list(path)
    return read if paths and all(map(_known, paths)) else None


def read(path: str | Sequence[str]) -> list[LayerData]:
    """Return the layers of files: an image (H, W), or a stack with its other axes first.

    Raises:
        EMError: a file is damaged, in colour, or holds several images.
    """
    paths = [path] if isinstance(path, str) else list(path)
    return [_layer(Path(path)) for path in paths]


def _known(path: str) -> bool:
    suffix = Path(path).suffix.lower()
    return suffix in READERS and Path(path).is_dir() == (suffix == ZARR)


def _layer(path: Path) -> LayerData:
    _, planes = open_planes(path, READERS, can_choose=False)
    data = _slices(Stack(planes)) if planes.stack else _levels(planes.plane(0))
    return image_layer(data, path.stem, planes.pixel_size, planes.data_bar, _axis_labels(planes))


def _axis_labels(planes: Planes) -> tuple[str, ...]:
    """Return a name for each axis, as napari shows it; those without one keep napari's."""
    letters = [letter.lower() for letter in planes.axes[-len(planes.stack) - 2 :]]
    named = len(set(letters)) == len(letters) and "q" not in letters
    return tuple(letters) if named else ()


def _slices(stack: "Stack") -> Any:
    return np.asarray(stack) if stack.nbytes <= STACK_BYTES else stack


def _levels(image: np.ndarray | LazyImage) -> Any:
    """Return an image as it is, or, if it is large, a list of it and its thinned copies."""
    if image.size <= WHOLE_PIXELS:
        return np.asarray(image)
    levels: list[Any] = [image]
    while levels[-1].shape[0] * levels[-1].shape[1] > WHOLE_PIXELS / FACTOR**2:
        levels.append(thinned(levels[-1], FACTOR))
    return levels


class Stack:
    """A stack (..., H, W) that stays in its file: `stack[index]` reads the slices that it names.

    Args:
        planes: the opened file.
    """

    def __init__(self, planes: Planes):
        self._planes = planes
        self.shape = (*planes.stack, *planes.shape)
        self.dtype = np.asarray(planes.plane(0)[:1, :1]).dtype
        self.ndim, self.size = len(self.shape), int(np.prod(self.shape, dtype=np.int64))
        self.nbytes = self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a stack in its file cannot become an array without a copy")
        return self[()].astype(self.dtype if dtype is None else dtype, copy=False)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return what NumPy would: whole numbers, slices and `...` choose slices and pixels."""
        before, after = _parts(index, self.ndim)
        numbers = np.arange(self._planes.count).reshape(self._planes.stack)[before]
        planes = [np.asarray(self._planes.plane(int(number)))[after] for number in numbers.ravel()]
        if not planes:
            raise IndexError(f"{index!r} leaves no slice of a stack of shape {self.shape}")
        return np.stack(planes).reshape(*numbers.shape, *planes[0].shape)


def _parts(index: Any, ndim: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return an index of a stack's own axes, and that of rows and columns."""
    index = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in index:
        at = index.index(Ellipsis)
        index[at : at + 1] = [slice(None)] * (ndim + 1 - len(index))
    index += [slice(None)] * (ndim - len(index))
    if len(index) > ndim:
        raise IndexError(f"{len(index)} indices for a stack of {ndim} axes")
    return tuple(index[:-2]), tuple(index[-2:])
