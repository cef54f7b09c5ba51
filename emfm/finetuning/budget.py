"""How many steps of a fine-tuning fit into some minutes, measured on a copy of the model."""

import copy
import time
from typing import Any

import torch
from torch.utils.data import DataLoader

from emfm.data.augmentation import Augmentation
from emfm.data.croppers import TrainingCrops
from emfm.data.examples import Examples
from emfm.errors import EMError
from emfm.finetuning.trainer_arguments import EMTrainingArguments
from emfm.tasks.task import EMTaskModel

# Steps that are timed, after as many that are not: the first ones are slower.
TIMED = 3
LEAST, MOST = 10, 100_000


def steps_within(minutes: float, model: EMTaskModel, data: Examples, args: EMTrainingArguments) -> int:
    """Return how many training steps take so many minutes on this machine, 10 at least.

    Evaluations come besides.

    Args:
        minutes: for the steps.
        model: stays as it is.
        data: micrographs to train on, in memory.
        args: batch, crop, precision.

    Raises:
        EMError: a step takes so long that ten of them do not fit.
    """
    found = None if args.use_cpu else torch.accelerator.current_accelerator()
    device: Any = found or torch.device("cpu")
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps
    cropper = model.cropper(data, args.crop, Augmentation(args.intensity_jitter, args.augment))
    crops = TrainingCrops(data, cropper, 2 * TIMED * batch, args.seed)
    network: Any = copy.deepcopy(model).to(device).to(memory_format=model.trunk.memory_format)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.0)
    network.train()
    started = time.perf_counter()
    for number, crop in enumerate(DataLoader(crops, batch_size=batch)):
        if number == TIMED:
            started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
            loss = network(**{name: tensor.to(device) for name, tensor in crop.items()}).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for a GPU
    seconds = (time.perf_counter() - started) / TIMED
    steps = int(60 * minutes / seconds)
    if steps < LEAST:
        raise EMError(
            f"--minutes is {minutes:g}, and a step takes {seconds:.1f} s here: give "
            f"{LEAST * seconds / 60:.1g} at least, a smaller --crop or --batch-size, or a smaller network"
        )
    return min(steps, MOST)
