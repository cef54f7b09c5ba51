"""What EMTrainer costs: its steps beside those of a loop written by hand, one of each in turn.

Both train the same network on the same crops with the same optimiser, schedule, clipping and
precision. The time of a step runs from the end of the one before to its own end, so data,
bookkeeping and logging count. Example:

    python -m benchmarks.trainer_overhead --json
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from statistics import median
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback, get_cosine_schedule_with_warmup

from emfm import EMForSemanticSegmentation, EMFoundationConfig, EMTrainer, EMTrainingArguments
from emfm.data.examples import LabelledMicrographs
from emfm.simulate.nanoparticles import simulate_nanoparticles

ID2LABEL = {0: "background", 1: "particle"}
WARM_UP = 3


def micrographs(count: int, side: int) -> LabelledMicrographs:
    """Return simulated micrographs with their masks."""
    drawn = [simulate_nanoparticles((side, side), seed) for seed in range(count)]
    masks = [micrograph.mask.astype("int16") for micrograph in drawn]
    images = [micrograph.image for micrograph in drawn]
    return LabelledMicrographs(images, [str(i) for i in range(count)], [None] * count, masks, ID2LABEL)


def hand_written(model: EMForSemanticSegmentation, trainer: EMTrainer, steps: int) -> Callable[[], None]:
    """Return a function that does the next step of a plain loop with the trainer's own settings."""
    args, device = trainer.args, trainer.args.device
    model = model.to(device).to(memory_format=model.trunk.memory_format).train()
    decaying = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": decaying, "weight_decay": args.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.learning_rate, fused=True)
    schedule = get_cosine_schedule_with_warmup(optimizer, args.get_warmup_steps(steps), steps)
    batches = iter(DataLoader(trainer.train_dataset, batch_size=args.per_device_train_batch_size))

    def step() -> None:
        batch = {name: tensor.to(device) for name, tensor in next(batches).items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), args.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()

    return step


class InTurn(TrainerCallback):
    """After each step of the trainer does one of the other loop, and takes the time of both."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {"trainer": [], "hand_written": []}
        self.other: Callable[[], None] = lambda: None
        self._since = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._since = _now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the trainer's clock, do the other step, start again."""
        ended = _now()
        self.other()
        self.seconds["trainer"].append(ended - self._since)
        self._since = _now()
        self.seconds["hand_written"].append(self._since - ended)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def run(generator: str, steps: int, crop: int, batch: int) -> dict[str, Any]:
    """Return the median step of both in seconds, and the ratio of their speeds."""
    data = micrographs(4, max(256, crop))
    model = EMForSemanticSegmentation(EMFoundationConfig.from_name(generator, id2label=ID2LABEL))
    other, in_turn = deepcopy(model), InTurn()
    with tempfile.TemporaryDirectory() as output:
        arguments = EMTrainingArguments(
            output_dir=output,
            max_steps=steps + WARM_UP,
            per_device_train_batch_size=batch,
            crop=crop,
            eval_strategy="no",
            eval_on_start=False,
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = EMTrainer(model, arguments, data, data, callbacks=[in_turn])
        in_turn.other = hand_written(other, trainer, steps + WARM_UP)
        trainer.train()
    medians = {name: median(seconds[WARM_UP:]) for name, seconds in in_turn.seconds.items()}
    return {
        "generator": generator,
        "crop": crop,
        "batch": batch,
        "steps": steps,
        "precision": "bf16" if trainer.args.bf16 else "fp32",
        "device": str(trainer.args.device),
        "seconds": medians,
        "relative_speed": medians["hand_written"] / medians["trainer"],
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", nargs="+", default=["unet4-rf200-w16", "unet4-rf200"])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = [run(name, arguments.steps, arguments.crop, arguments.batch_size) for name in arguments.generator]
    if arguments.json:
        sys.stdout.write(json.dumps(results, indent=1) + "\n")
        return
    for result in results:
        seconds = "  ".join(f"{name} {value * 1000:.1f} ms" for name, value in result["seconds"].items())
        sys.stdout.write(f"{result['generator']}: {seconds}  relative speed {result['relative_speed']:.3f}\n")


if __name__ == "__main__":
    main()
