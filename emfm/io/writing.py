"""Writing images: TIFF with the pixel size, PNG for what people look at."""

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from emfm.files import write_atomically


def write_image(path: str | Path, image: np.ndarray, pixel_size: float | None = None) -> None:
    """Write a 2-D or RGB array: TIFF keeps any dtype and the pixel size (nm), PNG takes uint8, uint16 and boolean."""
    path = Path(path)

    def write(temporary: Path) -> None:
        if path.suffix.lower() in (".tif", ".tiff"):
            if pixel_size is None:
                tifffile.imwrite(temporary, image)
            else:
                resolution = (1e7 / pixel_size, 1e7 / pixel_size)  # pixels per centimetre
                tifffile.imwrite(temporary, image, resolution=resolution, resolutionunit="CENTIMETER")
        else:
            Image.fromarray(image).save(temporary)

    write_atomically(path, write)
