"""How micrographs are predicted."""

from dataclasses import dataclass

from emfm.io.formats.planes import RULES
from emfm.settings import COUNT, OneOf, Range, Settings, setting

FORMATS = ("tif", "npy", "zarr")


@dataclass(frozen=True)
class PredictArguments(Settings):
    """How files are predicted."""

    tile: int | None = setting(None, "Largest side of a tile in pixels; by default the free memory decides.", COUNT)
    pixel_size: float | None = setting(None, "nm per pixel, whatever the file says.", Range(above=0))
    match_pixel_size: bool = setting(False, "Resample to the pixel sizes of the training, and back.")
    tta: bool = setting(False, "Take the mean over the eight symmetries of the square: better, 8 times the work.")
    format: str = setting("tif", "File format of the results.", OneOf(FORMATS))
    overwrite: bool = setting(False, "Predict again what is finished, and replace what others wrote.")
    index: int | None = setting(None, "Slice of a stack, from 0; -1 is the last.")
    nodata: float | None = setting(None, "Value of pixels without data; NaN is such in any case.")
    dataset: str | None = setting(None, "Which image of HDF5, Zarr, DM and EMD files, by its name.")
    colour: str | None = setting(None, "Grey from colour; refused by default.", OneOf(RULES))
