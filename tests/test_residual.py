"""What a restoration took away: noise, structure, lines, drift, or too little."""

import json

import numpy as np
import pytest
import torch
from scipy import ndimage

from emfm import EMForDenoising, EMFoundationConfig
from emfm.inference.files import predict_files
from emfm.io.writing import write_image
from emfm.reports.residual import measure_residual

RNG = np.random.default_rng(0)
STRUCTURE = ndimage.gaussian_filter(RNG.normal(size=(256, 256)), 5)
CLEAN = 100 + 30 * STRUCTURE / STRUCTURE.std()
NOISE = RNG.normal(0, 20, CLEAN.shape)


@pytest.mark.parametrize(
    ("image", "output", "looks_like"),
    [
        (CLEAN + NOISE, CLEAN, ("noise",)),
        (CLEAN + NOISE, ndimage.gaussian_filter(CLEAN, 6), ("structure lost",)),
        (CLEAN + NOISE + RNG.normal(0, 15, (256, 1)), CLEAN, ("lines",)),
        (CLEAN + NOISE + RNG.normal(0, 15, (1, 256)), CLEAN, ("lines",)),
        (CLEAN + NOISE + np.linspace(0, 80, 256), CLEAN, ("drift",)),
        (CLEAN + NOISE, CLEAN + 0.8 * NOISE, ("too weak",)),
        (CLEAN, CLEAN, ("noise",)),
        (np.full((20, 20), 7.0), np.full((20, 20), 7.0), ("noise",)),
    ],
)
def test_it_is_told_what_the_residual_looks_like(image, output, looks_like):
    assert measure_residual(image, output)[0].looks_like == looks_like


def test_the_figures_are_those_of_the_noise_that_was_added():
    found, residual = measure_residual(CLEAN + NOISE, CLEAN)
    contrast = np.subtract(*np.percentile(CLEAN + NOISE, [99, 1]))
    assert found.deviation == pytest.approx(20 / contrast, rel=0.02)
    assert found.noise == pytest.approx(20 / contrast, rel=0.05)
    assert abs(found.mean) < 1e-3 and abs(found.along_rows) < 0.02 and abs(found.structure) < 0.1
    np.testing.assert_allclose(residual, NOISE / contrast, atol=1e-6)
    assert found.slow == pytest.approx(1, abs=0.3)


def test_counting_noise_grows_with_the_signal():
    counted = RNG.poisson(CLEAN.clip(1)).astype(float)
    assert measure_residual(counted, CLEAN)[0].with_signal > 0.5
    assert abs(measure_residual(CLEAN + NOISE, CLEAN)[0].with_signal) < 0.1


def test_pixels_without_data_are_left_out():
    image = CLEAN + NOISE
    image[:20] = np.nan
    found = measure_residual(image, np.where(np.isnan(image), np.nan, CLEAN))[0]
    assert found.looks_like == ("noise",) and np.isfinite(found.deviation)


def test_a_restored_file_brings_its_residual_and_an_enlarged_one_none(tmp_path, caplog):
    torch.manual_seed(0)
    model = EMForDenoising(EMFoundationConfig.from_name("unet2-rf44", residual=True)).eval()
    write_image(tmp_path / "a.tif", (CLEAN + NOISE).astype(np.float32))
    (entry,) = predict_files(model, [tmp_path / "a.tif"], tmp_path / "out")
    assert entry["residual_picture"].endswith("a_residual.png")
    # an untrained one returns its input
    assert json.loads((tmp_path / "out" / "a_residual.json").read_text())["looks_like"] == ["too weak"]
    assert "what was taken away looks like too weak" in caplog.text
