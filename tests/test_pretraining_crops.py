"""Crops for pretraining, by index and from streams: decided by their key, shared out without duplicates."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from emfm import EMError
from emfm.data.croppers import dihedral
from emfm.data.hub_images import ImageStream, load_images
from emfm.data.unlabelled import InMemory
from emfm.pretraining.crops import EpochOrder, UnlabelledCrops
from emfm.pretraining.streamed_crops import StreamedCrops, held_out_of_stream, is_held_out, read_samples

MICROGRAPHS = 60


def random_images(count: int, shape: tuple[int, int] = (20, 30)) -> list[np.ndarray]:
    return [np.random.default_rng(i).integers(0, 1000, shape, dtype=np.uint16) for i in range(count)]


def crops_of(processor, seed: int = 3, side: int = 8, count: int = 24, images: list | None = None) -> UnlabelledCrops:
    images = images or random_images(4)
    order = EpochOrder([np.arange(len(images))], None, seed)
    return UnlabelledCrops(InMemory(images, processor), processor, side, count, order)


def test_a_crop_depends_on_seed_and_index_alone(processor):
    first, second, longer, other = (
        crops_of(processor),
        crops_of(processor),
        crops_of(processor, count=500),
        crops_of(processor, seed=4),
    )
    backwards = {index: second[index] for index in reversed(range(24))}
    for index in range(24):
        for found in (backwards[index], longer[index]):
            torch.testing.assert_close(found, first[index], rtol=0, atol=0)
        assert not torch.equal(first[index]["clean"], other[index]["clean"])
    assert len({first[index]["clean"].numpy().tobytes() for index in range(24)}) == 24


def test_the_key_of_a_crop_is_its_epoch_and_its_index_within_it(processor):
    crops = crops_of(processor)
    assert [crops[index]["key"].tolist() for index in (0, 3, 4, 23)] == [[0, 0], [0, 3], [1, 0], [5, 3]]


def test_an_index_past_the_end_is_an_index_error_so_that_a_for_loop_ends(processor):
    with pytest.raises(IndexError):
        crops_of(processor, count=5)[5]


def test_crops_hold_the_values_of_the_whole_micrographs_statistics_in_all_symmetries(processor):
    image = random_images(1, (12, 12))[0]
    image[:6] += 5000
    whole = processor.normalize(image, processor.statistics(image))
    parts = [whole[row : row + 8, column : column + 8] for row in range(5) for column in range(5)]
    expected = {dihedral(part, symmetry).tobytes() for part in parts for symmetry in range(8)}
    crops = crops_of(processor, count=120, images=[image])
    found = [crops[index]["clean"][0].numpy().tobytes() for index in range(120)]
    assert set(found) <= expected
    assert len(set(found)) > 80


def test_every_micrograph_comes_once_an_epoch_in_an_order_drawn_anew():
    order = EpochOrder([np.arange(5), np.arange(5, 12)], None, seed=0)
    epochs = [order(epoch).tolist() for epoch in range(4)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_weights_share_out_the_crops_and_a_source_is_seen_whole_before_it_repeats():
    groups = [np.arange(10), np.arange(10, 40)]
    order = EpochOrder(groups, (3.0, 1.0), seed=0)
    assert order.draws == [30, 10] and len(order) == 40
    seen = Counter(int(index) for epoch in range(3) for index in order(epoch))
    assert {seen[index] for index in groups[0]} == {9}
    assert {seen[index] for index in groups[1]} == {1}


def test_a_tiny_weight_still_gives_a_crop_an_epoch():
    assert EpochOrder([np.arange(10), np.arange(10, 12)], (1e-6, 1.0), seed=0).draws == [1, 12]


def stream_of(folder) -> ImageStream:
    return ImageStream(load_images(str(folder), streaming=True)[0], "lab/waves")


@pytest.fixture
def stream(parquet_folder):
    return stream_of(parquet_folder(MICROGRAPHS))


def keys_of(stream, processor, process: tuple[int, int], workers: int, batches: int) -> list[tuple[int, int]]:
    starts = [(0, 0)] * max(1, workers)
    loader = DataLoader(StreamedCrops(stream, processor, 32, 0, process, starts), batch_size=4, num_workers=workers)
    return [tuple(key) for batch in islice(loader, batches) for key in batch["key"].tolist()]


@pytest.mark.parametrize(("processes", "workers"), [(1, 0), (2, 0), (3, 0), (1, 2), (2, 2)])
def test_processes_and_workers_see_every_micrograph_once_an_epoch(stream, processor, processes, workers):
    batches = MICROGRAPHS // processes // 4 + 4
    keys = [key for rank in range(processes) for key in keys_of(stream, processor, (rank, processes), workers, batches)]
    first = [index for epoch, index in keys if epoch == 0]
    held_out = sum(is_held_out(sample) for sample in read_samples(stream.rows))
    assert len(first) == len(set(first)) == MICROGRAPHS - held_out
    assert held_out > 0


def test_streamed_crops_hold_each_micrograph_but_the_held_out_ones(stream, processor):
    samples = list(read_samples(stream.rows))
    whole = StreamedCrops(stream, processor, 48, 0)  # a crop of the whole micrograph, in any symmetry
    trained = [crop["clean"][0].numpy() for crop in islice(whole, sum(not is_held_out(s) for s in samples))]
    validation = held_out_of_stream(stream, processor)
    held_out = [processor.normalize(*validation[index]) for index in range(len(validation))]
    contents = [np.sort(image, axis=None).tobytes() for image in [*trained, *held_out]]
    assert len(set(contents)) == len(samples) == MICROGRAPHS


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batches", [1, 9, 20])
def test_a_stream_goes_on_at_a_position_as_if_it_had_never_stopped(stream, processor, workers, batches):
    streams = max(1, workers)
    whole = StreamedCrops(stream, processor, 32, 0, starts=[(0, 0)] * streams)
    expected = list(islice(DataLoader(whole, batch_size=4, num_workers=workers), batches + 6))
    reached = [(0, 0)] * streams
    for number, batch in enumerate(expected[:batches]):
        epoch, index = batch["key"][-1].tolist()
        reached[number % streams] = (epoch, index // streams + 1)
    rest = StreamedCrops(stream, processor, 32, 0, starts=reached, turn=batches % streams)
    for one, two in zip(DataLoader(rest, batch_size=4, num_workers=workers), expected[batches:], strict=False):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_a_broken_sample_is_left_out_with_a_warning(parquet_folder, processor, caplog):
    stream = stream_of(parquet_folder(MICROGRAPHS, broken=5))
    held_out = [sample for sample in read_samples(stream.rows) if is_held_out(sample)]
    keys = keys_of(stream, processor, (0, 1), 0, 20)
    assert sum(epoch == 0 for epoch, _ in keys) == MICROGRAPHS - len(held_out) - 1
    assert "left out: lab/waves, sample" in caplog.text


def test_a_stream_without_a_micrograph_to_train_on_is_an_error(parquet_folder, processor):
    stream = stream_of(parquet_folder(3))
    with pytest.raises(EMError, match="no micrograph to train on for data worker 5 of 5"):
        next(iter(StreamedCrops(stream, processor, 32, 0, process=(4, 5))))
    with pytest.raises(EMError, match="too small"):
        held_out_of_stream(stream, processor)
