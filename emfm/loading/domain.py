"""What the micrographs of a training were like, kept with the model, to tell others apart."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emfm.errors import EMError
from emfm.files import write_text

logger = logging.getLogger(__name__)
DOMAIN = "domain.json"
VERSION = 2  # of the file; the first one's figures told too little


@dataclass(frozen=True)
class Respect:
    """Descriptors of one kind, such as grey levels, over the micrographs of a training.

    Attributes:
        mean: (D,) of the descriptors.
        axes: (K, D) directions in which the micrographs differ most, of length 1.
        variances: (K,) along these.
        rest: variance along each of all other directions.
        limit: distance up to which a micrograph is like those of the training.
    """

    mean: np.ndarray
    axes: np.ndarray
    variances: np.ndarray
    rest: float
    limit: float

    def distance(self, values: np.ndarray) -> float:
        """Return how far descriptors (D,) are from the mean, in standard deviations."""
        apart = np.asarray(values) - self.mean
        along = self.axes @ apart
        beside = max(0.0, float(apart @ apart - along @ along))
        return float(np.sqrt((along * along / self.variances).sum() + beside / self.rest))

    def covariance(self) -> np.ndarray:
        """Return the covariance (D, D) of the descriptors."""
        return self.rest * np.eye(len(self.mean)) + (self.axes.T * (self.variances - self.rest)) @ self.axes


# By the name of the kind: "contrast", "spectrum", "polarity", "features". Models that were
# described before a kind was known lack it.
Domain = dict[str, Respect]


def read_domain(folder: Path) -> Domain | None:
    """Return what a model's folder says of its training's micrographs, None where it says nothing.

    Raises:
        EMError: the file is damaged.
    """
    path = folder / DOMAIN
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored.get("version") != VERSION:
            logger.warning("%s is of another version of emfm, and not used", path)
            return None
        return {name: _respect(one) for name, one in stored["respects"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise EMError(f"{path} is damaged ({error!r}): load the model again, or delete the file") from error


def _respect(stored: dict[str, Any]) -> Respect:
    mean = np.array(stored["mean"], dtype=np.float64)
    axes = np.array(stored["axes"], dtype=np.float64).reshape(-1, len(mean))
    variances = np.array(stored["variances"], dtype=np.float64)
    rest, limit = float(stored["rest"]), float(stored["limit"])
    if mean.ndim != 1 or len(variances) != len(axes) or not min([rest, limit, *variances]) > 0:
        raise ValueError("its figures do not fit each other")
    return Respect(mean, axes, variances, rest, limit)


def write_domain(domain: Domain, folder: str | Path) -> None:
    """Write `domain.json` into a model's folder."""
    shown = {
        name: {
            "limit": _short(one.limit, 6),
            "rest": _short(one.rest, 6),
            "variances": [_short(value, 6) for value in one.variances],
            "mean": [_short(value, 6) for value in one.mean],
            "axes": [[_short(value, 3) for value in axis] for axis in one.axes],
        }
        for name, one in domain.items()
    }
    write_text(Path(folder) / DOMAIN, json.dumps({"version": VERSION, "respects": shown}, separators=(",", ":")))


def _short(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")
