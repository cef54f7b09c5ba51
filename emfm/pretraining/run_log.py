"""What one sees of a pretraining run (bar, log, TensorBoard, pictures), and when it must stop."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from emfm.errors import EMError
from emfm.files import write_text, writing
from emfm.io.writing import write_image

SHOWN = ("l1", "adversarial", "discriminator")  # beside the progress bar
PICTURE_ROWS = 4
PATIENCE = 20  # the discriminator is given up when this many reports in a row say so
NOTHING = 1e-6  # of closer scores or a smaller loss the generator learns nothing


class RunLog:
    """Writes what happens; on all processes but the main one it does nothing.

    Args:
        output: folder of the run.
        steps: how many there will be.
        done: how many are; what an interrupted run wrote beyond them is dropped.
        enabled: whether this is the main process.
    """

    def __init__(self, output: Path, steps: int, done: int, enabled: bool):
        self.enabled = enabled
        self.progress = tqdm(total=steps, initial=done, desc="pretraining", unit="step", disable=not enabled)
        if not enabled:
            return
        from torch.utils.tensorboard import SummaryWriter

        self._folder, self.pictures_folder = output, output / "pictures"
        path = output / "log.jsonl"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = text.split("\n")[:-1]  # without a last line that was cut short by a kill
        kept = [line for line in whole if json.loads(line)["step"] <= done]
        write_text(path, "".join(f"{line}\n" for line in kept))
        with writing(output):
            self._jsonl = path.open("a", encoding="utf-8")
            self._board = SummaryWriter(str(output / "tensorboard"), purge_step=done + 1 if done else None)

    def scalars(self, step: int, group: str, values: dict[str, float]) -> None:
        """Log figures of a step under a group, "train" or "validation"."""
        if not self.enabled:
            return
        rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
        with writing(self._folder):
            self._jsonl.write(json.dumps({"step": step, "group": group, **rounded}) + "\n")
            self._jsonl.flush()
            for name, value in rounded.items():
                self._board.add_scalar(f"{group}/{name}", value, step)
        if group == "train":
            self.progress.set_postfix({name: f"{values[name]:.4f}" for name in SHOWN if name in values})

    def picture(self, step: int, damaged: Tensor, restored: Tensor, clean: Tensor) -> None:
        """Write `pictures/step_N.png`: a row per image, input, output and target beside each other.

        All are network values (B, 1, H, W), shown from -1 to +1.
        """
        if not self.enabled:
            return
        columns = torch.cat([images[:PICTURE_ROWS, 0].cpu() for images in (damaged, restored, clean)], dim=2)
        grey = ((columns.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).flatten(0, 1).numpy()
        write_image(self.pictures_folder / f"step_{step}.png", grey)
        with writing(self._folder):
            self._board.add_image("input, output, target", np.ascontiguousarray(grey)[None], step)

    def close(self) -> None:
        """Flush and close everything."""
        self.progress.close()
        if self.enabled:
            with writing(self._folder):
                self._jsonl.close()
                self._board.close()


class Watch:
    """Stops a run that can no longer succeed, with advice."""

    def __init__(self) -> None:
        self._constant = self._idle = 0

    def check(self, step: int, losses: dict[str, float]) -> None:
        """Raise an EMError if a loss is no number, or has long taught the generator nothing."""
        if not np.isfinite(list(losses.values())).all():
            raise EMError(
                f"a loss is no longer finite at step {step}: lower the learning rate, use "
                "--precision fp32, or drop damaged micrographs; --resume goes on from a checkpoint"
            )
        if "discriminator" not in losses:
            return
        self._constant = self._constant + 1 if losses["score_spread"] < NOTHING else 0
        self._idle = self._idle + 1 if losses["discriminator"] < NOTHING else 0
        if self._idle >= PATIENCE:
            what = "tells generated from real images without any error"
        elif self._constant >= PATIENCE:
            what = "gives every image the same score"
        else:
            return
        raise EMError(
            f"the discriminator has collapsed at step {step}: for {PATIENCE} reports it {what}, so "
            "the generator learns nothing from it. Use a smaller --discriminator-width, another "
            "--seed or --adversarial lsgan, or train with L1 alone: --adversarial none"
        )
