"""From the data of a run to the batches of one process, and the place to which they were read."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.data_loader import BatchSamplerShard
from torch import Tensor
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, Dataset

from emfm.data.hub_images import ImageStream, load_images
from emfm.data.unlabelled import Micrographs, open_micrographs
from emfm.errors import EMError
from emfm.io.reading import FileChoice
from emfm.pretraining.arguments import PretrainArguments
from emfm.pretraining.crops import EpochOrder, StructureCrops, UnlabelledCrops
from emfm.pretraining.streamed_crops import HOLD_OUT, StreamedCrops, held_out_of_stream
from emfm.processing import EMImageProcessor
from emfm.training.machine import worker_count

VALIDATION_CROPS, CALIBRATION_CROPS = 128, 800
# (epoch, samples read) of each worker of each process; empty for data that are read by index.
Position = list[list[int]]


@dataclass
class PretrainingData:
    """Opened data of a run."""

    validation: UnlabelledCrops  # of micrographs that are not trained on
    # for batch norm's statistics: of micrographs trained on; of a stream, of held-out ones
    calibration: UnlabelledCrops
    stream: ImageStream | None = None  # undecoded; None where micrographs are known by index

    @property
    def count(self) -> int | None:
        """How many micrographs are trained on; None if a stream does not say."""
        return None if self.stream is not None else sum(len(group) for group in self.calibration.order.groups)


def open_data(args: PretrainArguments, processor: EMImageProcessor) -> PretrainingData:
    """Open the data of a run and keep one in twenty micrographs for validation.

    Raises:
        EMError: a source is missing, broken or too small.
    """
    if args.streaming:
        stream = _interleaved(args)
        held_out = held_out_of_stream(stream, processor)
        validation = _validation(held_out, np.arange(len(held_out)), processor, args)
        return PretrainingData(validation, replace(validation, count=CALIBRATION_CROPS), stream)
    _check_apart(args.data)
    choice = FileChoice(args.dataset, args.colour)
    sources = [open_micrographs(source, processor, args.nodata, choice) for source in args.data]
    joined: ConcatDataset = ConcatDataset(cast(list[Dataset], sources))
    if len(joined) < 2:
        found = f"{', '.join(args.data)} hold {len(joined)} image"
        raise EMError(f"{found}; pretraining needs at least 2, one of them for validation")
    indices = np.arange(len(joined))
    kept_out = indices[HOLD_OUT // 2 :: HOLD_OUT] if len(joined) > HOLD_OUT // 2 else indices[-1:]
    trained = _drawn(np.setdiff1d(indices, kept_out), args)
    groups = []
    for name, source, stop in zip(args.data, sources, joined.cumulative_sizes, strict=True):
        group = np.intersect1d(indices[stop - len(source) : stop], trained)
        if not len(group):
            raise EMError(f"{name} holds too few micrographs to train on")
        groups.append(group)
    order = EpochOrder(groups, args.weights, args.seed)
    calibration = UnlabelledCrops(joined, processor, args.crop, CALIBRATION_CROPS, order)
    return PretrainingData(_validation(joined, kept_out, processor, args), calibration)


def _check_apart(sources: tuple[str, ...]) -> None:
    """Raise an EMError where a folder is given twice, or inside another one.

    Its micrographs would be trained on and held out at the same time.
    """
    folders = [Path(source).resolve() for source in sources if Path(source).is_dir()]
    for index, folder in enumerate(folders):
        for other in (*folders[:index], *folders[index + 1 :]):
            if other == folder or other in folder.parents:
                raise EMError(f"--data {folder} lies in --data {other}, or is the same: give each micrograph once")


def _validation(
    micrographs: Micrographs, held_out: np.ndarray, processor: EMImageProcessor, args: PretrainArguments
) -> UnlabelledCrops:
    """Return crops of held-out micrographs, given by their indices, by a seed of their own."""
    order = EpochOrder([held_out], None, args.seed + 1)
    return UnlabelledCrops(micrographs, processor, args.crop, VALIDATION_CROPS, order)


def _drawn(indices: np.ndarray, args: PretrainArguments) -> np.ndarray:
    """Return as many of the micrographs as the run may train on."""
    if args.num_images is None:
        return indices
    if args.num_images > len(indices):
        raise EMError(f"num_images is {args.num_images}; {len(indices)} micrographs can be trained on")
    return np.random.default_rng(args.seed).permutation(indices)[: args.num_images]


def _interleaved(args: PretrainArguments) -> ImageStream:
    from datasets import interleave_datasets

    streams = [load_images(source, streaming=True)[0] for source in args.data]
    if len(streams) == 1:
        return ImageStream(streams[0], args.data[0], args.colour)
    shares = None if args.weights is None else [weight / sum(args.weights) for weight in args.weights]
    mixed = interleave_datasets(streams, probabilities=shares, seed=args.seed, stopping_strategy="all_exhausted")
    return ImageStream(mixed, " and ".join(args.data), args.colour)


class Batches:
    """Endless iterator over the batches of this process.

    Args:
        data: opened data.
        args: of the run.
        accelerator: tells which part of the data is this process's.
        done: steps that the run has behind it.
        position: of a stream at that step.
    """

    def __init__(
        self, data: PretrainingData, args: PretrainArguments, accelerator: Accelerator, done: int, position: Position
    ):
        self._workers = worker_count(args.workers)
        self._streams = max(1, self._workers)
        self._processes, self._rank = accelerator.num_processes, accelerator.process_index
        parts = args.gradient_accumulation_steps  # of a step, each a batch
        self._count, self._total = done * parts, args.steps * parts
        mine = position[self._rank * self._streams : (self._rank + 1) * self._streams]
        self._reached = [(epoch, read) for epoch, read in mine] or [(0, 0)] * self._streams
        self._streamed = data.stream is not None
        self._iterator: Iterator[dict[str, Tensor]] = iter(self._crops_of(data, args))
        self._structures: Iterator[dict[str, Tensor]] = iter(())
        if args.structures:
            structures = StructureCrops(data.validation.processor, args.crop, count=0, seed=args.seed)
            self._structures = iter(self._by_index(structures, args.structures))

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> dict[str, Tensor]:
        batch = next(self._iterator)
        if self._streamed:
            epoch, index = batch["key"][-1].tolist()
            read = index // (self._processes * self._streams) + 1
            self._reached[self._count % self._streams] = (epoch, read)
        self._count += 1
        return batch | next(self._structures, {})

    def position(self, accelerator: Accelerator) -> Position:
        """Return the position of every process; all of them call this together."""
        if not self._streamed:
            return []
        return accelerator.gather(torch.tensor(self._reached, device=accelerator.device)).tolist()

    def close(self) -> None:
        """End the data workers. They heed no signal, so without this a run would never end."""
        self._iterator = self._structures = iter(())

    def _crops_of(self, data: PretrainingData, args: PretrainArguments) -> DataLoader:
        if data.stream is None:
            return self._by_index(data.calibration, args.batch_size)
        process, turn = (self._rank, self._processes), self._count % self._streams
        processor, starts = data.validation.processor, self._reached.copy()
        crops = StreamedCrops(data.stream, processor, args.crop, args.seed, process, starts, turn)
        return self._loader(crops, batch_size=args.batch_size)

    def _by_index(self, crops: UnlabelledCrops | StructureCrops, batch_size: int) -> DataLoader:
        """Return the loader of the rest of this process's crops, of those known by index."""
        each_batch = batch_size * self._processes
        crops = replace(crops, count=self._total * each_batch)
        rest = BatchSampler(range(self._count * each_batch, crops.count), batch_size, drop_last=True)
        mine = BatchSamplerShard(rest, num_processes=self._processes, process_index=self._rank)
        return self._loader(crops, batch_sampler=mine)

    def _loader(self, crops: Dataset, **batches: Any) -> DataLoader:
        pinned = torch.cuda.is_available()
        start = _leave_signals_to_the_run
        return DataLoader(crops, **batches, num_workers=self._workers, pin_memory=pinned, worker_init_fn=start)


def _leave_signals_to_the_run(worker: int) -> None:
    """Ctrl-C and torchrun reach all processes of a group; a data worker must outlive the save."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
