"""The thresholds by which the maps of a network become objects."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from emfm.data.object_sizes import least_area
from emfm.errors import EMError

# Peaks of the distance are looked for at levels so far apart.
LEVEL = 0.15
# What is smaller than so many pixels, as the network sees them, may always be left out.
LEAST_SEEN = 16


@dataclass(frozen=True)
class Separation:
    """What decides where objects are in maps; validation chooses it after a training.

    Attributes:
        foreground: a pixel belongs to an object where the foreground is above this.
        boundary: boundaries part objects where they are not below this.
        middle: the middle of an object is where the distance is above this.
        depth: a peak of the distance is a middle of its own if it rises so far above all ways to
            higher ones; 0: what is above `middle` and connected has one middle.
        rim: a part of the foreground without a middle is an object if it is thicker than twice
            this, in pixels; 0: it is none.
        least_area: smaller objects are left out, in pixels.
        sure: objects with a lower mean foreground are left out.

    Raises:
        EMError: a threshold is not between 0 and 1, or a number of pixels is negative.
    """

    foreground: float = 0.5
    boundary: float = 0.5
    middle: float = 0.45
    depth: float = 0.0
    rim: int = 4
    least_area: int = 9
    sure: float = 0.0

    def __post_init__(self) -> None:
        shares = {name: getattr(self, name) for name in ("foreground", "boundary", "middle", "depth", "sure")}
        pixels = {name: getattr(self, name) for name in ("rim", "least_area")}
        for name, value in shares.items():
            if not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise EMError(f"separation: {name} is {value!r}; expected a number from 0 to 1")
        for name, value in pixels.items():
            if not isinstance(value, int) or value < 0:
                raise EMError(f"separation: {name} is {value!r}; expected a whole number of pixels, 0 or more")

    def levels(self) -> list[float]:
        """Return the distances above which middles are looked for, the highest first."""
        if not self.depth:
            return [self.middle]
        return list(np.arange(self.middle, 1 - self.depth + 1e-6, LEVEL))[::-1]

    @classmethod
    def of(cls, content: dict[str, Any] | None) -> "Separation":
        """Return what a configuration says; models of which it says nothing have the defaults."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(content or {}) - known)
        if unknown:
            raise EMError(f"separation holds {', '.join(unknown)}; expected {', '.join(sorted(known))}")
        return cls(**(content or {}))


def first_separation(shrink: int, numbered: Sequence[np.ndarray]) -> Separation:
    """Return the thresholds with which a training starts.

    Args:
        shrink: so many times the network sees micrographs scaled down.
        numbered: objects of the training, (H, W) each: what is much smaller than all is none.
    """
    least = least_area(numbered, LEAST_SEEN * shrink**2)
    return Separation(boundary=0.6, middle=0.1, depth=0.2, rim=0, least_area=least, sure=0.75)
