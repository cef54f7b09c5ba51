"""Pictures of parts of a micrograph for a page, as addresses that hold their own PNG."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from emfm.io.large_images import thinned
from emfm.reports.pictures import COLOURS, limits_of, to_grey

Box = tuple[int, int, int, int]  # first row and column, row and column after the last
SIDE = 1024  # of the part of a large micrograph that is shown at once
WHOLE = 1280  # micrographs up to this side are shown whole
OVERVIEW = 220  # largest side of the small picture of the whole
SAMPLED = 10**6  # pixels from which black and white are found


def part_at(shape: tuple[int, int], row: float, column: float) -> Box:
    """Return the part of a micrograph that is shown around a place."""
    height, width = shape
    tall, wide = (side if side <= WHOLE else SIDE for side in (height, width))
    top = int(np.clip(row - tall // 2, 0, height - tall))
    left = int(np.clip(column - wide // 2, 0, width - wide))
    return top, left, top + tall, left + wide


def grey_limits(image: Any) -> tuple[float, float]:
    """Return the values of a micrograph that are shown black and white."""
    step = max(1, int((image.shape[0] * image.shape[1] / SAMPLED) ** 0.5))
    return limits_of(np.asarray(thinned(image, step), dtype=np.float32))


def grey(image: Any, box: Box, limits: tuple[float, float]) -> str:
    """Return a part of a micrograph."""
    part = np.asarray(image[box[0] : box[2], box[1] : box[3]], dtype=np.float32)
    return address(Image.fromarray(to_grey(part, *limits)))


def overview(image: Any, limits: tuple[float, float]) -> str:
    """Return the whole micrograph, small."""
    step = -(-max(image.shape) // OVERVIEW)
    return address(Image.fromarray(to_grey(np.asarray(thinned(image, step), dtype=np.float32), *limits)))


def colours(count: int) -> list[list[int]]:
    """Return an RGB colour for each class; the second, often the first object, is orange."""
    order = [1, 0, *range(2, len(COLOURS))]
    return [COLOURS[order[index % len(order)]].astype(int).tolist() for index in range(count)]


def tinted(indices: np.ndarray, count: int, hidden: list[int] | None = None) -> str:
    """Return class indices (h, w) in colours; negative and hidden ones have none."""
    flat = np.where((indices < 0) | np.isin(indices, hidden or []), count, indices).astype(np.uint8)
    picture = Image.fromarray(flat, mode="P")
    picture.putpalette([level for colour in (*colours(count), [0, 0, 0]) for level in colour])
    return address(picture, transparency=count)


def heat(probability: np.ndarray) -> str:
    """Return how near the two likeliest classes of (K, h, w) are: from none to full magenta.

    Entropy would be full nearly everywhere, since a head that saw a few strokes is sure nowhere.
    """
    second, first = np.partition(probability, -2, axis=0)[-2:]
    picture = np.zeros((*first.shape, 4), dtype=np.uint8)
    picture[..., 0], picture[..., 2] = 255, 200
    picture[..., 3] = np.clip((1 - (first - second)) * 230, 0, 230)
    return address(Image.fromarray(picture))


def address(picture: Image.Image, **how: Any) -> str:
    """Return a picture as a data address."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1, **how)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
