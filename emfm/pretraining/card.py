"""The card of a pretrained generator, from `config.pretraining`."""

import re
import shlex
from collections.abc import Sequence
from typing import Any

from emfm.backbones import norm_choice
from emfm.config import EMFoundationConfig
from emfm.hub.card import HERE, TEMPLATES, fill_card, model_card_data, table
from emfm.tasks.metrics import RESTORATION_FIGURES

KIND: dict[str, Any] = {"pipeline_tag": "image-to-image", "tags": ["self-supervised"]}
# Options of `emfm pretrain` by the names of the settings that they decide, where those are one value each.
OPTIONS = ["generator", "norm", "num_images", "steps", "batch_size", "gradient_accumulation_steps", "crop"]
OPTIONS += ["corruption", "structures", "adversarial", "discriminator_width", "learning_rate", "precision", "seed"]
INTRODUCTION = """\
An image-to-image generator for one-channel electron micrographs, pretrained without labels after
[Kazimi et al. 2024](https://arxiv.org/abs/2402.18286). It is a starting point for fine-tuning; by itself it removes
the noise and blur that it was trained on."""
USE = """\
```python
from emfm import EMFoundation, EMForSemanticSegmentation

model_id = "{here}"
generator = EMFoundation.from_pretrained(model_id)
model = EMForSemanticSegmentation.from_pretrained(model_id, id2label={{0: "background", 1: "particle"}})
```"""


def pretraining_card(config: EMFoundationConfig) -> str:
    """Return the README.md of a pretrained generator, from `config.pretraining`."""
    run: dict[str, Any] = config.pretraining or {}
    return fill_card(
        TEMPLATES / "pretraining_card.md",
        model_card_data(**KIND, datasets=dataset_ids(run["data"])),
        config=config,
        introduction=INTRODUCTION,
        use=USE.format(here=HERE),
        training=training_table(run, config.norm),
        command=command_lines(pretrain_command(run)),
        run=run,
        figures=run["validation"],
        table=_validation_table(run["validation"]),
        pixel_sizes=pixel_sizes(config.pixel_size_range),
    )


def dataset_ids(names: list[str]) -> list[str] | None:
    """Return those data that are on the Hub, None where none are."""
    return [name for name in names if name.count("/") == 1] or None


def pixel_sizes(known: Sequence[float] | None) -> str:
    """Return a sentence about the pixel sizes (nm) of the training data."""
    if known is None:
        return "Pixel sizes were not recorded in the training data, so no range is claimed."
    return "Trained at pixel sizes of {:g} to {:g} nm; outside of this range it was not tested.".format(*known)


def training_table(run: dict[str, Any], norm: str) -> str:
    """Return what was done, as a Markdown table.

    Args:
        run: `config.pretraining`.
        norm: the generator's normalisation layers.
    """
    step = run.get("step", run["steps"])
    crops = step * run["batch_size"] * run.get("gradient_accumulation_steps", 1) * run["processes"]
    micrographs = f": {run['micrographs']} micrographs" if run["micrographs"] else ", streamed"
    rows = {
        "data": ", ".join(run["data"]) + micrographs,
        "crops": f"{crops:,} of {run['crop']} x {run['crop']} pixels, {step:,} steps",
        "corruption": _corruption(run["corruption"], run["strength"]),
        "learnt beside it": _signals(run),
        "loss": _loss(run),
        "optimiser": f"Adam {run['learning_rate']:g}, betas 0.5 / 0.999, constant, then linear to 0",
        "weights": f"exponential average, decay {run['ema_decay']}",
        "norm, precision, seed": f"{norm}, {run['precision']}, {run['seed']}",
        "cost": f"{run['seconds'] / 3600:.1f} h, {run['processes']} process{'es' if run['processes'] > 1 else ''}",
    }
    return table(["setting", "value"], [list(row) for row in rows.items()])


def pretrain_command(run: dict[str, Any]) -> str:
    """Return the command that trains a generator with the settings of a run.

    Args:
        run: `config.pretraining`.
    """
    parts = [f"--data {shlex.quote(name)}" for name in run["data"]]
    parts += [f"--weight {weight:g}" for weight in run.get("weights") or []]
    parts += ["--streaming"] if run.get("streaming") else []
    parts += ["--filters" if run["filters"] else "--no-filters"]
    if run.get("residual") is not None:  # runs of before it could be chosen have no such setting
        parts += ["--residual" if run["residual"] else "--no-residual"]
    for name in OPTIONS:
        value = run.get(name)
        if value is None or (name == "norm" and not norm_choice(run["generator"], value)):
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
    shown = [figure for figure in RESTORATION_FIGURES if figure.name in figures]  # older models have no SSIM
    rows = [
        [row, *(format(figures[figure.name + suffix], figure.form) for figure in shown)]
        for row, suffix in (("damaged input", "_input"), ("restored", ""))
    ]
    return table(["image", *(figure.heading for figure in shown)], rows)


def _signals(run: dict[str, Any]) -> str:
    signals = ["the responses of hand-made filters to the clean micrograph"] if run["filters"] else []
    if run["structures"]:
        signals.append(f"the regions of simulated structures, {run['structures']} crops beside each batch")
    return "; ".join(signals) or "nothing"


def _loss(run: dict[str, Any]) -> str:
    if run["adversarial"] == "none":
        return "L1"
    return f"{run['adversarial']} + {run['l1_weight']:g} x L1, discriminator of width {run['discriminator_width']}"


def _corruption(kind: str, strength: dict[str, Any]) -> str:
    def interval(name: str) -> str:
        return "{:g} to {:g}".format(*strength[name])

    if kind.startswith("dose"):
        text = (
            f"{kind}: defocus of {interval('defocus')} px, scan lines displaced by {interval('jitter')} px, a slow "
            f"background of {interval('background')}, Poisson counting of {interval('dose')} electrons per pixel, "
            f"read-out noise of {interval('read_out')}; {strength['inverted']:.0%} with inverted contrast"
        )
    else:
        text = f"{kind}: Gaussian blur of {interval('blur')} px, then Gaussian noise of {interval('noise')}"
    if kind.endswith("masked"):
        low, high = strength["masked_share"]
        text += f", then {low:.0%} to {high:.0%} hidden in blocks of {strength['block']} pixels"
    return text
