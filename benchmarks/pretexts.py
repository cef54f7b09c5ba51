"""Pretrain the starts that the studies of `benchmarks.transfer` compare: short runs that differ in one thing each.

Models go to RUNS/starts/NAME/GENERATOR, where `benchmarks.transfer` finds them. A stopped run goes
on where it was.

Example:
    python -m benchmarks.pretexts --data PRETRAIN --generator unet4-rf200-w8 masked structures
"""

import argparse
import multiprocessing
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from emfm import EMFoundation
from emfm.data.degradations import CorruptionStrength
from emfm.pretraining.arguments import RECIPES
from emfm.pretraining.pretrain import PretrainArguments, pretrain

BIOLOGY = ("fib25_medulla", "cem500k_samples")
MATERIALS = ("emps", "catalyst_haadf", "atomic_stem")
SOURCES = ("fib25_medulla", "emps", "catalyst_haadf", "atomic_stem", "cem500k_samples")
BASE: dict[str, Any] = {
    "steps": 1000,
    "batch_size": 16,
    "crop": 80,
    "corruption": "masked",
    "filters": False,
    "structures": 0,
    "adversarial": "none",
    "discriminator_width": 16,
    "learning_rate": 2e-3,
    "precision": "bf16",
    "save_steps": 500,
}
PAPER = RECIPES["paper"]
BOTH: dict[str, Any] = {"structures": 16, "filters": True}
# What each start changes of BASE.
PRETEXTS: dict[str, dict[str, Any]] = {
    "paper": PAPER,
    "masked": {},
    "structures": {"structures": 16},
    "filters": {"filters": True},
    "both": BOTH,
    "both-crop64": {**BOTH, "crop": 64},
    "both-dose": {**BOTH, "corruption": "dose+masked"},
    "both-lsgan": {**BOTH, "adversarial": "lsgan"},
    "both-strong": {**BOTH, "strength": CorruptionStrength(noise=(0.0, 1.0), blur=(0.0, 3.0), masked_share=(0.3, 0.7))},
    "both-batch-norm": {**BOTH, "norm": "batch"},
    "both-long": {**BOTH, "steps": 3000},
}
# Starts made of another one: which of its blocks get random weights again,
PARTIAL = {"both-encoder": ("both", "decoder"), "both-decoder": ("both", "encoder")}
# or whose weights are the mean of the checkpoints that its run left, the last three.
AVERAGED = {"both-averaged": "both-long"}
# What the studies of the paper's questions compare besides.
ASKED: dict[str, dict[str, Any]] = {
    "paper-batch-norm": {**PAPER, "norm": "batch"},
    "paper-without-gan": {**PAPER, "adversarial": "none"},
    "both-60": {**BOTH, "num_images": 60},
    "both-200": {**BOTH, "num_images": 200},
    "both-biology": {**BOTH, "sources": BIOLOGY},
    "both-materials": {**BOTH, "sources": MATERIALS},
}
STARTS = (*PRETEXTS, *ASKED, *PARTIAL, *AVERAGED)


def recipe(name: str, generator: str, data: Path, runs: Path) -> PretrainArguments:
    """Return the settings of one start."""
    fields = BASE | {**PRETEXTS, **ASKED}[name]
    sources = fields.pop("sources", SOURCES)
    return PretrainArguments(
        data=tuple(str(data / source) for source in sources),
        output=str(runs / "pretexts" / f"{name}-{generator}"),
        generator=generator,
        resume=True,
        **fields,
    )


def make(name: str, generator: str, data: Path, runs: Path) -> Path:
    """Pretrain one start on one thread, unless it is there; returns the model's folder."""
    torch.set_num_threads(1)
    target = runs / "starts" / name / generator
    if (target / "model.safetensors").is_file():
        return target
    shutil.copytree(pretrain(recipe(name, generator, data, runs)), target, dirs_exist_ok=True)
    return target


def forget(name: str, generator: str, runs: Path) -> Path:
    """Make a start of another one by giving a part of it random weights; returns the model's folder."""
    whole, forgotten = PARTIAL[name]
    torch.manual_seed(0)
    model = EMFoundation.from_pretrained(runs / "starts" / whole / generator)
    part, fresh = ("encoder", "decoder").index(forgotten), EMFoundation(model.config)
    for block, new in zip(model.trunk.blocks()[part], fresh.trunk.blocks()[part], strict=True):
        block.load_state_dict(new.state_dict())
    target = runs / "starts" / name / generator
    model.save_pretrained(target)
    return target


def average(name: str, generator: str, runs: Path) -> Path:
    """Make a start of another one's run by averaging the weights of its checkpoints; returns the model's folder."""
    checkpoints = sorted((runs / "pretexts" / f"{AVERAGED[name]}-{generator}").glob("step_*/pretrained_model"))
    models = [EMFoundation.from_pretrained(folder) for folder in checkpoints]
    states = [model.state_dict() for model in models]
    models[0].load_state_dict({key: torch.stack([state[key] for state in states]).mean(0) for key in states[0]})
    target = runs / "starts" / name / generator
    models[0].save_pretrained(target)
    return target


def main(argv: Sequence[str] | None = None) -> None:
    """Pretrain the starts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *STARTS], metavar="NAME", help=f"of {', '.join(STARTS)}")
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder of micrographs per source")
    parser.add_argument("--generator", default="unet4-rf200-w8")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, each on one thread")
    arguments = parser.parse_args(argv)
    asked = arguments.names or STARTS
    origins = AVERAGED | {name: origin for name, (origin, _) in PARTIAL.items()}
    whole = dict.fromkeys(origins.get(name, name) for name in asked)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
        waiting = {name: pool.submit(make, name, arguments.generator, arguments.data, arguments.runs) for name in whole}
        for name, future in tqdm(waiting.items(), unit="start"):
            sys.stdout.write(f"{name}: {future.result()}\n")
    for name in (name for name in asked if name in origins):
        derive = forget if name in PARTIAL else average
        sys.stdout.write(f"{name}: {derive(name, arguments.generator, arguments.runs)}\n")


if __name__ == "__main__":
    main()
