"""Whether a micrograph is like those of a model's training, and in which respect it is not.

Four kinds of descriptors are compared: grey levels, spectrum, polarity of details, and what the
trunk's channels see. Each has the mean of the training's micrographs, the directions in which
these differ, and a limit from the distances that each of them has from all others.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import stats

from emfm.data.examples import Examples
from emfm.inference.explaining import explained, is_inverted
from emfm.inference.feature_sums import FeatureSums, watched
from emfm.inference.seen import Seen
from emfm.io.large_images import release_pages
from emfm.loading.domain import Domain, Respect
from emfm.modeling import EMPreTrainedModel
from emfm.no_data import filled, no_data

logger = logging.getLogger(__name__)
# The part of a training micrograph that is looked at has this side in pixels at most; smaller ones
# than the second are not quartered.
SIDE, LEAST_SIDE = 512, 64
# So many micrographs at most tell what a training's were like; of fewer than FEW the quarters do.
DESCRIBED, FEW = 24, 6


@dataclass(frozen=True)
class Kind:
    """How descriptors of one kind are compared.

    Attributes:
        axes: directions that are told apart, at most.
        prior: as if so many micrographs more had the mean variance in all directions: few say
            little of each.
        least: standard deviation that a descriptor has at least: what chance does.
    """

    axes: int
    prior: float
    least: float


KINDS = {
    "contrast": Kind(8, 1.0, 0.02),
    "spectrum": Kind(13, 1.0, 0.05),
    "polarity": Kind(3, 1.0, 0.05),
    "features": Kind(6, 1.0, 0.02),
}
# Of micrographs like the training's this share lies inside of each limit; logarithms of distances
# spread by at least so much, for a training seldom holds all that is alike.
INSIDE, LEAST_SPREAD = 0.95, 0.4
# Means and deviations of channels are compared by their logarithms; smaller ones are as this.
LEAST_FEATURE = 0.01
# By so much each limit is wider, for several kinds are compared and any may be exceeded. Few
# micrographs are known by their quarters, which are more alike than two micrographs.
ROOM, ROOM_OF_FEW = 1.2, 2.4
LEAST_APART = 0.5  # distance of equal micrographs, of which nobody knows how others differ
Descriptors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Place:
    """Where a micrograph lies."""

    distance: float  #: the largest of all kinds, as a share of its limit; up to 1 is inside
    unlike: list[str]  #: "noise", "scale", "texture" or "contrast", the plainest first
    why: list[str] = field(default_factory=list)  #: what there is to say of each

    @property
    def inside(self) -> bool:
        """Whether the micrograph is like those of the training in every respect."""
        return not self.unlike

    def to_dict(self) -> dict[str, Any]:
        """Return what a result's record says of it."""
        return {"distance": round(self.distance, 4), "inside": self.inside, "unlike": self.unlike, "why": self.why}

    def told(self) -> str:
        """Return in words how a micrograph outside is unlike those of the training."""
        return " and ".join(f"{kind} ({why})" for kind, why in zip(self.unlike, self.why, strict=True))


