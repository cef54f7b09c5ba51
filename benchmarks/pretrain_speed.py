"""How fast pretraining is, beside a textbook loop and beside the bare steps, in turn in one run.

python -m benchmarks.pretrain_speed --json

`engine` is `emfm pretrain` as a user runs it: crops from micrographs, damage, bf16, averaging,
logging (ten times as often as by default); its validation and checkpoints are left out. `textbook`
is plain fp32 pix2pix and `bare` the engine's own steps, both on tensors that lie in memory already,
without data, damage or logging. After each step of the engine each of the others makes one, so that
a busy machine slows all of them alike. Figures are medians over the steps after the first ones.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.textbook_pix2pix import TextbookPix2Pix
from emfm.pretraining import pretrain as engine
from emfm.pretraining.arguments import RECIPES, PretrainArguments
from emfm.pretraining.pix2pix import Pix2Pix
from emfm.pretraining.pretext import Crops
from emfm.simulate.folder import write_simulated_folder
from emfm.training.machine import bf16_units

GENERATORS = ("unet4-rf200", "unet4-rf200-w16", "hrnet-w18-small")
CONTENDERS = ("engine", "textbook", "bare")
WARM_UP = 3
MICROGRAPHS = 40


class Clock:
    """Collects the seconds of each contender's steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        self.started = time.perf_counter()

    def lap(self, name: str) -> None:
        """Note the time since the last lap for a contender."""
        self.seconds[name].append(time.perf_counter() - self.started)
        self.started = time.perf_counter()


def bare_step(args: PretrainArguments) -> Callable[[Tensor, Tensor], None]:
    """Return the engine's step with averaging and learning rate, and nothing around it."""
    accelerator = engine._accelerator(args.precision)
    state = engine._new_state(args, accelerator)
    if args.compile:
        state.generator.compile()
        state.discriminator.compile()
    networks = accelerator.prepare(state.generator, state.discriminator)
    gan = Pix2Pix(accelerator, *networks, state.optimizers, args.adversarial, args.l1_weight)

    def step(damaged: Tensor, clean: Tensor) -> None:
        engine._set_learning_rate(state, args, 1)
        gan.step([Crops(damaged, clean)])
        engine._average(state.ema, state.generator.generator, args.ema_decay)

    return step


def textbook_step(args: PretrainArguments) -> Callable[[Tensor, Tensor], None]:
    """Return the textbook's step on the same networks."""
    state = engine._new_state(args, engine._accelerator("fp32"))
    networks = [network.to(memory_format=torch.contiguous_format) for network in (state.generator, state.discriminator)]
    return TextbookPix2Pix(*networks).step


def measure(generator: str, data: str, options: argparse.Namespace) -> dict[str, float]:
    """Return images per second of each contender and the engine's ratios to the others."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as output:
        args = PretrainArguments(
            data=(data,),
            output=output,
            generator=generator,
            steps=WARM_UP + options.steps,
            batch_size=options.batch_size,
            crop=options.crop,
            precision=options.precision,
            compile=options.compile,
            save_steps=10**9,
            **RECIPES["paper"],
        )
        others = {"textbook": textbook_step(args), "bare": bare_step(args)}
        advance = engine._Run.advance

        def in_turn(run: engine._Run) -> None:
            advance(run)
            clock.lap("engine")
            damaged, clean = torch.randn(2, args.batch_size, 1, args.crop, args.crop).clamp(-1, 1)
            for name, step in others.items():
                clock.started = time.perf_counter()
                step(damaged, clean)
                clock.lap(name)

        with patch.object(engine._Run, "advance", in_turn), patch.object(engine, "LOG_STEPS", 5):
            engine.pretrain(args)
    medians = {name: statistics.median(seconds[WARM_UP:]) for name, seconds in clock.seconds.items()}
    figures = {f"{name}_images_per_second": round(options.batch_size / medians[name], 2) for name in CONTENDERS}
    return figures | {
        "engine_to_textbook": round(medians["textbook"] / medians["engine"], 3),
        "engine_to_bare": round(medians["bare"] / medians["engine"], 3),
    }


def main() -> None:
    """Print the figures of each generator."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data", help="folder of micrographs; simulated ones by default")
    parser.add_argument("--generators", nargs="+", default=GENERATORS)
    parser.add_argument("--steps", type=int, default=20, help="measured steps of each contender")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--precision", default="bf16" if bf16_units() else "fp32")
    parser.add_argument(
        "--compile", action="store_true", help="let torch.compile fuse the engine's and the bare steps'"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or str(
            write_simulated_folder("nanoparticles", Path(folder) / "set", MICROGRAPHS, (512, 512), 0) / "images"
        )
        results = {generator: measure(generator, data, options) for generator in options.generators}
    machine = {
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU, {torch.get_num_threads()} threads",
        "bf16_units": bf16_units(),
        "capabilities": [name for name, has in torch.cpu.get_capabilities().items() if has is True],
        "torch": torch.__version__,
        "precision": options.precision,
        "compile": options.compile,
    }
    if options.json:
        sys.stdout.write(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")
        return
    sys.stdout.write(f"{json.dumps(machine)}\n\n| generator | {' | '.join(next(iter(results.values())))} |\n|---|")
    sys.stdout.write(f"{'---|' * len(next(iter(results.values())))}\n")
    for generator, figures in results.items():
        sys.stdout.write(f"| {generator} | {' | '.join(str(value) for value in figures.values())} |\n")


if __name__ == "__main__":
    main()
