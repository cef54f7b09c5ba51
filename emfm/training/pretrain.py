"""Self-supervised pretraining: a pix2pix conditional GAN that restores damaged micrographs, on Accelerate.

Method of Kazimi et al. 2024 (arXiv:2402.18286): the generator sees a damaged crop and must return the clean one;
the loss is an LSGAN term plus 100 times the L1 distance; the whole generator is kept for fine-tuning.
"""

import json
import shutil
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm

from emfm.config import EMFoundationConfig
from emfm.data.degradations import Corruption, CorruptionStrength
from emfm.data.io import list_micrographs, read_micrograph
from emfm.data.patches import UnlabelledCrops
from emfm.errors import EMError
from emfm.hub.card import pretraining_card
from emfm.hub.verify import write_test_tensors
from emfm.modeling import EMFoundation
from emfm.training.batch_norm import recalibrate_batch_norm
from emfm.training.checkpoint import TrainingState, latest_checkpoint, load_checkpoint, save_checkpoint
from emfm.training.discriminator import PatchDiscriminator
from emfm.training.losses import ADVERSARIAL, discriminator_loss, generator_loss, is_finite
from emfm.training.metrics import l1, psnr

# Every twentieth micrograph is kept out of training, for the validation figures.
HOLD_OUT = 20
VALIDATION_CROPS = 128
CALIBRATION_BATCHES = 50


@dataclass(frozen=True)
class PretrainArguments:
    """Settings of one pretraining run; they are stored with the weights."""

    data: tuple[str, ...]  # folders of unlabelled micrographs
    output: str  # folder of the run
    generator: str = "unet4-rf200"
    norm: str = "batch"  # normalisation layers of a U-Net
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
    accelerator = Accelerator(mixed_precision="no" if args.precision == "fp32" else args.precision)
    output = Path(args.output)
    checkpoint = _prepare_output(output, args.resume)
    training, held_out = _read_data(args.data)
    set_seed(args.seed)
    generator = EMFoundation(EMFoundationConfig.from_name(args.generator, **_norm(args)))
    generator = generator.to(memory_format=torch.channels_last)
    discriminator = PatchDiscriminator(args.discriminator_width).to(memory_format=torch.channels_last)
    ema = deepcopy(generator).requires_grad_(False).to(accelerator.device)

    processes = accelerator.num_processes
    crops = UnlabelledCrops(
        training, generator.processor, args.crop, args.steps * args.batch_size * processes, args.seed
    )
    optimizers = {
        "generator": torch.optim.Adam(generator.parameters(), lr=args.learning_rate, betas=(0.5, 0.999)),
        "discriminator": torch.optim.Adam(discriminator.parameters(), lr=args.learning_rate, betas=(0.5, 0.999)),
    }
    state = TrainingState(generator, discriminator, ema, optimizers)
    done = load_checkpoint(checkpoint, state, args.recipe()) if checkpoint else 0
    rest = Subset(crops, range(done * args.batch_size * processes, len(crops)))
    loader = accelerator.prepare(DataLoader(rest, batch_size=args.batch_size, drop_last=True))
    generator, discriminator = accelerator.prepare(generator, discriminator)
    corrupt = Corruption(args.corruption, args.strength, args.seed)

    started = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    progress = tqdm(total=args.steps, initial=done, unit="step", disable=not accelerator.is_main_process)
    for step, batch in enumerate(loader, start=done + 1):
        clean = batch["clean"].contiguous(memory_format=torch.channels_last)  # (B, 1, crop, crop)
        damaged = corrupt(clean, batch["key"])
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = args.learning_rate * min(1.0, 2 * (1 - (step - 1) / args.steps))

        with accelerator.autocast():
            restored = generator(damaged).reconstruction
        losses = {"l1": F.l1_loss(restored.float(), clean)}
        if args.adversarial != "none":
            losses["discriminator"] = _discriminator_step(
                accelerator, discriminator, optimizers, (damaged, clean, restored), args
            )
            losses["adversarial"] = _judge(accelerator, discriminator, damaged, restored, args.adversarial)
        total = args.l1_weight * losses["l1"] + losses.get("adversarial", 0.0)
        optimizers["generator"].zero_grad(set_to_none=True)
        accelerator.backward(total)
        optimizers["generator"].step()
        _average(ema, accelerator.unwrap_model(generator), min(args.ema_decay, step / (step + 10)))

        progress.update()
        if step % 50 == 0 or step == args.steps:
            _report(losses, step, output, progress, accelerator.is_main_process)
        if accelerator.is_main_process and step % args.save_steps == 0:
            save_checkpoint(output, step, state, args.recipe())
    progress.close()
    seconds = time.perf_counter() - started
    if accelerator.is_main_process:
        _finish(ema, args, corrupt, (crops, held_out), {"seconds": seconds, "resumed_at": done, "processes": processes})
    accelerator.wait_for_everyone()
    return output / "pretrained_model"


