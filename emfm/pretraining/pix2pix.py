"""pix2pix (Isola et al. 2017): discriminator, losses, and one step on any number of processes."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from emfm.errors import EMError
from emfm.pretraining.arguments import ADVERSARIAL
from emfm.pretraining.pretext import Crops, PretextOutput, pretext_losses
from emfm.training.checkpoint import Optimizers


class PatchDiscriminator(nn.Module):
    """Five 4x4 convolutions, three of them strided; each score sees 70 x 70 pixels of both images.

    Instance norm keeps an image's scores independent of the rest of the batch, so real and
    generated images can go through together.

    Args:
        width: channels of the first layer. Beside a narrow generator most of a step's cost.
    """

    receptive_field = 70

    def __init__(self, width: int = 64):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(2, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for factor, stride in ((1, 2), (2, 2), (4, 1)):
            layers += [
                nn.Conv2d(factor * width, 2 * factor * width, 4, stride=stride, padding=1, bias=False),
                nn.InstanceNorm2d(2 * factor * width, affine=True),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, padding=1))
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.02)  # as pix2pix does

    def forward(self, condition: Tensor, image: Tensor) -> Tensor:
        """Return raw scores of patches (B, 1, H / 8 - 2, W / 8 - 2), high for what looks real.

        Args:
            condition: the generator's input (B, 1, H, W).
            image: its output or the clean image (B, 1, H, W).
        """
        return self.layers(torch.cat([condition, image], dim=1))


def discriminator_loss(real: Tensor, fake: Tensor, kind: str) -> Tensor:
    """Return the discriminator's loss from its raw scores, of any shape, on both kinds of images.

    Kinds: "lsgan" (Mao et al. 2017, as in the paper), "vanilla" (Goodfellow et al. 2014), "hinge".
    """
    if kind == "lsgan":
        return 0.5 * ((real - 1).square().mean() + fake.square().mean())
    if kind == "vanilla":
        return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
    if kind == "hinge":
        return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    raise EMError(f"adversarial loss '{kind}' is not known; expected one of {', '.join(ADVERSARIAL)}")


def generator_loss(fake: Tensor, kind: str) -> Tensor:
    """Return the adversarial part of the generator's loss from its images' scores; same kinds."""
    if kind == "lsgan":
        return (fake - 1).square().mean()
    if kind == "vanilla":
        return F.softplus(-fake).mean()
    if kind == "hinge":
        return -fake.mean()
    raise EMError(f"adversarial loss '{kind}' is not known; expected one of {', '.join(ADVERSARIAL)}")


@dataclass
class Pix2Pix:
    """Trains a generator against a discriminator, the discriminator first.

    Several batches make one step that equals that of one large batch: the discriminator takes its
    step on all of them before it judges the first for the generator.
    """

    accelerator: Accelerator
    generator: nn.Module  # a `Pretext` as the accelerator prepared it
    discriminator: nn.Module  # likewise
    optimizers: Optimizers  # of "generator" and "discriminator"
    adversarial: str  # "lsgan", "vanilla", "hinge", or "none" for L1 alone
    l1_weight: float  # of L1 and further signals, beside the adversarial loss

    def step(self, batches: list[Crops]) -> dict[str, Tensor]:
        """Train both networks on one or more batches; returns losses, detached, on the device.

        They are `l1`, further signals, and, if adversarial, `adversarial` and `discriminator`, the
        latter's mean scores `score_real` and `score_fake`, and their deviation `score_spread`.
        """
        losses: dict[str, Tensor] = {}
        # of several batches no graph is kept: the generator runs again when its turn comes
        output = self._outputs(batches[0]) if len(batches) == 1 else None
        if self.adversarial != "none":
            losses |= self._discriminator_step(batches, output)
        return losses | self._generator_step(batches, output)

    def _discriminator_step(self, batches: list[Crops], output: PretextOutput | None) -> dict[str, Tensor]:
        """Judge clean and generated images together, so that DDP sees one forward."""
        total, scores = torch.zeros((), device=self.accelerator.device), []
        for index, (damaged, clean, *_) in enumerate(batches):
            fake = self._restore_without_graph(damaged) if output is None else output.reconstruction.detach()
            with self._gathering(self.discriminator, index, batches):
                with self.accelerator.autocast():
                    judged = self.discriminator(torch.cat([damaged, damaged]), torch.cat([clean, fake]))
                real_scores, fake_scores = judged.float().chunk(2)
                loss = discriminator_loss(real_scores, fake_scores, self.adversarial) / len(batches)
                self.accelerator.backward(loss)
            total += loss.detach()
            scores.append(torch.stack([real_scores.detach(), fake_scores.detach()]))
        self._update("discriminator")
        both = torch.cat(scores, dim=1)  # (real and fake, B, 1, h, w)
        real, fake = both.mean(dim=(1, 2, 3, 4))
        return {"discriminator": total, "score_real": real, "score_fake": fake, "score_spread": both.std()}

    def _generator_step(self, batches: list[Crops], output: PretextOutput | None) -> dict[str, Tensor]:
        # DDP would wait for gradients that do not come
        judge = self.accelerator.unwrap_model(self.discriminator)
        judge.requires_grad_(False)
        losses: dict[str, Tensor] = {}
        for index, crops in enumerate(batches):
            with self._gathering(self.generator, index, batches):
                found = self._outputs(crops) if output is None else output
                parts = {"l1": F.l1_loss(found.reconstruction, crops.clean), **pretext_losses(found, crops)}
                loss = self.l1_weight * torch.stack(list(parts.values())).sum()
                if self.adversarial != "none":
                    with self.accelerator.autocast():
                        scores = judge(crops.damaged, found.reconstruction)
                    parts["adversarial"] = generator_loss(scores.float(), self.adversarial)
                    loss = loss + parts["adversarial"]
                self.accelerator.backward(loss / len(batches))
            for name, part in parts.items():
                losses[name] = losses.get(name, 0) + part.detach() / len(batches)
        judge.requires_grad_(True)
        self._update("generator")
        return losses

    def _outputs(self, crops: Crops) -> PretextOutput:
        with self.accelerator.autocast():
            output = self.generator(crops.damaged, crops.structures)
        output.reconstruction = output.reconstruction.float()
        return output

    @torch.no_grad()
    def _restore_without_graph(self, damaged: Tensor) -> Tensor:
        with self.accelerator.autocast():
            return self.accelerator.unwrap_model(self.generator)(damaged).reconstruction.float()

    def _gathering(self, network: nn.Module, index: int, batches: list[Crops]) -> AbstractContextManager:
        """Let DDP exchange gradients after the last batch alone."""
        return nullcontext() if index == len(batches) - 1 else self.accelerator.no_sync(network)

    def _update(self, name: str) -> None:
        self.optimizers[name].step()
        self.optimizers[name].zero_grad(set_to_none=True)
