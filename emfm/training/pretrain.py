"""Self-supervised pretraining: a pix2pix conditional GAN that restores damaged micrographs, on Accelerate.

Method of Kazimi et al. 2024 (arXiv:2402.18286): the generator sees a damaged crop and must return the clean one;
the loss is an LSGAN term plus 100 times the L1 distance; the whole generator is kept for fine-tuning.
"""

import json
import time
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm

from emfm.config import EMFoundationConfig
from emfm.data.degradations import Corruption, CorruptionStrength
from emfm.data.io import list_micrographs, read_micrograph
from emfm.data.patches import UnlabelledCrops
from emfm.errors import EMError
from emfm.modeling import EMFoundation
from emfm.training.checkpoint import TrainingState, latest_checkpoint, load_checkpoint, save_checkpoint
from emfm.training.discriminator import PatchDiscriminator
from emfm.training.losses import ADVERSARIAL, discriminator_loss, generator_loss, is_finite
from emfm.training.publish import publish

# Every twentieth micrograph is kept out of training, for the validation figures.
HOLD_OUT = 20
LOG_STEPS = 50


@dataclass(frozen=True)
class PretrainArguments:
    """Settings of one pretraining run; they are stored with the weights."""

    data: tuple[str, ...]  # folders of unlabelled micrographs
    output: str  # folder of the run
    generator: str = "unet4-rf200"
    norm: str = "instance"  # normalisation layers of a U-Net
    steps: int = 20_000
    batch_size: int = 16  # crops per step and process
    crop: int = 224  # side in pixels
    corruption: str = "paper"
    strength: CorruptionStrength = field(default_factory=CorruptionStrength)
    adversarial: str = "lsgan"  # "none" trains with L1 alone
    discriminator_width: int = 64
    l1_weight: float = 100.0
    learning_rate: float = 2e-4  # constant for the first half, then linear to 0
    ema_decay: float = 0.999  # of the averaged generator, which is what is saved
    precision: str = "fp32"
    seed: int = 0
    save_steps: int = 1000
    resume: bool = False

    def __post_init__(self):
        if self.adversarial not in ADVERSARIAL:
            raise EMError(f"adversarial is '{self.adversarial}'; expected one of {', '.join(ADVERSARIAL)}")
        if self.precision not in ("fp32", "bf16"):
            raise EMError(f"precision is '{self.precision}'; expected fp32 or bf16")
        for name, least in (
            ("steps", 1),
            ("batch_size", 1),
            ("crop", 32),
            ("save_steps", 1),
            ("discriminator_width", 1),
        ):
            if getattr(self, name) < least:
                raise EMError(f"{name} is {getattr(self, name)}; expected at least {least}")

    def recipe(self) -> dict[str, Any]:
        """Return the settings that decide the result, for checkpoints and cards."""
        settings = asdict(self)
        for name in ("output", "resume", "save_steps"):
            settings.pop(name)
        settings["data"] = [Path(folder).name for folder in self.data]
        return json.loads(json.dumps(settings))


def pretrain(args: PretrainArguments) -> Path:
    """Pretrain a generator and return the folder of the finished model, ready to load or to push.

    Raises:
        EMError: wrong settings or data, an output folder in use, or a loss that is no longer a number.
    """
    accelerator = _accelerator(args.precision)
    state = _new_state(args, accelerator)
    training, held_out = _read_data(args.data)
    output, checkpoint = _prepare_output(args)
    done = load_checkpoint(checkpoint, state, args.recipe()) if checkpoint else 0
    per_step = args.batch_size * accelerator.num_processes
    crops = UnlabelledCrops(training, state.ema.processor, args.crop, args.steps * per_step, args.seed)
    rest = Subset(crops, range(done * per_step, len(crops)))  # a crop follows from its index: resuming is exact
    loader = accelerator.prepare(DataLoader(rest, batch_size=args.batch_size))
    generator, discriminator = accelerator.prepare(state.generator, state.discriminator)

    corrupt = Corruption(args.corruption, args.strength, args.seed)
    progress = tqdm(total=args.steps, initial=done, unit="step", disable=not accelerator.is_main_process)
    started = time.perf_counter()
    for step, batch in enumerate(loader, start=done + 1):
        clean, damaged = batch["clean"], corrupt(batch["clean"], batch["key"])  # both (B, 1, crop, crop)
        _set_learning_rate(state, args, step)
        with accelerator.autocast():
            restored = generator(damaged).reconstruction
        losses = {"l1": F.l1_loss(restored.float(), clean)}
        if args.adversarial != "none":
            losses |= _adversarial_losses(
                accelerator, discriminator, state, (damaged, clean, restored), args.adversarial
            )
        state.optimizers["generator"].zero_grad(set_to_none=True)
        accelerator.backward(args.l1_weight * losses["l1"] + losses.get("adversarial", 0.0))
        state.optimizers["generator"].step()
        _average(state.ema, accelerator.unwrap_model(generator), min(args.ema_decay, step / (step + 10)))

        progress.update()
        if step % LOG_STEPS == 0 or step == args.steps:
            _report(losses, step, output, progress)
        if step % args.save_steps == 0 and accelerator.is_main_process:
            save_checkpoint(output, step, state, args.recipe())
    progress.close()
    if accelerator.is_main_process:
        cost = {"seconds": round(time.perf_counter() - started, 1), "processes": accelerator.num_processes}
        state.ema.config.pretraining = args.recipe() | cost | {"resumed_at": done, "micrographs": len(training)}
        publish(state.ema, corrupt, crops, held_out, output / "pretrained_model")
    accelerator.wait_for_everyone()
    return output / "pretrained_model"


