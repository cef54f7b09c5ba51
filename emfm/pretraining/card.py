"""The card of a pretrained generator, from `config.pretraining`."""

import re
import shlex
from typing import Any

from emfm.backbones import has_norms
from emfm.config import EMFoundationConfig
from emfm.hub.card import HERE, TEMPLATES, fill, fill_card, model_card_data, table
from emfm.tasks.metrics import RESTORATION_FIGURES

KIND: dict[str, Any] = {"pipeline_tag": "image-to-image", "tags": ["self-supervised"]}
# Options of `emfm pretrain`, by the names of the settings, that take one value each.
OPTIONS = ["generator", "init", "norm", "num_images", "steps", "batch_size", "gradient_accumulation_steps", "crop"]
OPTIONS += [
    "corruption",
    "structures",
    "adversarial",
    "discriminator_width",
    "learning_rate",
    "encoder_lr_scale",
    "precision",
    "seed",
]
# What the card of every generator begins with; its field is `place`.
OPENING = TEMPLATES / "generator_opening.md"


def pretraining_card(config: EMFoundationConfig) -> str:
    """Return the README.md of a pretrained generator, from `config.pretraining`."""
    run: dict[str, Any] = config.pretraining or {}
    on_the_hub = [name for name in run["data"] if name.count("/") == 1]
    return fill_card(
        TEMPLATES / "pretraining_card.md",
        model_card_data(**KIND, datasets=on_the_hub or None),
        config=config,
        opening=fill(OPENING, place=HERE),
        training=training_table(run, config.norm),
        command=command_lines(pretrain_command(run)),
        run=run,
        table=_validation_table(run["validation"]),
    )


def training_table(run: dict[str, Any], norm: str) -> str:
    """Return the settings, `config.pretraining`, as a Markdown table; `norm` is the generator's."""
    steps = run.get("step", run["steps"])
    crops = steps * run["batch_size"] * run.get("gradient_accumulation_steps", 1) * run["processes"]
    return fill(TEMPLATES / "pretraining_table.md", run=run, norm=norm, steps=steps, crops=crops)


def pretrain_command(run: dict[str, Any]) -> str:
    """Return the command that trains with the settings of a run, `config.pretraining`."""
    parts = [f"--data {shlex.quote(name)}" for name in run["data"]]
    parts += [f"--weight {weight:g}" for weight in run.get("weights") or []]
    parts += ["--streaming"] if run.get("streaming") else []
    parts += ["--filters" if run["filters"] else "--no-filters"]
    if run.get("residual") is not None:  # runs of before it could be chosen have no such setting
        parts += ["--residual" if run["residual"] else "--no-residual"]
    for name in OPTIONS:
        value = run.get(name)
        if value is None or (name == "norm" and not has_norms(run["generator"])):
            continue
        shown = format(value, "g") if isinstance(value, float) else value
        parts.append(f"--{name.replace('_', '-')} {shown}")
    return " ".join(["emfm pretrain", *parts, f"--output runs/{run['generator']}"])


def command_lines(command: str, width: int = 100) -> str:
    """Return a command in lines that a shell reads as one, broken before its options."""
    parts = re.split(r" (?=--)", command)
    lines = [""]
    for part in parts:
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += f" {part}" if lines[-1] else part
    return "\n".join(lines)


def _validation_table(figures: dict[str, float]) -> str:
    shown = [known for known in RESTORATION_FIGURES if known.name in figures]  # old: no SSIM
    rows = [
        [row, *(format(figures[figure.name + suffix], figure.form) for figure in shown)]
        for row, suffix in (("damaged input", "_input"), ("restored", ""))
    ]
    return table(["image", *(figure.heading for figure in shown)], rows)
