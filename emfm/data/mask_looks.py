"""What the values of masks look like: numbers of classes, ids of objects, or smoothed edges."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

SHOWN = 8  # values that are listed one by one
# From so many objects in one mask on, or from fewer where their number differs between masks,
# values that are one connected part each are taken for ids.
MANY_OBJECTS, FEW_OBJECTS = 8, 3
ONE_PART = 0.8  # share of the values that are one connected part
MOST_OBJECTS = 2000  # that are looked at in one mask
# Of four neighbours, those of a pixel's own value: all in an area, two along a smoothed edge.
SMOOTH_NEIGHBOURS = 2.2
EDGE_VALUES = 4  # values along edges from which a mask can be a smoothed one
EDGE_SHARE = 0.5  # of the pixels that can lie on edges


def distinct(values: np.ndarray) -> np.ndarray:
    """Return the values of a mask, sorted, each once; NaN is none."""
    if values.dtype in (np.uint8, np.uint16):  # counting is ten times faster than sorting
        return np.flatnonzero(np.bincount(values.ravel()))
    return np.unique(values[~np.isnan(values)] if values.dtype.kind == "f" else values)


def listed(values: Iterable[float]) -> str:
    """List values as a person would: "0, 1, 2", or "0, 1, 2, …, 38 (39 values)"."""
    texts = [f"{value:g}" if isinstance(value, float) else str(int(value)) for value in sorted(values)]
    if len(texts) <= SHOWN:
        return ", ".join(texts)
    return f"{', '.join(texts[:3])}, …, {texts[-1]} ({len(texts)} values)"


@dataclass(frozen=True)
class Look:
    """What one mask looks like."""

    name: str  #: of its file
    objects: int  #: values besides the background's
    whole: int  #: of them, those that are one connected part
    edges: float  #: share of the pixels on smoothed edges; 0 where none is smoothed
    fractions: bool = False  #: values are not whole


def look_at(values: np.ndarray, name: str) -> Look:
    """Look at a mask (H, W)."""
    values = np.nan_to_num(values) if values.dtype.kind == "f" else values
    found = distinct(values)
    if values.dtype.kind == "f" and (found != np.rint(found)).any():
        return Look(name, len(found) - 1, 0, 0.0, fractions=True)
    places = np.searchsorted(found, values)
    counts = np.bincount(places.ravel())
    background = int(np.argmin(np.abs(found.astype(np.float64))))  # 0, or the nearest to it
    edges = _edges(places, counts)
    if edges or len(found) - 1 > MOST_OBJECTS:
        return Look(name, len(found) - 1, 0 if edges else len(found) - 1, edges)
    boxes = ndimage.find_objects(places + 1)
    corners = np.ones((3, 3))
    parts = [ndimage.label(places[box] == at, corners)[1] for at, box in enumerate(boxes) if at != background]
    return Look(name, len(parts), parts.count(1), 0.0)


def _edges(places: np.ndarray, counts: np.ndarray) -> float:
    """Return the share of pixels on edges that are smoothed, 0 where they are sharp."""
    alike = np.zeros(places.shape, np.uint8)  # neighbours of the same value
    same = places[1:] == places[:-1]
    alike[1:] += same
    alike[:-1] += same
    same = places[:, 1:] == places[:, :-1]
    alike[:, 1:] += same
    alike[:, :-1] += same
    on_edges = np.bincount(places.ravel(), alike.ravel()) <= SMOOTH_NEIGHBOURS * counts  # by value
    share = float(counts[on_edges].sum() / places.size)
    many = on_edges.sum() >= max(EDGE_VALUES, (~on_edges).sum())  # some objects are that small, not most
    return share if many and share <= EDGE_SHARE else 0.0


def doubt(looks: list[Look]) -> str:
    """Return why the values of masks are hardly the numbers of classes, "" where they may be."""
    fractions = [look for look in looks if look.fractions]
    if fractions:
        return f"{fractions[0].name} has fractions, as probabilities are: put a threshold to it (mask > 0.5)"
    smooth = [look for look in looks if look.edges]
    if smooth:
        return (
            f"{smooth[0].name} has values in between along its edges ({smooth[0].edges:.1%} of the pixels), as a mask "
            "that was resized, smoothed or saved as JPEG: save it as PNG or TIFF without smoothing, or put a "
            "threshold to it (mask > 127)"
        )
    numbers = [look.objects for look in looks]
    most = max(numbers, default=0)
    whole = sum(look.whole for look in looks) >= ONE_PART * max(sum(numbers), 1)
    if whole and (most > MANY_OBJECTS or (most >= FEW_OBJECTS and len(set(numbers)) > 1)):
        fewest = min(numbers)
        count = f"{most} objects in {looks[0].name}" if fewest == most else f"{fewest} to {most} objects a mask"
        return (
            f"they look like instance ids, each value one connected part, {count}: for one class of objects save "
            "masks of 0 and 1 (mask > 0); if each value is a class, name them all in labels.json"
        )
    return ""
