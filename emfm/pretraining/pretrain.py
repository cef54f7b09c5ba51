"""Self-supervised pretraining: a pix2pix GAN, on Accelerate, that restores damaged micrographs.

Method of Kazimi et al. 2024 (arXiv:2402.18286): the generator sees a damaged crop and must return
the clean one; the loss is an LSGAN term plus 100 times the L1 distance; the whole generator is kept
for fine-tuning. Beside that it may learn two further signals, see `emfm.pretraining.pretext`.
"""

import atexit
import logging
import shutil
import time
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import Tensor
from torch.utils.data import DataLoader

from emfm.data.degradations import Corruption
from emfm.errors import EMError
from emfm.files import check_space, whole_folder, writable_folder
from emfm.modeling import EMFoundation
from emfm.pretraining.arguments import PretrainArguments
from emfm.pretraining.batches import Batches, PretrainingData, open_data
from emfm.pretraining.checkpoint import MODEL, Progress, TrainingState, checkpoints_of, resume, save_checkpoint
from emfm.pretraining.known import note_domain
from emfm.pretraining.pix2pix import PatchDiscriminator, Pix2Pix
from emfm.pretraining.pretext import Crops, Pretext
from emfm.pretraining.run_log import RunLog, Watch
from emfm.pretraining.start import new_generator, with_generator
from emfm.pretraining.validation import BATCH, validate
from emfm.training.batch_norm import recalibrate_batch_norm
from emfm.training.checkpoint import Optimizers
from emfm.training.machine import check_shared_memory, warn_of_emulated_bf16, worker_count
from emfm.training.stop import StopRequest, leave

logger = logging.getLogger(__name__)
LOG_STEPS = 50


