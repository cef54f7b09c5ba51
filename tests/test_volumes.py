"""Volumes: slices linked into objects, measured, and written as their file's kind."""

import csv
import json
import tracemalloc

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import torch
import zarr

from benchmarks.vendor_files import dm_bytes
from emfm import (
    EMError,
    EMForDenoising,
    EMForInstanceSegmentation,
    EMForSemanticSegmentation,
    EMFoundationConfig,
    load_em_dataset,
    predict,
    read_stack,
)
from emfm.inference.arguments import PredictArguments
from emfm.inference.files import predict_files
from emfm.reports.volumes import VolumeObjects, Voxel, ball_diameter, slices_shown
from emfm.tasks.linking import LinkedSlice, link_slices

ALL = PredictArguments(index="all")


def stack(count=5):
    return np.random.default_rng(0).integers(0, 250, (count, 48, 64)).astype(np.uint8)


def model_of(kind, **fields):
    torch.manual_seed(0)
    return kind(EMFoundationConfig.from_name("unet2-rf44", **fields)).eval()


def segmenter():
    return model_of(EMForSemanticSegmentation, id2label={0: "background", 1: "particle"})


def linked(slices):
    links, count = link_slices(len(slices), lambda number: slices[number])
    return np.stack([LinkedSlice(ids, link)[:] for ids, link in zip(slices, links, strict=True)]), count


# linking


def test_an_object_goes_on_in_the_one_that_it_overlaps_most_both_ways_round():
    first = np.zeros((4, 12), dtype=np.uint32)
    first[:, 0:4], first[:, 6:12] = 7, 3
    second = np.zeros_like(first)
    second[:, 1:4], second[:, 5:8], second[:, 8:12] = 2, 5, 9  # 3 is in two parts, of which 9 is the larger
    volume, count = linked([first, second])
    assert count == 3
    assert volume[0, 0, [0, 6]].tolist() == [2, 1]  # by the numbers in the first slice
    assert volume[1, 0, [1, 5, 8]].tolist() == [2, 3, 1]


def test_what_shares_less_than_half_of_the_smaller_is_another_object():
    first, second = np.zeros((2, 1, 10), dtype=np.uint32)
    first[0, 0:4], second[0, 3:7] = 1, 1
    assert linked([first, second])[1] == 2
    second[0, 2:4] = 1  # now 2 of 4 pixels of the smaller
    assert linked([first, second])[1] == 1


def test_balls_that_touch_keep_their_numbers_through_all_slices():
    z, y, x = np.ogrid[:24, :24, :48]
    truth = np.zeros((24, 24, 48), dtype=np.uint32)
    truth[(z - 11) ** 2 + (y - 12) ** 2 + (x - 12) ** 2 <= 100] = 2
    truth[(z - 12) ** 2 + (y - 12) ** 2 + (x - 32) ** 2 < 100] = 1
    shuffled = [np.where(ids > 0, (ids + number) % 2 + 1, 0).astype(np.uint32) for number, ids in enumerate(truth)]
    volume, count = linked(shuffled)
    assert count == 2
    pairs = {(int(a), int(b)) for a, b in zip(truth.ravel(), volume.ravel(), strict=True)}
    assert len(pairs) == 3 and (0, 0) in pairs


def test_slices_without_objects_end_them_and_a_volume_may_have_none():
    one, none = np.ones((3, 3), dtype=np.uint32), np.zeros((3, 3), dtype=np.uint32)
    volume, count = linked([one, none, one])
    assert count == 2 and volume[:, 0, 0].tolist() == [1, 0, 2]
    assert linked([none, none])[1] == 0


def test_a_fragment_between_two_parts_of_an_object_belongs_to_it_and_beside_it_does_not():
    whole = np.ones((2, 10), dtype=np.uint32)
    whole[:, 8:] = 0
    parts = np.zeros_like(whole)
    parts[:, :5], parts[:, 5:8], parts[:, 8:] = 4, 7, 9
    volume, count = linked([whole, parts, whole])
    assert count == 2
    assert volume[1, 0].tolist() == [1] * 8 + [2] * 2
    volume, count = linked([whole, parts])  # nothing below says that the fragment is none
    assert count == 3


