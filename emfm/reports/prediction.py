"""What a prediction is: the micrograph, and what a model made of it."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ObjectClasses:
    """Which class each object has."""

    of: np.ndarray  #: (N + 1,) class index by the object's number; that of 0 means nothing
    names: dict[int, str]  #: of the classes by their index
    #: (N + 1, K) how many pixels of each object are of each class; None where nobody counted
    votes: np.ndarray | None = None

    @classmethod
    def by_votes(cls, votes: np.ndarray, names: dict[int, str]) -> "ObjectClasses":
        """Return the classes that most pixels of each object have; of equal ones the first."""
        return cls(votes.argmax(axis=1).astype(np.uint8), names, votes)

    def name(self, number: int) -> str:
        """Return the name of an object's class."""
        return self.names[int(self.of[number])]


@dataclass(frozen=True)
class Prediction:
    """A model's result on one micrograph."""

    image: np.ndarray  #: (H, W) the micrograph, in its own dtype
    #: (H, W) class indices; or the restored micrograph in the input's units and dtype (float32 for
    #: fewer than 64 grey levels), which has `scale` times as many pixels a side after
    #: super-resolution
    output: np.ndarray
    id2label: dict[int, str] | None  #: class names of a segmentation, else None
    pixel_size: float | None  #: nm per pixel of the output, None where it is not known
    name: str  #: the micrograph's file name, or "array"
    uncertainty: np.ndarray | None = None  #: (H, W) float32, where it was asked for
    domain: Any = None  #: an `emfm.inference.domain.Place`, where the model knows its training's
    object_classes: ObjectClasses | None = None  #: of numbered objects, where they have classes
    data_bar: int = 0  #: lowest rows of the output that hold the microscope's settings
    #: share of pixels less sure than stated, of all and by class; None where nobody knows
    confidence: dict[str, Any] | None = None

    @property
    def labels(self) -> dict[int, str]:
        """Class names of a segmentation."""
        assert self.id2label is not None
        return self.id2label
