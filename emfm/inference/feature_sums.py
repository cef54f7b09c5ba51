"""What a trunk sees of a micrograph, summed up while that is predicted: no further pass."""

import copy
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from emfm.modeling import EMPreTrainedModel

# The finest map is left out: it is the largest, and says what the next one does.
FIRST_LEVEL = 1


class FeatureSums:
    """Means and spreads of a trunk's channels over all tiles of a micrograph; threads may add."""

    def __init__(self):
        self._lock, self.pixels, self.sums = Lock(), 0, np.zeros(0)

    @torch.no_grad()
    def add(self, maps: list[Tensor]) -> None:
        """Take in the maps (B, C_i, H / 2^i, W / 2^i) of some tiles."""
        chosen = maps[FIRST_LEVEL:] or maps
        pixels = maps[0].shape[0] * maps[0].shape[-2] * maps[0].shape[-1]
        moments = [_moments(found) for found in chosen]
        found = pixels * torch.cat(moments, dim=1).double().cpu().numpy()  # (2, channels)
        with self._lock:
            self.sums = self.sums + found if self.pixels else found
            self.pixels += pixels

    def join(self, others: "list[FeatureSums]") -> None:
        """Become the sum of what several processes saw."""
        seen = [other for other in others if other.pixels]
        self.pixels = sum(other.pixels for other in seen)
        self.sums = sum((other.sums for other in seen), np.zeros(())) if seen else np.zeros(0)

    def __getstate__(self) -> tuple[int, np.ndarray]:
        return self.pixels, self.sums

    def __setstate__(self, state: tuple[int, np.ndarray]) -> None:
        self._lock = Lock()
        self.pixels, self.sums = state

    def described(self) -> tuple[float, ...] | None:
        """Return mean and standard deviation of every channel; None if no tile was seen."""
        if not self.pixels:
            return None
        mean, square = self.sums / self.pixels
        return (*mean.tolist(), *np.sqrt(np.maximum(square - mean * mean, 0.0)).tolist())


def _moments(maps: Tensor) -> Tensor:
    """Return the means of values and of their squares (2, C) of maps (B, C, H, W)."""
    flat = maps.float().transpose(0, 1).flatten(1)
    return torch.stack([flat.mean(dim=1), flat.square().mean(dim=1)])


def watched(network: EMPreTrainedModel, sums: FeatureSums) -> EMPreTrainedModel:
    """Return a network of the same weights, of which `sums` takes in what its trunk sees.

    The network itself is not touched, so others may use it at the same time.
    """
    trunk, twin = copy.copy(network.trunk), copy.copy(network)
    features = network.trunk.features

    def seen(x: Tensor) -> list[Tensor]:
        maps = features(x)
        sums.add(maps)
        return maps

    trunk.features = seen  # type: ignore[method-assign]
    twin.__dict__.pop("forward", None)  # a trainer's wrapper would call the network itself
    twin.__dict__["_modules"] = {**network._modules, "trunk": trunk}
    return twin
