"""Writing images: TIFF with the pixel size, PNG for what people look at."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from emfm.files import write_atomically


def resolution_tags(pixel_size: float | None) -> dict[str, Any]:
    """Return what tells tifffile a pixel size in nm, which is pixels per centimetre in the file."""
    if pixel_size is None:
        return {}
    return {"resolution": (1e7 / pixel_size, 1e7 / pixel_size), "resolutionunit": "CENTIMETER"}


def write_image(path: str | Path, image: np.ndarray, pixel_size: float | None = None) -> None:
    """Write a 2-D or RGB array: TIFF of any dtype with pixel size (nm), or PNG of up to 16 bits."""
    path = Path(path)

    def write(temporary: Path) -> None:
        if path.suffix.lower() in (".tif", ".tiff"):
            tifffile.imwrite(temporary, image, **resolution_tags(pixel_size))
        else:
            Image.fromarray(image).save(temporary)

    write_atomically(path, write)
