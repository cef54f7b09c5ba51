"""What a prediction is: the micrograph, and what a model made of it."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Prediction:
    """A model's result on one micrograph.

    Attributes:
        image: (H, W) the micrograph, in its own dtype.
        output: (H, W) class indices (segmentation) or the restored micrograph in the input's units and dtype; with
            `scale` times as many pixels a side (super-resolution).
        id2label: class names of a segmentation, else None.
        pixel_size: nm per pixel of the output, None where it is not known.
        name: the micrograph's file name, or "array".
    """

    image: np.ndarray
    output: np.ndarray
    id2label: dict[int, str] | None
    pixel_size: float | None
    name: str

    @property
    def labels(self) -> dict[int, str]:
        """Class names of a segmentation."""
        assert self.id2label is not None
        return self.id2label