def descriptors(model: EMPreTrainedModel, image: Any) -> Descriptors:
    """Describe a micrograph (H, W) by kind; its features are those of its middle."""
    seen = Seen([model], watch=[True])
    statistics = model.processor.statistics(image)
    seen.look(image, statistics)
    top, left = (max(0, (length - SIDE) // 2) for length in image.shape)
    part = np.asarray(image[top : top + SIDE, left : left + SIDE])
    release_pages(image)
    values = model.processor.normalize(filled(part, no_data(part)), statistics)
    was_training = model.training
    model.eval()
    sums = seen.sums[0]
    assert sums is not None
    tensor = torch.from_numpy(values)[None, None].to(model.device, model.dtype)
    watched(model, sums).maps(tensor)
    model.train(was_training)
    return _described(seen, sums)


def _described(seen: Seen, sums: FeatureSums) -> Descriptors:
    assert seen.looks is not None
    found = {kind: np.array(values) for kind, values in asdict(seen.looks).items()}
    features = sums.described()
    if features is not None:
        found["features"] = np.log(np.maximum(features, 0) + LEAST_FEATURE)
    return found


def domain_of(model: EMPreTrainedModel, images: Sequence[Any]) -> Domain:
    """Return what the micrographs of a training have in common, from one or more of them."""
    parts = [part for index, image in enumerate(images) for part in _parts(image, index, len(images) < FEW)]
    found = [descriptors(model, part) for part in parts]
    room = ROOM_OF_FEW if len(images) < FEW else ROOM
    return {kind: _respect(KINDS[kind], np.array([one[kind] for one in found]), room) for kind in found[0]}


def _parts(image: Any, index: int, few: bool) -> list[Any]:
    """Return the part of an image (H, W) at one of its corners, or quarters at all if few are.

    A user's micrograph may be no larger, and the smaller they are the more they differ.
    """
    side = max(LEAST_SIDE, min(image.shape) // 2) if few else SIDE
    rows, columns = (min(length, side, SIDE) for length in image.shape)
    corners = range(4) if few and min(image.shape) > LEAST_SIDE else [index]
    places = [(corner & 1, corner >> 1 & 1) for corner in corners]
    origins = [((image.shape[0] - rows) * down, (image.shape[1] - columns) * right) for down, right in places]
    return [image[top : top + rows, left : left + columns] for top, left in origins]


def domain_of_examples(model: EMPreTrainedModel, data: Any) -> Domain | None:
    """Return the domain of some training micrographs in memory, None of other data."""
    if not isinstance(data, Examples) or not len(data):
        return None
    return domain_of(model, data.take(min(len(data), DESCRIBED)).to_measure().images)


def _respect(how: Kind, values: np.ndarray, room: float) -> Respect:
    """Return mean, directions and limit of descriptors (N, D)."""
    whole = _fitted(how, values)
    count = len(values)
    apart = [_fitted(how, np.delete(values, i, axis=0)).distance(values[i]) for i in range(count) if count > 1]
    logs = np.log(np.maximum(apart or [np.sqrt(values.shape[1])], LEAST_APART))
    spread = max(LEAST_SPREAD, float(logs.std(ddof=1)) if count > 2 else 0.0)
    wide = float(stats.t.ppf(INSIDE, max(1, count - 1))) * spread * np.sqrt(1 + 1 / count)
    return Respect(whole.mean, whole.axes, whole.variances, whole.rest, room * float(np.exp(logs.mean() + wide)))


def _fitted(how: Kind, values: np.ndarray) -> Respect:
    mean = values.mean(axis=0)
    _, lengths, axes = np.linalg.svd(values - mean, full_matrices=False)
    degrees = max(1, len(values) - 1)
    variances = lengths**2 / degrees
    shrunk = how.prior / (how.prior + degrees)
    rest = shrunk * float(variances.sum()) / min(degrees, len(mean)) + how.least**2
    kept = min(how.axes, degrees if len(values) > 1 else 0)
    return Respect(mean, axes[:kept], (1 - shrunk) * variances[:kept] + rest, rest, 1.0)


def place_of(model: EMPreTrainedModel, image: Any, domain: Domain) -> Place:
    """Return where a micrograph (H, W) lies against those of the training."""
    return _place(descriptors(model, image), domain)


def _place(found: Descriptors, domain: Domain) -> Place:
    shares = {kind: one.distance(found[kind]) / one.limit for kind, one in domain.items() if kind in found}
    named: dict[str, str] = {}
    if shares["spectrum"] > 1:
        kind, why = explained(found["spectrum"], domain["spectrum"])
        named[kind] = why
    if max(shares["contrast"], shares.get("polarity", 0)) > 1:
        if is_inverted(found, domain):
            named["contrast"] = "bright is dark, as if inverted"
        elif shares["contrast"] > 1:
            named["contrast"] = "other grey levels"
    if max(shares.values()) > 1 and not named:
        named["texture"] = "structures that the network hardly knows"
    return Place(max(shares.values()), list(named), list(named.values()))


def place_seen(seen: Seen) -> Place | None:
    """Return where a predicted micrograph lies; of several models the one that knows it best.

    None where no model knows its training's micrographs.
    """
    places = [
        _place(_described(seen, sums), model.domain)
        for model, sums in zip(seen.models, seen.sums, strict=False)
        if model.domain is not None and sums is not None and seen.looks is not None
    ]
    return min(places, key=lambda place: place.distance, default=None)


def warn_outside(place: Place | None, name: str) -> None:
    """Warn where a micrograph lies outside."""
    if place is not None and not place.inside:
        logger.warning(
            "%s is unlike the micrographs of the model's training in %s, %.1f times as far as they are: look at the "
            "result before you trust it",
            *(name, place.told(), place.distance),
        )
