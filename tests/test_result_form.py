"""The dtype of a result: few whole numbers are restored as floats, others in their own dtype."""

import numpy as np
import pytest
import tifffile
import torch

from emfm import EMForDenoising, EMForSemanticSegmentation, EMFoundationConfig, predict
from emfm.inference.arguments import PredictArguments
from emfm.inference.files import predict_files
from emfm.inference.result_form import FEW_LEVELS

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(1.5, (48, 64)).astype(np.uint16)
GREY = RNG.integers(0, 250, (48, 64)).astype(np.uint8)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return EMForDenoising(EMFoundationConfig.from_name("unet2-rf44")).eval()


def test_counts_of_a_few_electrons_are_restored_between_whole_numbers(model):
    found = predict(model, COUNTS).output
    assert found.dtype == np.float32 and (found != np.rint(found)).mean() > 0.9
    np.testing.assert_allclose(found, predict(model, COUNTS.astype(np.float32)).output, rtol=1e-6)


@pytest.mark.parametrize(
    ("image", "dtype"),
    [
        (GREY, np.uint8),
        (GREY.astype(np.int16) * 100 - 3000, np.int16),
        (COUNTS.astype(np.uint8), np.float32),
        (COUNTS > 1, np.float32),  # a detector that tells one from none
        (np.where(RNG.random((48, 64)) < 0.005, 60000, COUNTS).astype(np.uint16), np.float32),  # hot pixels
        (np.full((48, 64), 7, np.uint16), np.uint16),  # nothing to restore
        (GREY.astype(np.float64), np.float64),
    ],
)
def test_the_spread_of_the_values_decides_and_no_hot_pixel(model, image, dtype):
    assert predict(model, image).output.dtype == dtype


def test_the_limit_is_between_the_percentiles_that_the_network_sees(model):
    ramp = np.linspace(0, 1, 48 * 64).reshape(48, 64)
    for levels, dtype in ((FEW_LEVELS - 2, np.float32), (FEW_LEVELS + 4, np.uint8)):
        assert predict(model, np.rint(ramp * levels / 0.98).astype(np.uint8)).output.dtype == dtype


def test_class_maps_of_few_counts_stay_class_maps():
    config = EMFoundationConfig.from_name("unet2-rf44", id2label={0: "a", 1: "b"})
    assert predict(EMForSemanticSegmentation(config).eval(), COUNTS).output.dtype == np.uint8


@pytest.mark.parametrize("index", [None, "all"])
def test_files_are_floats_too_and_a_line_says_so_once(index, model, tmp_path, caplog):
    given = COUNTS if index is None else np.stack([COUNTS] * 3)
    tifffile.imwrite(tmp_path / "c.tif", given, photometric="minisblack")
    (entry,) = predict_files(model, [tmp_path / "c.tif"], tmp_path / "out", PredictArguments(index=index))
    found = tifffile.imread(entry["output"])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found if index is None else found[1], predict(model, COUNTS).output)
    said = [record.message for record in caplog.records if "fewer than 64 grey levels" in record.message]
    assert len(said) == 1 and "c.tif: uint16" in said[0] and "the result is float32" in said[0]
