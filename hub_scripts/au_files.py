"""The HDF5 files of Sytwu et al. 2022: which two belong to a set, and the stacks in them.

The layout is that of the authors' own code (github.com/ScottLabUCB/HRTEM-Receptive-Field): `NAME_Images.h5` holds the
dataset `images`, `NAME_Labels.h5` the dataset `labels`, both (N, H, W), labels 0 or 1.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from download_files import contents

from emfm.errors import EMError

if TYPE_CHECKING:
    import h5py

IMAGES, LABELS = "_Images.h5", "_Labels.h5"


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


def open_stack(path: Path, key: str) -> "h5py.Dataset":
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


def read_one(stack: "h5py.Dataset", index: int) -> np.ndarray:
    """Return one image of a stack; an EMError if it is damaged."""
    try:
        return stack[index]
    except OSError as error:
        name = f"{stack.file.filename}: {stack.name[1:]} {index}"
        raise EMError(f"{name} is damaged ({error}); download it again") from error
