"""How the objects of masks are measured."""

from dataclasses import dataclass

from emfm.errors import EMError
from emfm.io.scale_bar import length_in_nm
from emfm.settings import OneOf, Range, Settings, setting

# What the objects of a mask are: "auto" takes the parts of masks of two values.
OBJECTS = ("auto", "parts", "numbers")


@dataclass(frozen=True)
class MeasureArguments(Settings):
    """How masks are measured."""

    images: str | None = setting(None, "Micrograph, or folder of micrographs of the masks' names, for intensities.")
    pixel_size: float | None = setting(None, "nm per pixel, whatever the files say.", Range(above=0))
    scale_bar: str | None = setting(None, "Length of the scale bar in each micrograph, as '500 nm'.")
    outlines: bool = setting(False, "Write NAME_outlines.zip, which ImageJ and napari open.")
    overwrite: bool = setting(False, "Replace tables and figures that are there.")
    objects: str = setting("auto", "What is an object: parts (connected), numbers, or auto.", OneOf(OBJECTS))

    def __post_init__(self):
        super().__post_init__()
        if self.scale_bar is not None:
            length_in_nm(self.scale_bar)  # which checks it
            if self.pixel_size is not None:
                raise EMError("scale_bar and pixel_size both say the pixel size: give one of them")
            if self.images is None:
                raise EMError("scale_bar needs the micrographs in which the bars are: give --images")
