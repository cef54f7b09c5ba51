"""How the objects of masks are measured."""

from dataclasses import dataclass

from emfm.settings import OneOf, Range, Settings, setting

# What the objects of a mask are: "auto" takes the parts of masks of two values.
OBJECTS = ("auto", "parts", "numbers")


@dataclass(frozen=True)
class MeasureArguments(Settings):
    """How masks are measured."""

    images: str | None = setting(None, "Micrograph, or folder of micrographs of the masks' names, for intensities.")
    pixel_size: float | None = setting(None, "nm per pixel, whatever the files say.", Range(above=0))
    overwrite: bool = setting(False, "Replace tables and figures that are there.")
    objects: str = setting("auto", "What is an object: parts (connected), numbers, or auto.", OneOf(OBJECTS))
