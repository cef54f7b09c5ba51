"""Square parts of micrographs, and the symmetries of the square."""

import numpy as np


def dihedral(array: np.ndarray, symmetry: int) -> np.ndarray:
    """Apply one of the eight flips and right-angle rotations of the square to the last two axes.

    Args:
        array: (..., H, W).
        symmetry: 0 to 7; 0 is the identity.
    """
    rotated = np.rot90(array, symmetry % 4, axes=(-2, -1))
    return (rotated[..., ::-1] if symmetry >= 4 else rotated).copy()  # never a view of the micrograph


def cut(array: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
    """Return a (side, side) crop; where the micrograph is smaller it is mirrored at its bottom and right edges."""
    crop = array[top : top + side, left : left + side]
    missing = side - crop.shape[0], side - crop.shape[1]
    return np.pad(crop, ((0, missing[0]), (0, missing[1])), mode="symmetric") if any(missing) else crop