def _norm(args: PretrainArguments) -> dict[str, str]:
    return {} if args.generator.startswith("hrnet") else {"norm": args.norm}


def _prepare_output(output: Path, resume: bool) -> Path | None:
    """Return the checkpoint to go on from; refuse to write over another run."""
    checkpoint = latest_checkpoint(output)
    if resume:
        return checkpoint
    if checkpoint or (output / "pretrained_model").exists():
        raise EMError(f"{output} holds a run already: go on with --resume, or choose another --output")
    return None


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


def _discriminator_step(
    accelerator: Accelerator,
    discriminator: torch.nn.Module,
    optimizers: dict[str, torch.optim.Optimizer],
    images: tuple[Tensor, Tensor, Tensor],
    args: PretrainArguments,
) -> Tensor:
    """Train the discriminator on one batch: clean and generated images go through it together."""
    damaged, clean, restored = images
    with accelerator.autocast():
        scores = discriminator(torch.cat([damaged, damaged]), torch.cat([clean, restored.detach()]))
    real, fake = scores.float().chunk(2)
    loss = discriminator_loss(real, fake, args.adversarial)
    optimizers["discriminator"].zero_grad(set_to_none=True)
    accelerator.backward(loss)
    optimizers["discriminator"].step()
    return loss


def _judge(
    accelerator: Accelerator, discriminator: torch.nn.Module, damaged: Tensor, restored: Tensor, kind: str
) -> Tensor:
    """Return the generator's adversarial loss; the discriminator's weights take no gradient from it."""
    discriminator.requires_grad_(False)
    with accelerator.autocast():
        scores = discriminator(damaged, restored)
    discriminator.requires_grad_(True)
    return generator_loss(scores.float(), kind)


@torch.no_grad()
def _average(ema: EMFoundation, generator: EMFoundation, decay: float) -> None:
    """Move the averaged generator towards the trained one; buffers are copied."""
    torch._foreach_lerp_(list(ema.parameters()), list(generator.parameters()), 1 - decay)
    for kept, new in zip(ema.buffers(), generator.buffers(), strict=True):
        kept.copy_(new)


def _report(losses: dict[str, Tensor], step: int, output: Path, progress: tqdm, is_main: bool) -> None:
    """Append the losses to log.jsonl and stop the run where one is no number."""
    if not is_finite(*losses.values()):
        raise EMError(
            f"a loss is no longer finite at step {step}: lower the learning rate, use --precision fp32, or look for "
            "damaged micrographs; --resume goes on from the last checkpoint"
        )
    if is_main:
        values = {name: round(float(loss), 5) for name, loss in losses.items()}
        progress.set_postfix(values)
        with (output / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": step, **values}) + "\n")


def _finish(
    ema: EMFoundation, args: PretrainArguments, corrupt: Corruption, data: tuple[UnlabelledCrops, list], run: dict
) -> None:
    """Validate the averaged generator and write the model folder: weights, processor, card, test tensors, figures."""
    crops, held_out = data
    device = next(ema.parameters()).device
    batches = DataLoader(Subset(crops, range(min(len(crops), CALIBRATION_BATCHES * 16))), batch_size=16)
    recalibrate_batch_norm(ema, (corrupt(b["clean"], b["key"]).to(device) for b in batches))
    ema.eval()
    validation = UnlabelledCrops(held_out, ema.processor, args.crop, VALIDATION_CROPS, args.seed + 1)
    figures = _validate(ema, validation, corrupt, device)
    ema.config.pretraining = {**args.recipe(), **run, "micrographs": len(crops.images), "validation": figures}
    folder = Path(args.output) / ".pretrained_model.tmp"
    shutil.rmtree(folder, ignore_errors=True)
    ema.to(memory_format=torch.contiguous_format).save_pretrained(folder)
    write_test_tensors(ema, folder)
    (folder / "README.md").write_text(pretraining_card(ema.config), encoding="utf-8")
    final = Path(args.output) / "pretrained_model"
    shutil.rmtree(final, ignore_errors=True)
    folder.rename(final)


@torch.no_grad()
def _validate(
    model: EMFoundation, crops: UnlabelledCrops, corrupt: Callable[[Tensor, Tensor], Tensor], device: torch.device
) -> dict[str, float]:
    """Return L1 and PSNR (data range 2) of damaged and of restored held-out crops."""
    damaged, restored, clean = [], [], []
    for batch in DataLoader(crops, batch_size=16):
        clean.append(batch["clean"])
        damaged.append(corrupt(batch["clean"], batch["key"]))
        restored.append(model(damaged[-1].to(device)).reconstruction.cpu())
    target, before, after = torch.cat(clean), torch.cat(damaged), torch.cat(restored)
    return {
        "l1_input": l1(before, target),
        "l1": l1(after, target),
        "psnr_input": psnr(before, target),
        "psnr": psnr(after, target),
        "crops": len(target),
    }
