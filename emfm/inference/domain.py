"""Whether a micrograph is like those of a model's training, and in which respect it is not."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from emfm.data.examples import Examples
from emfm.data.noise import noise_deviation
from emfm.io.large_images import release_pages
from emfm.loading.domain import Domain, Respect
from emfm.modeling import EMPreTrainedModel
from emfm.no_data import filled, no_data

logger = logging.getLogger(__name__)
# The middle of a micrograph that is looked at has this side in pixels.
SIDE = 512
# So many micrographs at most tell what a training's were like.
DESCRIBED = 32
# Standard deviations of the Gaussians whose differences tell the scales of a texture apart.
SCALES = (1.0, 2.0, 4.0, 8.0)
# Spreads are at least this: what chance changes from one micrograph of a kind to the next.
LEAST_SPREAD = {"contrast": 0.15, "noise": 0.3, "scale": 0.3, "texture": 0.3, "features": 0.1}
# Training micrographs are inside, and others up to this many times as far as the farthest of them.
LIMIT, FARTHER = 3.0, 1.5
Descriptors = dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Place:
    """Where a micrograph lies."""

    distance: float  #: the largest of all respects, as a share of its limit; up to 1 is inside
    unlike: list[str]  #: the respects in which it lies outside, the farthest first

    @property
    def inside(self) -> bool:
        """Whether the micrograph is like those of the training in every respect."""
        return not self.unlike

    def to_dict(self) -> dict[str, Any]:
        """Return what a result's record says of it."""
        return {"distance": round(self.distance, 4), "inside": self.inside, "unlike": self.unlike}


def descriptors(model: EMPreTrainedModel, image: Any) -> Descriptors:
    """Describe a micrograph (H, W) by kind, in network values, so units do not matter.

    `contrast`: mean, spread and skewness; `noise`: what a pixel differs from its neighbours;
    `scale`: how far structures reach; `texture`: contrast at four scales; `features`: the mean of
    what the trunk sees.
    """
    statistics = model.processor.statistics(image)
    top, left = (max(0, (length - SIDE) // 2) for length in image.shape)
    part = np.asarray(image[top : top + SIDE, left : left + SIDE])
    release_pages(image)
    values = model.processor.normalize(filled(part, no_data(part)), statistics).astype(np.float64)
    mean, spread = float(values.mean()), float(values.std())
    skewness = float(((values - mean) ** 3).mean()) / max(spread, 1e-3) ** 3
    return {
        "contrast": (mean, spread, float(np.cbrt(skewness))),
        "noise": (float(np.log(noise_deviation(values) + 0.01)),),
        "scale": (float(np.log(_correlation_length(values))),),
        "texture": tuple(float(np.log(band + 0.01)) for band in _bands(values)),
        "features": _features(model, values),
    }


def _correlation_length(values: np.ndarray) -> float:
    """Return the distance in pixels at which the smoothed image correlates by a half."""
    smooth = ndimage.gaussian_filter(values, 1.5)
    smooth = smooth - smooth.mean()
    power = np.abs(np.fft.rfft2(smooth)) ** 2
    correlation = np.fft.irfft2(power, s=smooth.shape)
    if correlation[0, 0] <= 0:
        return float(max(values.shape))
    reach = min(values.shape) // 2
    along = (correlation[0, :reach] + correlation[:reach, 0]) / (2 * correlation[0, 0])
    below = np.flatnonzero(along < 0.5)
    return float(below[0]) if len(below) else float(max(1, reach))


def _bands(values: np.ndarray) -> list[float]:
    smooth = [ndimage.gaussian_filter(values, scale) for scale in SCALES]
    return [float((fine - coarse).std()) for fine, coarse in zip([values, *smooth[:-1]], smooth, strict=True)]


@torch.no_grad()
def _features(model: EMPreTrainedModel, values: np.ndarray) -> tuple[float, ...]:
    was_training = model.training
    model.eval()
    seen = torch.from_numpy(values.astype(np.float32))[None, None].to(model.device, model.dtype)
    means = [found.float().mean(dim=(0, 2, 3)) for found in model.features(seen)[:3]]
    model.train(was_training)
    return tuple(torch.cat(means).cpu().tolist())


def domain_of(model: EMPreTrainedModel, images: Iterable[Any]) -> Domain:
    """Return what the micrographs of a training have in common, from one or more of them."""
    described = [descriptors(model, image) for image in images]
    return {kind: _respect(kind, np.array([one[kind] for one in described])) for kind in described[0]}


def domain_of_examples(model: EMPreTrainedModel, data: Any) -> Domain | None:
    """Return the domain of some training micrographs in memory, None of other data."""
    if not isinstance(data, Examples) or not len(data):
        return None
    return domain_of(model, data.images[:: -(-len(data) // DESCRIBED)])


def _respect(kind: str, values: np.ndarray) -> Respect:
    """Return mean, spread and limit of descriptors (N, D)."""
    least = LEAST_SPREAD[kind] * (max(1e-3, float(np.abs(values).mean())) if kind == "features" else 1.0)
    mean = values.mean(axis=0)
    spread = np.maximum(values.std(axis=0, ddof=1) if len(values) > 1 else 0.0, least)
    spread = np.broadcast_to(spread, mean.shape)
    distances = np.sqrt((((values - mean) / spread) ** 2).mean(axis=1))
    return Respect(tuple(mean.tolist()), tuple(spread.tolist()), max(LIMIT, FARTHER * float(distances.max())))


def compared(model: EMPreTrainedModel, image: Any, name: str) -> Place | None:
    """Return where a micrograph lies and warn if outside; None if the model has no domain."""
    if model.domain is None:
        return None
    place = place_of(model, image, model.domain)
    if not place.inside:
        kinds = " and ".join(place.unlike)
        logger.warning(
            "%s is unlike the micrographs of the model's training in %s (%.1f times as far as they are): look at the "
            "result before you trust it",
            *(name, kinds, place.distance),
        )
    return place


def place_of(model: EMPreTrainedModel, image: Any, domain: Domain) -> Place:
    """Return where a micrograph (H, W) lies against those of the training."""
    described = descriptors(model, image)
    shares = {kind: one.distance(described[kind]) / one.limit for kind, one in domain.items() if kind in described}
    unlike = sorted((kind for kind, share in shares.items() if share > 1), key=lambda kind: -shares[kind])
    return Place(max(shares.values()), unlike)
