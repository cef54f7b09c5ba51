"""Random numbers of a batch: keyed, independent, and of the right distribution."""

import numpy as np
import pytest
import torch

from emfm.data.keyed_random import KeyedRandom


def keys(count: int, epoch: int = 0) -> torch.Tensor:
    return torch.stack([torch.full((count,), epoch), torch.arange(count)], dim=1)


def test_the_same_key_gives_the_same_numbers_whatever_else_is_in_the_batch():
    together = KeyedRandom(3, keys(9))
    alone = KeyedRandom(3, keys(9)[4:5])
    for draw in ("uniform", "normal"):
        torch.testing.assert_close(getattr(together, draw)(2, 7)[4:5], getattr(alone, draw)(2, 7), rtol=0, atol=1e-6)


def test_seed_epoch_index_and_call_each_give_other_numbers():
    draws = [
        KeyedRandom(0, keys(4)).uniform(50),
        KeyedRandom(1, keys(4)).uniform(50),
        KeyedRandom(0, keys(4, epoch=1)).uniform(50),
    ]
    twice = KeyedRandom(0, keys(4))
    twice.uniform(50)
    draws.append(twice.uniform(50))
    numbers = torch.cat(draws).flatten()
    assert len(numbers.unique()) > len(numbers) - 3  # 24 bits each: a coincidence or two are possible
    assert np.abs(np.corrcoef(torch.cat(draws).numpy()) - np.eye(16)).max() < 0.6


def test_uniform_numbers_are_uniform_and_never_0_or_1():
    numbers = KeyedRandom(0, keys(20)).uniform(10_000).flatten()
    assert numbers.min() > 0 and numbers.max() < 1
    share = torch.histc(numbers, 10, 0, 1) / len(numbers)
    torch.testing.assert_close(share, torch.full((10,), 0.1), rtol=0, atol=0.004)


def test_normal_numbers_are_normal_and_neighbours_are_independent():
    numbers = KeyedRandom(0, keys(20)).normal(101, 101)
    moments = [float((numbers**power).mean()) for power in (1, 2, 3, 4)]
    assert moments == pytest.approx([0, 1, 0, 3], abs=0.06)
    for one, two in ((numbers[..., 1:], numbers[..., :-1]), (numbers[:, 1:], numbers[:, :-1])):
        assert abs(float((one * two).mean())) < 0.01
    half = 101 * 101 // 2  # both numbers of a Box-Muller pair
    flat = numbers.flatten(1)
    assert abs(float((flat[:, :half] * flat[:, half + 1 : 2 * half + 1]).mean())) < 0.01


@pytest.mark.parametrize("rate", [0.0, 0.3, 2.0, 3.9, 4.1, 9.0, 50.0, 1000.0])
def test_poisson_counts_have_mean_variance_and_skewness_of_their_rate(rate):
    counts = KeyedRandom(0, keys(20)).poisson(torch.full((20, 10_000), rate)).double()
    assert (counts == counts.round()).all() and counts.min() >= 0
    assert float(counts.mean()) == pytest.approx(rate, rel=0.01)
    assert float(counts.var()) == pytest.approx(rate, rel=0.015)
    if 0 < rate < 50:
        skewness = float(((counts - rate) ** 3).mean()) / rate**1.5
        assert skewness * rate**0.5 == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("rate", [0.7, 3.0, 6.0])
def test_small_poisson_counts_are_as_probable_as_the_formula_says(rate):
    counts = KeyedRandom(1, keys(20)).poisson(torch.full((20, 10_000), rate)).flatten()
    probability = np.exp(-rate)
    for count in range(8):
        assert float((counts == count).double().mean()) == pytest.approx(probability, abs=0.004)
        probability *= rate / (count + 1)