# measuring


def test_the_measures_of_a_box_are_those_by_hand():
    ids = np.zeros((6, 10, 12), dtype=np.uint32)
    ids[1:4, 2:6, 3:5] = 1
    ids[5, 9, 11] = 2
    image = np.where(ids == 1, 5.0, 1.0)
    image[1, 2, 3] = np.nan
    found = VolumeObjects(2, 6, Voxel(2.0, 10.0))
    for number in range(6):
        found.add(number, ids[number], image[number])
    box, corner = found.rows("v.tif")
    assert (box["volume_vx"], box["volume_nm3"], box["slices"]) == (24, "960", 3)
    assert (box["first_slice"], box["last_slice"], box["touches_border"]) == (1, 3, "no")
    assert (box["centroid_x_px"], box["centroid_y_px"], box["centroid_slice"]) == ("3.50", "3.50", "2.00")
    assert box["mean_intensity"] == "5" and corner["touches_border"] == "yes" and corner["volume_vx"] == 1
    assert float(box["equivalent_diameter_nm"]) == pytest.approx((6 * 960 / np.pi) ** (1 / 3), rel=1e-5)
    summary = found.summary()
    assert (summary["unit"], summary["objects"], summary["touching_border"]) == ("nm3", 2, 1)
    assert summary["median_volume"] == 960 and summary["total_volume"] == 1000


def test_without_the_distance_of_slices_volumes_are_voxels():
    found = VolumeObjects(1, 3, Voxel(2.0, None))
    found.add(1, np.ones((1, 1), dtype=np.uint32), np.ones((1, 1)))
    (row,) = found.rows("v.tif")
    assert row["volume_vx"] == 1 and row["volume_nm3"] == row["equivalent_diameter_nm"] == ""
    assert found.summary()["unit"] == "voxels"
    assert ball_diameter(np.pi / 6) == pytest.approx(1.0)


def test_the_picture_shows_nine_slices_from_the_first_to_the_last():
    assert slices_shown(3) == [0, 1, 2] and slices_shown(1) == [0]
    assert slices_shown(101)[0] == 0 and slices_shown(101)[-1] == 100 and len(slices_shown(101)) == 9


# predicting objects


@pytest.mark.parametrize(("form", "dtype"), [("tif", "uint32"), ("mrc", "uint16")])
def test_the_objects_of_a_stack_are_those_of_its_slices_with_numbers_of_the_volume(form, dtype, tmp_path):
    path = tmp_path / "v.tif"
    tifffile.imwrite(path, stack(), photometric="minisblack", metadata={"axes": "ZYX"})
    model = model_of(EMForInstanceSegmentation)
    with torch.no_grad():  # so that random weights find objects
        model.object_head.bias += torch.tensor([3.0, -3.0, 0.0])
    stated = PredictArguments(index="all", format=form, pixel_size=4.0, slice_distance=20.0)
    (entry,) = predict_files(model, [path], tmp_path / "out", stated)
    (volume,) = [tifffile.imread(entry["output"]) if form == "tif" else mrcfile.read(entry["output"])]
    assert volume.dtype == dtype and volume.max() > 0
    for number, image in enumerate(stack()):
        flat = predict(model, image).output
        pairs = set(zip(flat.ravel().tolist(), volume[number].ravel().tolist(), strict=True))
        assert len(pairs) == len({a for a, _ in pairs}) and all((a > 0) == (b > 0) for a, b in pairs)
    rows = list(csv.DictReader((tmp_path / "out" / "v_objects.csv").open()))
    assert [int(row["volume_vx"]) for row in rows] == np.bincount(volume.ravel().astype(int))[1:].tolist()
    assert float(rows[0]["volume_nm3"]) == pytest.approx(int(rows[0]["volume_vx"]) * 320, rel=1e-5)
    summary = json.loads((tmp_path / "out" / "v_summary.json").read_text())
    assert summary["objects"] == volume.max() and summary["slice_distance_nm"] == 20.0
    assert entry["picture"].endswith("v_slices.png") and (tmp_path / "out" / "v_sizes.png").is_file()