def _accelerator(precision: str) -> Accelerator:
    # Accelerate keeps one state per process, and an earlier run in this one may have had another precision
    AcceleratorState._reset_state(reset_partial_state=False)
    return Accelerator(mixed_precision="no" if precision == "fp32" else precision)


def _new_state(args: PretrainArguments, accelerator: Accelerator) -> TrainingState:
    """Return networks, averaged generator and optimisers as before the first step; the seed decides them."""
    set_seed(args.seed)
    fields = {} if args.generator.startswith("hrnet") else {"norm": args.norm}
    generator = EMFoundation(EMFoundationConfig.from_name(args.generator, **fields))
    generator = generator.to(accelerator.device).to(memory_format=generator.memory_format)
    discriminator = PatchDiscriminator(args.discriminator_width).to(accelerator.device)
    discriminator = discriminator.to(memory_format=torch.channels_last)
    optimizers: dict[str, torch.optim.Optimizer] = {
        name: torch.optim.Adam(network.parameters(), lr=args.learning_rate, betas=(0.5, 0.999))
        for name, network in (("generator", generator), ("discriminator", discriminator))
    }
    return TrainingState(generator, discriminator, deepcopy(generator).requires_grad_(False), optimizers)


def _set_learning_rate(state: TrainingState, args: PretrainArguments, step: int) -> None:
    """Constant for the first half of the steps, then linear to 0, as pix2pix does."""
    rate = args.learning_rate * min(1.0, 2 * (1 - (step - 1) / args.steps))
    for optimizer in state.optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = rate


def _prepare_output(args: PretrainArguments) -> tuple[Path, Path | None]:
    """Make the run's folder; return it and the checkpoint to go on from. Refuse to write over another run."""
    output = Path(args.output)
    checkpoint = latest_checkpoint(output)
    if not args.resume and (checkpoint or (output / "pretrained_model").exists()):
        raise EMError(f"{output} holds a run already: go on with --resume, or choose another --output")
    output.mkdir(parents=True, exist_ok=True)
    return output, checkpoint


def _read_data(folders: tuple[str, ...]) -> tuple[list, list]:
    """Read all micrographs and keep every twentieth for validation."""
    files = [path for folder in folders for path in list_micrographs(folder)]
    images = [read_micrograph(path).image for path in tqdm(files, desc="reading", unit="image", leave=False)]
    if len(images) < 2:
        raise EMError(
            f"{', '.join(folders)} hold {len(images)} image; pretraining needs at least 2, one of them for validation"
        )
    held_out = images[HOLD_OUT // 2 :: HOLD_OUT] or images[-1:]
    kept = {id(image) for image in held_out}
    return [image for image in images if id(image) not in kept], held_out


def _adversarial_losses(
    accelerator: Accelerator,
    discriminator: torch.nn.Module,
    state: TrainingState,
    images: tuple[Tensor, Tensor, Tensor],
    kind: str,
) -> dict[str, Tensor]:
    """Train the discriminator on one batch, then let it judge the generator's images.

    Clean and generated images go through it together; its weights take no gradient from the generator's loss.
    """
    damaged, clean, restored = images
    with accelerator.autocast():
        scores = discriminator(torch.cat([damaged, damaged]), torch.cat([clean, restored.detach()]))
    real, fake = scores.float().chunk(2)
    loss = discriminator_loss(real, fake, kind)
    state.optimizers["discriminator"].zero_grad(set_to_none=True)
    accelerator.backward(loss)
    state.optimizers["discriminator"].step()

    judge = accelerator.unwrap_model(discriminator)  # DDP would wait for gradients that do not come
    judge.requires_grad_(False)
    with accelerator.autocast():
        scores = judge(damaged, restored)
    judge.requires_grad_(True)
    return {"discriminator": loss, "adversarial": generator_loss(scores.float(), kind)}


@torch.no_grad()
def _average(ema: EMFoundation, generator: EMFoundation, decay: float) -> None:
    """Move the averaged generator towards the trained one; buffers are copied."""
    torch._foreach_lerp_(list(ema.parameters()), list(generator.parameters()), 1 - decay)
    for kept, new in zip(ema.buffers(), generator.buffers(), strict=True):
        kept.copy_(new)


def _report(losses: dict[str, Tensor], step: int, output: Path, progress: tqdm) -> None:
    """Append the losses to log.jsonl and stop the run where one is no number."""
    if not is_finite(*losses.values()):
        raise EMError(
            f"a loss is no longer finite at step {step}: lower the learning rate, use --precision fp32, or look for "
            "damaged micrographs; --resume goes on from the last checkpoint"
        )
    if not progress.disable:  # the main process alone shows the bar and writes the log
        values = {name: round(loss.item(), 5) for name, loss in losses.items()}
        progress.set_postfix(values)
        with (output / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": step, **values}) + "\n")
