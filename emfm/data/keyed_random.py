"""Random numbers for whole batches in which each image's share follows from (seed, epoch, index) alone.

A counter-based generator: every number is a hash of its image's key and its own place, so the result depends neither on
the rest of the batch nor on the order of batches, and a GPU computes it as readily as a CPU.
"""

import math

import torch
from torch import Tensor

# SplitMix64 (Steele, Lea and Flood 2014): the step between states and the two multipliers of the finaliser, as int64.
_STEP = 0x9E3779B97F4A7C15 - (1 << 64)
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))
# Below this rate a Poisson count is found by inverting the distribution; it then hardly ever exceeds _LARGEST.
_SMALL_RATE, _LARGEST = 4.0, 20


def _shifted(words: Tensor, bits: int) -> Tensor:
    """Shift int64 right as if unsigned."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def _mix(words: Tensor) -> Tensor:
    """Return a hash of each int64 in which every bit of the input changes half of the bits."""
    words = (words ^ _shifted(words, 30)) * _MULTIPLIERS[0]
    words = (words ^ _shifted(words, 27)) * _MULTIPLIERS[1]
    return words ^ _shifted(words, 31)


class KeyedRandom:
    """Draws for a batch; the n-th call returns the same numbers for the same key, whatever else is in the batch.

    Keys (B, 2) int64 are epoch and index of each image; the numbers are made on their device.
    """

    def __init__(self, seed: int, keys: Tensor):
        state = torch.full_like(keys[:, 0], seed)
        for column in (keys[:, 0], keys[:, 1]):
            state = _mix(state + _STEP) ^ column
        self._state = _mix(state + _STEP)  # (B,)

    def _words(self, count: int) -> Tensor:
        """Return (B, count) int64 of 64 random bits each, other ones at every call."""
        self._state = _mix(self._state + _STEP)
        places = torch.arange(1, count + 1, device=self._state.device) * _STEP
        return _mix(self._state[:, None] + places)

    def uniform(self, *shape: int) -> Tensor:
        """Return (B, *shape) float32, uniform in (0, 1)."""
        return _unit(_shifted(self._words(math.prod(shape)), 40)).view(-1, *shape)

    def between(self, interval: tuple[float, float]) -> Tensor:
        """Return one uniform number of the interval per image, (B, 1, 1, 1)."""
        low, high = interval
        return low + (high - low) * self.uniform(1, 1, 1)

    def normal(self, *shape: int) -> Tensor:
        """Return (B, *shape) float32, standard normal (Box and Muller 1958); none lies beyond 5.9."""
        count = math.prod(shape)
        words = self._words((count + 1) // 2)
        radius = torch.sqrt(-2 * torch.log(_unit(_shifted(words, 40))))
        angle = 2 * torch.pi * _unit(words & 0xFFFFFF)
        pairs = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)
        return pairs[:, :count].reshape(-1, *shape)

    def poisson(self, rates: Tensor) -> Tensor:
        """Return Poisson counts, whole numbers as float32, for rates (B, ...) of 0 or more.

        Rates of 4 and more use the expansion of the distribution's inverse about the normal one
        (Giles 2016, ACM Transactions on Mathematical Software 42, equation 6), smaller ones inversion.
        """
        rates = rates.float()
        normal = self.normal(*rates.shape[1:])
        root = torch.sqrt(rates)
        correction = 1 / 3 + normal**2 / 6 - (normal / 36 + normal**3 / 72) / root.clamp_min(1.0)
        counts = torch.floor(rates + root * normal + correction).clamp_min(0)
        small = rates < _SMALL_RATE
        if bool(small.any()):
            counts[small] = _invert_poisson(rates[small], torch.special.ndtr(normal[small]))
        return counts


def _unit(words: Tensor) -> Tensor:
    """Map whole numbers of 24 bits into (0, 1), float32."""
    return (words.float() + 0.5) * 2**-24


def _invert_poisson(rates: Tensor, quantiles: Tensor) -> Tensor:
    """Return the smallest count whose cumulative probability reaches the quantile."""
    probability = torch.exp(-rates)
    cumulative, counts = probability.clone(), torch.zeros_like(rates)
    for count in range(1, _LARGEST + 1):
        counts += quantiles > cumulative
        probability = probability * rates / count
        cumulative += probability
    return counts
