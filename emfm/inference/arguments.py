"""How micrographs are predicted."""

from dataclasses import dataclass

from emfm.io.formats.planes import RULES
from emfm.settings import OneOf, Range, check_settings, setting

FORMATS = ("tif", "npy", "zarr")


@dataclass(frozen=True)
class PredictArguments:
    """How files are predicted.

    Raises:
        EMError: a setting has a value that it cannot have.
    """

    tile: int | None = setting(None, "Largest side of a tile in pixels.", Range(least=1), shown="by the free memory")
    pixel_size: float | None = setting(None, "nm per pixel, where the file does not say.", Range(above=0))
    match_pixel_size: bool = setting(False, "Resample to the pixel sizes of the training, and back.")
    format: str = setting("tif", "File format of the results.", OneOf(FORMATS))
    overwrite: bool = setting(False, "Predict again what is finished.")
    index: int | None = setting(None, "Slice of a stack, from 0; -1 is the last.")
    colour: str | None = setting(None, "Grey from colour; refused by default.", OneOf(RULES))

    def __post_init__(self):
        check_settings(self)
