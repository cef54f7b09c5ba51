"""Planes of a volume in three directions: their mean, stopping and going on, and what is refused."""

import numpy as np
import pytest
import tifffile
import torch
from test_cli import emfm  # noqa: F401  (a fixture)

from emfm import (
    EMError,
    EMForDenoising,
    EMForInstanceSegmentation,
    EMForSemanticSegmentation,
    EMForSuperResolution,
    EMFoundationConfig,
)
from emfm.inference.arguments import PredictArguments
from emfm.inference.files import predict_files
from emfm.inference.orthoplanes import Orthoplanes

PLANES = PredictArguments(index="all", orthoplanes=True)
VOLUME = np.random.default_rng(0).integers(0, 250, (20, 24, 28)).astype(np.uint8)


def model_of(kind, **fields):
    torch.manual_seed(0)
    return kind(EMFoundationConfig.from_name("unet2-rf44", **fields)).eval()


def segmenter():
    return model_of(EMForSemanticSegmentation, id2label={0: "background", 1: "particle"})


def write(path, volume=VOLUME, sides=(8.0, 8.0), axes="ZYX"):
    described = {"axes": axes, "spacing": sides[1], "unit": "nm"}
    resolution = {"resolution": (1e7 / sides[0], 1e7 / sides[0]), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, volume, photometric="minisblack", metadata=described, **resolution)
    return path


def maps_along(model, volume, axis):
    """Return the maps (Z, C, Y, X) of the planes across an axis."""
    planes = []
    for plane in np.moveaxis(volume, axis, 0):
        statistics = model.processor.statistics(plane)
        values = torch.from_numpy(model.processor.normalize(plane, statistics))[None, None]
        maps = model.maps(values)[0].numpy()
        planes.append(maps * statistics.scale + statistics.offset if len(maps) == 1 else maps)
    return np.moveaxis(np.moveaxis(np.stack(planes), 0, 1), 1, axis + 1).swapaxes(0, 1)


def mean_of(model, volume=VOLUME):
    return sum(maps_along(model, volume, axis) for axis in range(3)) / 3


def test_classes_are_those_of_the_mean_over_three_directions(tmp_path):
    model = segmenter()
    (entry,) = predict_files(model, [write(tmp_path / "v.tif")], tmp_path / "out", PLANES)
    expected = mean_of(model)
    clear = np.abs(expected[:, 0] - expected[:, 1]) > 1e-3
    volume = tifffile.imread(entry["output"])
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(volume[clear], expected.argmax(axis=1)[clear])
    assert not list((tmp_path / "out").glob(".*"))  # nothing of the planes is left


def test_a_restored_volume_is_the_mean_in_the_units_of_the_file(tmp_path):
    model = model_of(EMForDenoising)
    volume = VOLUME.astype(np.float32) * 10 + np.arange(20, dtype=np.float32)[:, None, None] * 300
    (entry,) = predict_files(model, [write(tmp_path / "v.tif", volume)], tmp_path / "out", PLANES)
    found = tifffile.imread(entry["output"])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, mean_of(model, volume)[:, 0], rtol=1e-4, atol=0.5)


def test_objects_take_the_mean_foreground_and_the_boundaries_of_their_slice(tmp_path, monkeypatch):
    model, seen = model_of(EMForInstanceSegmentation), []
    mean_maps = Orthoplanes.mean_maps
    monkeypatch.setattr(Orthoplanes, "mean_maps", lambda *args: seen.append(mean_maps(*args)) or seen[-1])
    predict_files(model, [write(tmp_path / "v.tif")], tmp_path / "out", PLANES)
    found = np.concatenate([means for means, _ in seen])
    np.testing.assert_allclose(found[:, 0], mean_of(model)[:, 0], atol=1e-3)
    np.testing.assert_allclose(found[:, 1:], maps_along(model, VOLUME, 0)[:, 1:], atol=1e-3)
    assert tifffile.imread(tmp_path / "out" / "v.tif").dtype == np.uint32


def test_no_data_stay_no_data_even_where_a_whole_plane_is(tmp_path):
    volume = VOLUME.astype(np.float32)
    volume[:, :3] = np.nan
    model = model_of(EMForDenoising)
    (entry,) = predict_files(model, [write(tmp_path / "v.tif", volume)], tmp_path / "out", PLANES)
    found = tifffile.imread(entry["output"])
    np.testing.assert_array_equal(np.isnan(found), np.isnan(volume))


def test_a_stopped_run_goes_on_with_the_next_plane_and_ends_with_the_same_bytes(tmp_path, monkeypatch):
    path, one, done = write(tmp_path / "v.tif"), Orthoplanes._one, []
    predict_files(segmenter(), [path], tmp_path / "whole", PLANES)

    def stops(self, axis, number, plane):
        if (axis, number) == (1, 5):
            raise KeyboardInterrupt
        one(self, axis, number, plane)

    monkeypatch.setattr(Orthoplanes, "_one", stops)
    with pytest.raises(KeyboardInterrupt):
        predict_files(segmenter(), [path], tmp_path / "out", PLANES)

    def counts(self, axis, number, plane):
        done.append((axis, number))
        one(self, axis, number, plane)

    monkeypatch.setattr(Orthoplanes, "_one", counts)
    predict_files(segmenter(), [path], tmp_path / "out", PLANES)
    assert done == [*((1, number) for number in range(5, 24)), *((2, number) for number in range(28))]
    assert (tmp_path / "out" / "v.tif").read_bytes() == (tmp_path / "whole" / "v.tif").read_bytes()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sides": (8.0, 40.0)}, "voxels of 8 x 8 x 40 nm; --orthoplanes needs cubes"),
        ({"volume": VOLUME[0]}, "one image; --orthoplanes needs a volume"),
        ({"axes": "TYX"}, "a stack with the axes TYX; --orthoplanes needs a volume"),
        ({"volume": np.stack([VOLUME, VOLUME]), "axes": "TZYX"}, "a stack with the axes TZYX; --orthoplanes needs"),
    ],
)
def test_what_is_no_volume_of_cubes_is_refused(given, message, tmp_path):
    (entry,) = predict_files(segmenter(), [write(tmp_path / "v.tif", **given)], tmp_path / "out", PLANES)
    assert message in entry["error"] and "v.tif" in entry["error"]
    assert not (tmp_path / "out").exists()


def test_the_users_word_on_the_voxel_goes_before_the_files(tmp_path):
    stated = PredictArguments(index="all", orthoplanes=True, slice_distance=8.0)
    (entry,) = predict_files(segmenter(), [write(tmp_path / "v.tif", sides=(8.0, 40.0))], tmp_path / "out", stated)
    assert "error" not in entry


def test_enlarging_and_other_settings_that_do_not_go_together_are_refused(tmp_path, emfm):  # noqa: F811
    model = model_of(EMForSuperResolution, scale=2)
    (entry,) = predict_files(model, [write(tmp_path / "v.tif")], tmp_path / "out", PLANES)
    assert "this model makes 2 times it" in entry["error"]
    with pytest.raises(EMError, match="--orthoplanes is of whole volumes: give --index all"):
        PredictArguments(orthoplanes=True)
    with pytest.raises(EMError, match="leave --match-pixel-size out"):
        PredictArguments(index="all", orthoplanes=True, match_pixel_size=True)
    code, _, err = emfm("predict", tmp_path / "v.tif", "--model", "unet2-rf44", "--output", "o", "--orthoplanes")
    assert code == 2 and "give --index all" in err
