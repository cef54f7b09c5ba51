"""The benchmark of what can be trusted: its measures, and that the documentation shows its results."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.trust_cell import REASONS, auroc, changes, doubts
from benchmarks.trust_tables import read, table

PAGE = Path(__file__).parents[1] / "docs" / "trust.md"


def test_the_page_shows_the_committed_results():
    assert table(read()) in PAGE.read_text(encoding="utf-8")


def test_auroc_is_the_chance_that_a_higher_one_is_above():
    rng = np.random.default_rng(0)
    low, high = rng.integers(0, 8, 50), rng.integers(2, 10, 40)
    above = (high[:, None] > low).mean() + 0.5 * (high[:, None] == low).mean()
    assert auroc(low, high) == pytest.approx(above)
    assert auroc(low, np.zeros(0)) is None


def test_passes_that_agree_leave_no_disagreement():
    one = torch.tensor([[0.9, 0.5], [0.1, 0.5]])[None, :, None]  # (1, K, H, W)
    agreed = doubts(one.expand(3, -1, -1, -1))
    torch.testing.assert_close(agreed["disagreement (mutual information)"], torch.zeros(1, 2), atol=1e-6, rtol=0)
    assert agreed["entropy of the mean"][0, 1] == pytest.approx(1) and agreed["entropy of the mean"][0, 0] < 0.5
    torn = doubts(torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]]])[..., None])
    assert torn["disagreement (mutual information)"].item() == pytest.approx(1, abs=1e-5)
    assert torn["spread of probabilities"].item() == pytest.approx(0.5)


def test_a_changed_micrograph_keeps_its_size():
    image = np.random.default_rng(0).integers(0, 255, (64, 96)).astype(np.uint8)
    found = changes(image)
    assert found.keys() == REASONS.keys() and all(one.shape == image.shape for one in found.values())
    np.testing.assert_array_equal(found["inverted"], -image.astype(np.float32))
    assert found["blurred"].std() < 0.3 * image.std() < 0.5 * found["drowned in noise"].std()