def pretrain(args: PretrainArguments) -> Path:
    """Pretrain a generator and return the folder of the finished model, ready to load or to push.

    On Ctrl-C and SIGTERM the run is saved before it stops; `resume` goes on from there, and the
    result is the same to the bit.

    Raises:
        EMError: wrong settings or data, an output folder in use, or a training that cannot succeed.
    """
    args = with_generator(args)
    output = writable_folder(args.output)
    if not args.resume and (checkpoints_of(output).newest_first() or (output / MODEL).exists()):
        raise EMError(f"{output} holds a run already: go on with --resume, or choose another --output")
    check_shared_memory(worker_count(args.workers), args.batch_size, args.crop)
    for name in args.idle():
        logger.warning("%s has no effect without a GAN: choose its loss with --adversarial", name)
    accelerator = _accelerator(args.precision)
    state = _new_state(args, accelerator)
    kept = 1 if args.resume else min(args.save_total_limit + 1, -(-args.steps // args.save_steps))
    check_space(output, kept * state.bytes(), f"keeping checkpoints ({kept} at a time)")
    with accelerator.local_main_process_first():  # it decodes the data for the others
        data = open_data(args, state.ema.processor)
    output.mkdir(parents=True, exist_ok=True)
    settings = args.recipe() | {"processes": accelerator.num_processes}
    if args.streaming:
        settings["workers"] = worker_count(args.workers)
    progress = resume(output, state, settings)
    if args.compile:
        state.generator.compile()
        state.discriminator.compile()
    generator, discriminator = accelerator.prepare(state.generator, state.discriminator)
    gan = Pix2Pix(accelerator, generator, discriminator, state.optimizers, args.adversarial, args.l1_weight)
    run = _Run(args, accelerator, state, data, progress)
    batches = Batches(data, args, accelerator, progress.step, progress.position)
    try:
        _train(run, gan, batches)
    finally:
        batches.close()
        run.log.close()
    finished = output / MODEL
    if accelerator.is_main_process:
        with whole_folder(finished) as folder:
            shutil.copytree(output / f"step_{args.steps}" / MODEL, folder, dirs_exist_ok=True)
            note_domain(folder, data)
    accelerator.wait_for_everyone()
    return finished


def _train(run: "_Run", gan: Pix2Pix, batches: Batches) -> None:
    args = run.args
    with StopRequest(run.accelerator) as stop:
        if run.progress.step == 0:
            run.validate()
        for step in range(run.progress.step + 1, args.steps + 1):
            crops = [run.damage(next(batches)) for _ in range(args.gradient_accumulation_steps)]
            _set_learning_rate(run.state, args, step)
            losses = gan.step(crops)
            trained = run.accelerator.unwrap_model(gan.generator).generator
            _average(run.state.ema, trained, min(args.ema_decay, step / (step + 10)))
            run.advance()
            due = step % args.save_steps == 0 or step == args.steps
            signal = stop.received()
            if step % LOG_STEPS == 0 or due or signal:
                run.report(losses)
            if due:
                run.validate()
            if due or signal:
                run.save(batches)
            if signal and step < args.steps:
                leave(signal, f"saved after step {step} of {args.steps}; the same command with --resume goes on")


@dataclass
class _Run:
    """What one run needs beside its networks' steps: damage, figures, checkpoints."""

    args: PretrainArguments
    accelerator: Accelerator
    state: TrainingState
    data: PretrainingData
    progress: Progress

    def __post_init__(self):
        self.corrupt = Corruption(self.args.corruption, self.args.strength, self.args.seed)
        self.log = RunLog(Path(self.args.output), self.args.steps, self.progress.step, self.accelerator.is_main_process)
        self.watch = Watch()
        self._started = time.perf_counter() - self.progress.seconds

    def damage(self, batch: dict[str, Tensor]) -> Crops:
        """Return the batch on the device, its micrographs damaged."""
        moved = {name: tensor.to(self.accelerator.device, non_blocking=True) for name, tensor in batch.items()}
        damaged, clean = self.corrupt(moved["clean"], moved["key"])
        return Crops(damaged, clean, moved.get("structures"), moved.get("regions"))

    def advance(self) -> None:
        self.progress.step += 1
        self.log.progress.update()

    def report(self, losses: dict[str, Tensor]) -> None:
        """Log the mean over the processes; stop a run that cannot succeed."""
        means = self.accelerator.reduce(torch.stack(list(losses.values())), reduction="mean").tolist()
        values = dict(zip(losses, means, strict=True))
        self.log.scalars(self.progress.step, "train", values)
        self.watch.check(self.progress.step, values)

    def validate(self) -> None:
        """Measure the averaged generator on held-out crops; its configuration takes the figures."""
        if not self.accelerator.is_main_process:
            return
        ema, step = self.state.ema, self.progress.step
        calibration = DataLoader(self.data.calibration, batch_size=BATCH)
        recalibrate_batch_norm(ema, (self.damage(batch).damaged for batch in calibration))
        figures, images = validate(ema, self.data.validation, self.corrupt)
        ema.config.pretraining = {**(ema.config.pretraining or {}), "validation": figures | {"step": step}}
        self.log.scalars(step, "validation", {name: value for name, value in figures.items() if name != "crops"})
        self.log.picture(step, *images)

    def save(self, batches: Batches) -> None:
        """Write a checkpoint; all processes call this together, the main one writes."""
        self.progress.position = batches.position(self.accelerator)
        self.progress.seconds = time.perf_counter() - self._started
        if self.accelerator.is_main_process:
            cost = {
                "step": self.progress.step,
                "seconds": round(self.progress.seconds, 1),
                "processes": self.accelerator.num_processes,
                "micrographs": self.data.count,
            }
            config = self.state.ema.config
            config.pretraining = (config.pretraining or {}) | self.args.recipe() | cost
            save_checkpoint(Path(self.args.output), self.state, self.progress, self.args.save_total_limit)
        self.accelerator.wait_for_everyone()


def _accelerator(precision: str) -> Accelerator:
    # Accelerate's state outlives a run: an earlier one may have had another precision
    AcceleratorState._reset_state(reset_partial_state=False)
    # the others wait while one process decodes a large data set for the first time
    waiting = InitProcessGroupKwargs(timeout=timedelta(hours=6))
    # batch norm's running statistics may differ: they are measured anew before they are used
    handlers = [DistributedDataParallelKwargs(broadcast_buffers=False), waiting]
    accelerator = Accelerator(mixed_precision="no" if precision == "fp32" else precision, kwargs_handlers=handlers)
    if precision == "bf16" and accelerator.is_main_process:
        warn_of_emulated_bf16()
    if accelerator.num_processes > 1:
        # a process that ends with its threads of communication still running may abort
        atexit.register(accelerator.state.destroy_process_group)
    return accelerator


def _new_state(args: PretrainArguments, accelerator: Accelerator) -> TrainingState:
    """Return networks and optimisers as they are before the first step; the seed decides them."""
    set_seed(args.seed)
    generator = new_generator(args)
    generator = generator.to(accelerator.device).to(memory_format=generator.trunk.memory_format)
    pretext = Pretext(generator, args.filters, args.structures > 0).to(accelerator.device)
    discriminator = PatchDiscriminator(args.discriminator_width).to(accelerator.device)
    if accelerator.device.type == "cuda":  # on a CPU its instance norm would copy every map
        discriminator = discriminator.to(memory_format=torch.channels_last)
    groups = {
        "generator": _groups(pretext, args.encoder_share),
        "discriminator": [{"params": discriminator.parameters()}],
    }
    optimizers: Optimizers = {
        name: torch.optim.Adam(some, lr=args.learning_rate, betas=(0.5, 0.999), fused=True)
        for name, some in groups.items()
    }
    return TrainingState(pretext, discriminator, deepcopy(generator).requires_grad_(False), optimizers)


def _groups(pretext: Pretext, share: float) -> list[dict[str, Any]]:
    """Return what learns in the generator's step, the encoder at a share of the rate."""
    if share == 1.0:
        return [{"params": list(pretext.parameters())}]
    encoder, _ = pretext.generator.trunk.blocks()
    slow = {id(parameter) for module in encoder for parameter in module.parameters()}
    parts = [[p for p in pretext.parameters() if (id(p) in slow) == chosen] for chosen in (False, True)]
    return [{"params": parts[0]}, {"params": parts[1], "share": share}]


def _set_learning_rate(state: TrainingState, args: PretrainArguments, step: int) -> None:
    """Constant for the first half of the steps, then linear to 0, as pix2pix does."""
    rate = args.learning_rate * min(1.0, 2 * (1 - (step - 1) / args.steps))
    for optimizer in state.optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)


@torch.no_grad()
def _average(ema: EMFoundation, generator: EMFoundation, decay: float) -> None:
    """Move the averaged generator towards the trained one; buffers are copied."""
    torch._foreach_lerp_(list(ema.parameters()), list(generator.parameters()), 1 - decay)
    for kept, new in zip(ema.buffers(), generator.buffers(), strict=True):
        kept.copy_(new)
