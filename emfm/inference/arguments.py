"""How micrographs are predicted."""

import re
from dataclasses import dataclass

from emfm.errors import EMError
from emfm.io.formats.planes import RULES
from emfm.io.scale_bar import length_in_nm
from emfm.settings import COUNT, OneOf, Range, Settings, setting

FORMATS = ("tif", "npy", "zarr", "mrc")
PRECISIONS = ("auto", "fp32", "bf16")
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
    scale_bar: str | None = setting(None, "Length of the scale bar in the image, as '500 nm': gives the pixel size.")
    outlines: bool = setting(False, "Of objects: write NAME_outlines.zip, which ImageJ and napari open.")
    confidence: float = setting(
        CONFIDENCE, "Count the pixels that are less sure than this, for the record.", Range(above=0, most=1)
    )
    precision: str = setting(
        "auto", "auto: bf16 where the hardware has it and next to nothing changes.", OneOf(PRECISIONS)
    )
    format: str | None = setting(
        None, "File format of the results: tif; of whole stacks by default that of their file's kind.", OneOf(FORMATS)
    )
    overwrite: bool = setting(False, "Predict again what is finished, and replace what others wrote.")
    index: str | None = setting(None, "Slice of a stack, from 0, -1 is the last; or all, into one volume.")
    orthoplanes: bool = setting(
        False, "With --index all, of cubic voxels: take the mean over planes in all three directions; 3 times the work."
    )
    slice_distance: float | None = setting(
        None, "nm from a slice of a stack to the next, whatever the file says.", Range(above=0)
    )
    nodata: float | None = setting(None, "Value of pixels without data; NaN is such in any case.")
    dataset: str | None = setting(None, "Which image of HDF5, Zarr, DM and EMD files, by its name.")
    colour: str | None = setting(None, "Grey from colour; refused by default.", OneOf(RULES))

    def __post_init__(self):
        if isinstance(self.index, int) and not isinstance(self.index, bool):
            object.__setattr__(self, "index", str(self.index))
        super().__post_init__()
        if self.scale_bar is not None:
            length_in_nm(self.scale_bar)  # which checks it
            if self.pixel_size is not None:
                raise EMError("scale_bar and pixel_size both say the pixel size: give one of them")
        if self.every_slice and self.outlines:
            raise EMError("--outlines is of single images: give one slice with --index")
        if self.orthoplanes and not self.every_slice:
            raise EMError("--orthoplanes is of whole volumes: give --index all")
        if self.orthoplanes and self.match_pixel_size:
            raise EMError("--orthoplanes takes voxels as they are: leave --match-pixel-size out")
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
