"""What the micrographs of a training were like, kept with the model, to tell others apart."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from emfm.errors import EMError
from emfm.files import write_text

DOMAIN = "domain.json"


@dataclass(frozen=True)
class Respect:
    """Descriptors of one kind, such as noise, over the micrographs of a training."""

    mean: tuple[float, ...]
    spread: tuple[float, ...]  # standard deviations, never below what chance gives
    limit: float  # the distance up to which a micrograph is like those of the training

    def distance(self, values: tuple[float, ...]) -> float:
        """Return how many spreads a micrograph is from the mean, the root of the mean square."""
        parts = [(v - m) / s for v, m, s in zip(values, self.mean, self.spread, strict=True)]
        return math.sqrt(sum(part * part for part in parts) / len(parts))


Domain = dict[str, Respect]  # by the name of the kind: "contrast", "noise", "scale", "texture", "features"


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
        return {
            name: Respect(tuple(map(float, one["mean"])), tuple(map(float, one["spread"])), float(one["limit"]))
            for name, one in stored.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise EMError(f"{path} is damaged ({error!r}): load the model again, or delete the file") from error


def write_domain(domain: Domain, folder: str | Path) -> None:
    """Write `domain.json` into a model's folder."""
    shown = {
        name: {"mean": _rounded(one.mean), "spread": _rounded(one.spread), "limit": round(one.limit, 4)}
        for name, one in domain.items()
    }
    write_text(Path(folder) / DOMAIN, json.dumps(shown, indent=1))


def _rounded(values: tuple[float, ...]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
