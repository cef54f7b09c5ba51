"""Reading masks: whole numbers a pixel, by rules of their own, one mask or one a slice."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emfm.errors import EMError
from emfm.io.formats.masks import is_grey
from emfm.io.formats.pictures import open_picture
from emfm.io.formats.planes import Planes, Request
from emfm.io.formats.tiff import open_tiff
from emfm.io.formats.tiff_parts import MAGIC
from emfm.io.reading import READERS, SUFFIXES, Micrograph, open_planes

# Pictures that hold masks without loss, beside the formats of micrographs.
PICTURES = (".gif", ".webp")
MASK_SUFFIXES = (*SUFFIXES, *PICTURES)
# Index of the border around objects, which belongs to no class, and its colour in the palettes of
# Pascal VOC and labelme.
BORDER, BORDER_COLOUR = 255, (224, 224, 192)


@dataclass(frozen=True)
class Mask(Micrograph):
    """One mask as the file holds it.

    Attributes:
        image: (H, W) values: whole numbers, truth values, or floats with NaN where nobody knows.
        palette: (N, 3) colours that the values are shown in, None where they are grey values.
    """

    palette: np.ndarray | None = None

    @property
    def border(self) -> int | None:
        """The value of pixels between objects that belong to no class, None where it has none."""
        palette = self.palette
        if palette is None or len(palette) <= BORDER or tuple(palette[BORDER].tolist()) != BORDER_COLOUR:
            return None
        return BORDER

    @property
    def shown(self) -> np.ndarray | None:
        """The grey values (H, W) uint8 that are seen; None where they are the values themselves.

        They differ where a mask has one bit, which is seen as 0 and 255, or a palette of greys.
        """
        palette, values = self.palette, self.array
        if palette is not None:
            if not is_grey(palette) or int(values.max(initial=0)) >= len(palette):
                return None
            return palette[values.astype(np.intp), 0]
        return values * np.uint8(255) if values.dtype == bool else None


def read_masks(path: str | Path) -> list[Mask]:
    """Read a mask, or the masks of a stack's slices, by rules for masks.

    Indices of a palette are the values; its colours only show them. Of one bit, white is 1. Red,
    green and blue must be equal, and no pixel transparent. Besides the formats of micrographs there
    are GIF and WebP.

    Raises:
        EMError: the file is missing, damaged, of another format, or in colours.
    """
    readers = {**READERS, **dict.fromkeys(PICTURES, open_picture)}
    request, planes = open_planes(path, readers, mask=True, can_choose=False)
    with request.decoding():
        return [_mask(request, planes, number) for number in range(planes.count)]


def decode_mask(content: bytes, name: str) -> Mask:
    """Read a mask from the bytes of a picture or TIFF file, as in a dataset's row.

    The name stands in errors and in the result.

    Raises:
        EMError: damaged, of another format, in colours, or a stack.
    """
    is_tiff = content[:4] in MAGIC
    request = Request(name, "TIFF" if is_tiff else "PNG", mask=True, can_choose=False)
    with request.decoding():
        planes = (open_tiff if is_tiff else open_picture)(io.BytesIO(content), request)
        if planes.stack:
            raise EMError(f"{name}: a stack of {planes.count} masks; save each slice as its own file")
        return _mask(request, planes, 0)


def _mask(request: Request, planes: Planes, number: int) -> Mask:
    values, name = np.asarray(planes.plane(number)), Path(request.name).name
    index = number if planes.stack else None
    return Mask(values, planes.pixel_size, name, planes.axes, index, palette=planes.palette)
