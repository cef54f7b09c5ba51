"""How micrographs are predicted."""

import re
from dataclasses import dataclass

from emfm.errors import EMError
from emfm.io.formats.planes import RULES
from emfm.settings import COUNT, OneOf, Range, Settings, setting

FORMATS = ("tif", "npy", "zarr")
ALL = "all"  # every slice of a stack
CONFIDENCE = 0.9  # what a pixel's confidence is compared with, where nobody says otherwise


@dataclass(frozen=True)
class PredictArguments(Settings):
    """How files are predicted."""

    tile: int | None = setting(None, "Largest side of a tile in pixels; by default the free memory decides.", COUNT)
    pixel_size: float | None = setting(None, "nm per pixel, whatever the file says.", Range(above=0))
    match_pixel_size: bool = setting(False, "Resample to the pixel sizes of the training, and back.")
    tta: bool = setting(False, "Take the mean over the eight symmetries of the square: better, 8 times the work.")
    uncertainty: bool = setting(False, "Write how unsure the result is, too: NAME_uncertainty; 8 times the work.")
    confidence: float = setting(
        CONFIDENCE, "Count the pixels that are less sure than this, for the record.", Range(above=0, most=1)
    )
    format: str = setting("tif", "File format of the results.", OneOf(FORMATS))
    overwrite: bool = setting(False, "Predict again what is finished, and replace what others wrote.")
    index: str | None = setting(None, "Slice of a stack, from 0, -1 is the last; or all, into one volume.")
    nodata: float | None = setting(None, "Value of pixels without data; NaN is such in any case.")
    dataset: str | None = setting(None, "Which image of HDF5, Zarr, DM and EMD files, by its name.")
    colour: str | None = setting(None, "Grey from colour; refused by default.", OneOf(RULES))

    def __post_init__(self):
        if isinstance(self.index, int) and not isinstance(self.index, bool):
            object.__setattr__(self, "index", str(self.index))
        super().__post_init__()
        if self.every_slice and self.uncertainty:
            raise EMError("--uncertainty is of single images: give one slice with --index")
        if self.index is not None and self.index != ALL and not re.fullmatch(r"-?[0-9]{1,9}", self.index):
            raise EMError(f"index is '{self.index}'; expected the number of a slice, or all")

    @property
    def slice(self) -> int | None:
        """The slice that is chosen, None for the only one or for all."""
        return None if self.index in (None, ALL) else int(str(self.index))

    @property
    def every_slice(self) -> bool:
        """Whether whole stacks are predicted."""
        return self.index == ALL
