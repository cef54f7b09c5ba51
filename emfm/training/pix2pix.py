"""One step of a pix2pix conditional GAN (Isola et al. 2017) on any number of processes, with gradient accumulation."""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from emfm.training.losses import discriminator_loss, generator_loss

# Damaged input and clean target, both (B, 1, H, W).
Pair = tuple[Tensor, Tensor]


class Pix2Pix:
    """Trains a generator against a discriminator, the discriminator first.

    Several batches make one step that equals that of one large batch: the discriminator takes its step on all of them
    before it judges the first for the generator.

    Args:
        accelerator: of the run.
        generator: as the accelerator prepared it.
        discriminator: likewise.
        optimizers: of "generator" and "discriminator".
        adversarial: "lsgan", "vanilla", "hinge", or "none" for L1 alone.
        l1_weight: of the mean absolute difference beside the adversarial loss.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        generator: nn.Module,
        discriminator: nn.Module,
        optimizers: dict[str, torch.optim.Optimizer],
        adversarial: str,
        l1_weight: float,
    ):
        self.accelerator, self.optimizers = accelerator, optimizers
        self.generator, self.discriminator = generator, discriminator
        self.adversarial, self.l1_weight = adversarial, l1_weight

    def step(self, pairs: list[Pair]) -> dict[str, Tensor]:
        """Train both networks on one or more batches.

        Returns:
            `l1`, and with an adversarial loss `adversarial`, `discriminator`, its mean scores `score_real` and
            `score_fake`, and `score_spread`, their standard deviation. Scalars without gradient, on the device.
        """
        losses: dict[str, Tensor] = {}
        # of several batches no graph is kept: the generator runs again when its turn comes
        restored = self._restore(self.generator, pairs[0][0]) if len(pairs) == 1 else None
        if self.adversarial != "none":
            losses |= self._discriminator_step(pairs, restored)
        return losses | self._generator_step(pairs, restored)

    def _discriminator_step(self, pairs: list[Pair], restored: Tensor | None) -> dict[str, Tensor]:
        """Clean and generated images go through the discriminator together, so that DDP sees one forward."""
        total, scores = torch.zeros((), device=self.accelerator.device), []
        for index, (damaged, clean) in enumerate(pairs):
            fake = self._restore_without_graph(damaged) if restored is None else restored.detach()
            with self._gathering(self.discriminator, index, pairs):
                with self.accelerator.autocast():
                    judged = self.discriminator(torch.cat([damaged, damaged]), torch.cat([clean, fake]))
                real_scores, fake_scores = judged.float().chunk(2)
                loss = discriminator_loss(real_scores, fake_scores, self.adversarial) / len(pairs)
                self.accelerator.backward(loss)
            total += loss.detach()
            scores.append(torch.stack([real_scores.detach(), fake_scores.detach()]))
        self._update("discriminator")
        both = torch.cat(scores, dim=1)  # (real and fake, B, 1, h, w)
        real, fake = both.mean(dim=(1, 2, 3, 4))
        return {"discriminator": total, "score_real": real, "score_fake": fake, "score_spread": both.std()}

    def _generator_step(self, pairs: list[Pair], restored: Tensor | None) -> dict[str, Tensor]:
        judge = self.accelerator.unwrap_model(self.discriminator)  # DDP would wait for gradients that do not come
        judge.requires_grad_(False)
        losses = {"l1": torch.zeros((), device=self.accelerator.device)}
        for index, (damaged, clean) in enumerate(pairs):
            with self._gathering(self.generator, index, pairs):
                image = self._restore(self.generator, damaged) if restored is None else restored
                l1 = F.l1_loss(image, clean) / len(pairs)
                loss = self.l1_weight * l1
                losses["l1"] += l1.detach()
                if self.adversarial != "none":
                    with self.accelerator.autocast():
                        scores = judge(damaged, image)
                    adversarial = generator_loss(scores.float(), self.adversarial) / len(pairs)
                    losses["adversarial"] = losses.get("adversarial", 0) + adversarial.detach()
                    loss = loss + adversarial
                self.accelerator.backward(loss)
        judge.requires_grad_(True)
        self._update("generator")
        return losses

    def _restore(self, generator: nn.Module, damaged: Tensor) -> Tensor:
        with self.accelerator.autocast():
            return generator(damaged).reconstruction.float()

    @torch.no_grad()
    def _restore_without_graph(self, damaged: Tensor) -> Tensor:
        return self._restore(self.accelerator.unwrap_model(self.generator), damaged)

    def _gathering(self, network: nn.Module, index: int, pairs: list[Pair]) -> AbstractContextManager:
        """Let DDP exchange gradients after the last batch alone."""
        return nullcontext() if index == len(pairs) - 1 else self.accelerator.no_sync(network)

    def _update(self, name: str) -> None:
        self.optimizers[name].step()
        self.optimizers[name].zero_grad(set_to_none=True)
