"""Stacks whose chunks hold many slices: how often what is read, values, and what is kept."""

import h5py
import numpy as np
import pytest
import zarr

from emfm.io.formats import slabs
from emfm.io.formats.slabs import Slabs, by_slabs
from emfm.io.reading import read_micrograph, read_stack

STACK = np.random.default_rng(0).integers(0, 60000, (19, 40, 50)).astype(np.uint16)


class Chunked:
    """An array that counts how often each of its chunks is decoded."""

    def __init__(self, array, chunks):
        self.array, self.chunks, self.shape, self.dtype = array, chunks, array.shape, array.dtype
        self.decoded = np.zeros([-(-side // chunk) for side, chunk in zip(array.shape, chunks, strict=True)], int)

    def __getitem__(self, place):
        ranges = [slice(at, at + 1) if isinstance(at, int) else slice(*at.indices(side)[:2])
                  for at, side in zip(place, self.shape, strict=True)]  # fmt: skip
        touched = [slice(part.start // size, -(-part.stop // size))
                   for part, size in zip(ranges, self.chunks, strict=True)]  # fmt: skip
        self.decoded[tuple(touched)] += 1
        return self.array[place]


def gone_through(array, numbers):
    source = by_slabs(array, 0)
    return np.stack([source[number, 0:40, 0:50] for number in numbers])


def test_chunks_of_a_stack_that_is_gone_through_are_decoded_once():
    array = Chunked(STACK, (8, 16, 32))
    np.testing.assert_array_equal(gone_through(array, range(19)), STACK)
    assert array.decoded[1:].max() == 1 and array.decoded[0].max() == 2  # the first slice might have been the only one


@pytest.mark.parametrize("step", [2, 3])
def test_one_of_several_processes_decodes_no_more(step):
    array = Chunked(STACK, (8, 40, 50))
    np.testing.assert_array_equal(gone_through(array, range(1, 19, step)), STACK[1::step])
    assert array.decoded.ravel().tolist() == [2, 1, 1]


def test_slices_in_no_order_are_right_and_nothing_is_kept_for_them():
    array = Chunked(STACK, (8, 40, 50))
    source = by_slabs(array, 0)
    for number in np.random.default_rng(1).permutation(19).tolist() * 2:
        np.testing.assert_array_equal(source[number, 0:40, 0:50], STACK[number])
        np.testing.assert_array_equal(source[number, 3:9, 5:50], STACK[number, 3:9, 5:])
    assert source._slab is None


def test_what_is_kept_is_bounded_and_is_forgotten_with_its_last_slice(monkeypatch):
    monkeypatch.setattr(slabs, "SLAB_BYTES", 3 * STACK[0].nbytes)
    array = Chunked(STACK, (8, 40, 50))
    source = by_slabs(array, 0)
    for number in range(19):
        np.testing.assert_array_equal(source[number, 0:40, 0:50], STACK[number])
        assert source._slab is None or source._slab.nbytes <= 3 * STACK[0].nbytes
    assert source._slab is None
    assert array.decoded.ravel().tolist() == [4, 3, 1]  # of eight slices three at a time
    monkeypatch.setattr(slabs, "SLAB_BYTES", STACK[0].nbytes)
    assert by_slabs(array, 0) is array
    assert by_slabs(Chunked(STACK, (1, 40, 50)), 0).chunks == (1, 40, 50)


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=STACK, chunks=(8, 16, 32), compression="gzip")


def write_zarr(path):
    zarr.create_array(path, data=STACK, chunks=(8, 16, 32))


@pytest.mark.parametrize(("name", "write"), [("v.h5", write_hdf5), ("v.zarr", write_zarr)])
def test_files_are_read_so_and_a_single_slice_alone(name, write, tmp_path, monkeypatch):
    write(tmp_path / name)
    read, asked = Slabs._read, []
    monkeypatch.setattr(
        Slabs, "_read", lambda self, place, numbers: asked.append(numbers) or read(self, place, numbers)
    )
    for micrograph, image in zip(read_stack(tmp_path / name), STACK, strict=True):
        np.testing.assert_array_equal(micrograph.array, image)
    assert asked == [0, slice(1, 8), slice(8, 16), slice(16, 24)]
    asked.clear()
    np.testing.assert_array_equal(read_micrograph(tmp_path / name, 9).array, STACK[9])
    assert asked == [9]
