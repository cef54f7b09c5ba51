"""The slices of a stack, with what the user says of their pixels."""

from dataclasses import dataclass, replace

from emfm.io.reading import Micrograph, Slices
from emfm.no_data import without


@dataclass(frozen=True)
class StatedSlices:
    """The slices of a file, each read when it is asked for, with what is known of their pixels.

    Attributes:
        slices: of the file.
        pixel_size: nm per pixel, None where it is not known.
        slice_distance: nm from a slice to the next, likewise.
        nodata: value of pixels without data, beside NaN.
    """

    slices: Slices
    pixel_size: float | None
    slice_distance: float | None
    nodata: float | None

    def __len__(self) -> int:
        return len(self.slices)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of slices, and height and width of each."""
        return (len(self), *self.slices.planes.shape)

    def __getitem__(self, number: int) -> Micrograph:
        found = self.slices[number]
        image = without(found.image, self.nodata)
        return replace(found, image=image, pixel_size=self.pixel_size, slice_distance=self.slice_distance)