# formats


def write_mrc(path, volume=None, depth=20.0):
    with mrcfile.new(path) as file:
        file.set_data((stack() if volume is None else volume).astype(np.int16))
        file.set_volume()
        file.voxel_size = (40.0, 40.0, 10 * depth)


def write_zarr(path):
    group = zarr.create_group(path)
    group.create_array("0", data=stack(), chunks=(2, 32, 32))
    units = {"z": "micrometer", "y": "nanometer", "x": "nanometer"}
    axes = [{"name": name, "type": "space", "unit": unit} for name, unit in units.items()]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [0.02, 4.0, 4.0]}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [level]}]}


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=stack()).attrs["element_size_um"] = (0.02, 0.004, 0.004)


def write_ome(path):
    sides = {f"PhysicalSize{axis}{more}": value for axis in "XY" for more, value in (("", 4.0), ("Unit", "nm"))}
    tifffile.imwrite(path, stack(), ome=True, metadata={"axes": "ZYX", "PhysicalSizeZ": 0.02, **sides})


def write_imagej(path):
    described = {"axes": "ZYX", "spacing": 20.0, "unit": "nm"}
    tifffile.imwrite(path, stack(), imagej=True, resolution=(1 / 4, 1 / 4), metadata=described)


WRITERS = {
    "v.mrc": write_mrc,
    "v.zarr": write_zarr,
    "v.h5": write_hdf5,
    "v.ome.tif": write_ome,
    "v.tif": write_imagej,
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_distance_of_slices_is_read_and_a_volume_of_the_same_kind_keeps_it(name, tmp_path):
    WRITERS[name](tmp_path / name)
    first = next(read_stack(tmp_path / name))
    assert first.slice_distance == pytest.approx(20.0) and first.pixel_size == pytest.approx(4.0)
    (entry,) = predict_files(segmenter(), [tmp_path / name], tmp_path / "out", ALL)
    kind = {"v.mrc": "v.mrc", "v.zarr": "v.zarr"}.get(name, name.replace(".h5", ".tif"))
    assert entry["output"] == str(tmp_path / "out" / kind)
    slices = list(read_stack(entry["output"]))
    assert slices[0].slice_distance == pytest.approx(20.0) and slices[0].pixel_size == pytest.approx(4.0)
    for micrograph, image in zip(slices, stack(), strict=True):
        np.testing.assert_array_equal(micrograph.array, predict(segmenter(), image).output)


def test_an_mrc_volume_is_valid_and_the_same_bytes_each_time(tmp_path):
    write_mrc(tmp_path / "v.mrc")
    contents = []
    for folder in ("one", "two"):
        (entry,) = predict_files(model_of(EMForDenoising, residual=True), [tmp_path / "v.mrc"], tmp_path / folder, ALL)
        assert mrcfile.validate(entry["output"])
        contents.append((tmp_path / folder / "v.mrc").read_bytes())
    assert contents[0] == contents[1]
    with mrcfile.open(tmp_path / "one" / "v.mrc") as file:
        assert file.data.dtype == np.int16 and file.is_volume()
        assert [float(file.voxel_size[axis]) for axis in "xyz"] == pytest.approx([40.0, 40.0, 200.0])
        assert np.abs(file.data.astype(float) - stack()).max() <= 1  # an untrained one returns its input


def test_an_mrc_image_stack_and_units_of_no_length_have_no_distance(tmp_path):
    write_mrc(tmp_path / "v.mrc")
    with mrcfile.open(tmp_path / "v.mrc", "r+") as file:
        file.set_image_stack()
    assert next(read_stack(tmp_path / "v.mrc")).slice_distance is None
    tifffile.imwrite(tmp_path / "t.tif", stack(), imagej=True, metadata={"axes": "ZYX", "spacing": 3, "unit": "pixel"})
    assert next(read_stack(tmp_path / "t.tif")).slice_distance is None


def test_what_an_mrc_file_cannot_hold_is_refused_with_the_way_out(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", stack()[0].astype(np.float64))
    (entry,) = predict_files(model_of(EMForDenoising), [tmp_path / "a.tif"], tmp_path, PredictArguments(format="mrc"))
    assert "an MRC file holds no float64: choose --format tif or zarr" in entry["error"]
    tifffile.imwrite(tmp_path / "v.tif", stack().astype(np.int32), photometric="minisblack")
    stated = PredictArguments(index="all", format="mrc")
    (entry,) = predict_files(model_of(EMForDenoising), [tmp_path / "v.tif"], tmp_path / "out", stated)
    assert "an MRC file holds no int32" in entry["error"] and not (tmp_path / "out").exists()


def test_a_pixel_size_that_the_model_does_not_know_is_said_once(tmp_path, caplog):
    write_mrc(tmp_path / "v.mrc")
    model = segmenter()
    model.config.pixel_size_range = [1.0, 2.0]
    predict_files(model, [tmp_path / "v.mrc"], tmp_path / "out", ALL)
    assert sum("the model was trained at" in record.message for record in caplog.records) == 1


def test_classes_of_a_stack_without_data_are_named_as_such(tmp_path):
    volume = stack().astype(np.float32)
    volume[2, :3] = np.nan
    tifffile.imwrite(tmp_path / "v.tif", volume, photometric="minisblack")
    (entry,) = predict_files(segmenter(), [tmp_path / "v.tif"], tmp_path / "out", ALL)
    assert (tifffile.imread(entry["output"]) == 255).sum() == 3 * 64
    record = json.loads((tmp_path / "out" / "v.tif.json").read_text())
    assert record["no_data"] == {"pixels": 192, "value": "255.0"}
    assert json.loads((tmp_path / "out" / "labels.json").read_text())["255"] == "ignore"


# reading and learning


def big(path):
    volume = np.zeros((40, 256, 1024), dtype=np.float32)
    if path.suffix == ".tif":
        tifffile.imwrite(path, volume, compression="zlib")
    elif path.suffix == ".mrc":
        with mrcfile.new(path) as file:
            file.set_data(volume)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("raw", data=volume, chunks=(1, 256, 256), compression="gzip")
    elif path.suffix == ".dm4":
        pytest.importorskip("rsciio")
        path.write_bytes(dm_bytes(volume, 0.25))
    else:
        zarr.create_array(path, data=volume, chunks=(1, 256, 256))


@pytest.mark.parametrize("name", ["v.tif", "v.mrc", "v.h5", "v.zarr", "v.dm4"])
def test_a_stack_is_gone_through_in_the_memory_of_a_few_slices(name, tmp_path):
    big(tmp_path / name)
    next(read_stack(tmp_path / name))  # libraries load
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_stack(tmp_path / name)) == 40
        assert tracemalloc.get_traced_memory()[1] < 8 << 20  # of 40 MiB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("truth", ["instances", "masks"])
def test_stacks_of_numbers_and_masks_are_learnt_slice_by_slice(truth, tmp_path):
    ids = np.zeros((3, 48, 64), dtype=np.uint16)
    ids[1, 4:20, 4:20], ids[1:, 30:40, 30:60] = (1, 2) if truth == "instances" else (1, 1)
    for folder, volume in (("images", stack(3)), (truth, ids)):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "v.tif", volume, photometric="minisblack")
    data = load_em_dataset(tmp_path, "train", truth=truth)
    assert data.names == ["v.tif[0]", "v.tif[1]", "v.tif[2]"]
    for number in range(3):
        np.testing.assert_array_equal(data.images[number], stack(3)[number])
        np.testing.assert_array_equal(data.truth(number), ids[number])
    tifffile.imwrite(tmp_path / truth / "v.tif", ids[:2], photometric="minisblack")
    with pytest.raises(EMError, match=r"holds a stack of 2, .*v\.tif a stack of 3: a stack needs the truth of each"):
        load_em_dataset(tmp_path, "train", truth=truth)
