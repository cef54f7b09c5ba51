"""Model cards, rendered from what a run stored; nothing in them is typed by hand."""

from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from emfm.config import EMFoundationConfig

# Figures of a restoration: name, heading, format. Older models have no SSIM.
RESTORATION = (("l1", "L1", ".4f"), ("psnr", "PSNR (dB)", ".2f"), ("ssim", "SSIM", ".4f"))
TAGS = ["electron-microscopy", "emfm"]

PRETRAINED = """\
---
{header}
---

# {config.generator}, pretrained on electron micrographs

An image-to-image generator for one-channel electron micrographs, pretrained without labels as in
[Kazimi et al. 2024](https://arxiv.org/abs/2402.18286). It is a starting point for fine-tuning; by itself it removes
the noise and blur that it was trained on.

```python
from emfm import EMFoundation, EMForSemanticSegmentation

folder = "path/to/this/folder"
generator = EMFoundation.from_pretrained(folder)
model = EMForSemanticSegmentation.from_pretrained(folder, id2label={{0: "background", 1: "particle"}})
```

## Training

| | |
|---|---|
| data | {data}{micrographs} |
| crops | {crops:,} of {run[crop]} x {run[crop]} pixels, {step:,} steps |
| corruption | {corruption} |
| loss | {run[adversarial]} + {run[l1_weight]:g} x L1, discriminator of width {run[discriminator_width]} |
| optimiser | Adam {run[learning_rate]:g}, betas 0.5 / 0.999, constant, then linear to 0 |
| weights | exponential average, decay {run[ema_decay]} |
| norm, precision, seed | {config.norm}, {run[precision]}, {run[seed]} |
| cost | {hours:.1f} h, {run[processes]} process |

## Figures

On {figures[crops]} damaged crops of held-out micrographs, in network values (the micrograph's 1st and 99th percentile
lie at -1 and +1, PSNR and SSIM with a data range of 2). One file in twenty was held out; where files are neighbouring
slices of one volume, they resemble their neighbours in the training set, so expect somewhat less on another specimen:

{table}

## Limits

- One seed, one mix of data: what it says about your instrument is unknown until you measure it on your own images.
- Pixel sizes were not recorded in the training data, so no range is claimed.
- The output is a plausible image, not a measurement: do not quantify intensities on it.
"""

FINETUNED = """\
---
{header}
---

# {run[generator]}, fine-tuned for {run[task]} on {run[data]}

Trained from {start} on {images}: {run[steps]} steps of {crops} crops of {run[crop]} x {run[crop]} pixels, learning rate
{run[learning_rate]:g}{trunk}, {run[precision]}, seed {run[seed]}, {run[seconds]:.0f} s.{pairs}

```python
from emfm import predict

result = predict("path/to/this/folder", "micrograph.tif")
result.output  # {output}
```

## Figures

On {best[n]} validation micrographs, whole, after step {best[step]}. This step was chosen by these same figures, so
expect somewhat less on new images; `emfm evaluate --split test` measures that, beside an answer that needs no network.

{table}

## Limits

One data set and one seed. Micrographs of another instrument, magnification or material may need {needs} of their own.
The licence of the training images may limit the use of these weights; none is claimed here.{limit}
"""
PLAUSIBLE = " The output is a plausible image: check it on known structures before you measure on it."
OUTPUTS = {
    "segmentation": "class indices, one per pixel",
    "super-resolution": "the enlarged micrograph, in the input's units and dtype",
}


PLAIN = """\
---
{header}
---

# {config.generator}

Weights of `{cls}` of [emfm](https://arxiv.org/abs/2402.18286), pushed from memory. How they were trained is not
recorded, so no figure and no range of use is claimed.

```python
from emfm import {cls}

model = {cls}.from_pretrained("path/to/this/folder")
```
"""


def plain_card(config: Any, cls: str) -> str:
    """Return the README.md of a model of which nothing but its class is known."""
    header = ModelCardData(library_name="emfm", tags=TAGS)
    return PLAIN.format(header=header.to_yaml(), config=config, cls=cls)


def pretraining_card(config: EMFoundationConfig) -> str:
    """Return the README.md of a pretrained generator, from `config.pretraining`."""
    run: dict[str, Any] = config.pretraining or {}
    step = run.get("step", run["steps"])
    header = ModelCardData(
        library_name="emfm",
        license="apache-2.0",
        pipeline_tag="image-to-image",
        tags=[*TAGS, "self-supervised", "pix2pix"],
    )
    return PRETRAINED.format(
        header=header.to_yaml(),
        config=config,
        run=run,
        figures=run["validation"],
        data=", ".join(run["data"]),
        micrographs=f": {run['micrographs']} micrographs" if run["micrographs"] else ", streamed",
        step=step,
        crops=step * run["batch_size"] * run.get("gradient_accumulation_steps", 1) * run["processes"],
        table=_restoration_table(run["validation"]),
        corruption=_corruption(run["corruption"], run["strength"]),
        hours=run["seconds"] / 3600,
    )


def finetuned_card(facts: dict[str, Any]) -> str:
    """Return the README.md of a fine-tuned model, from the facts that `finetune` returned."""
    best, segments = facts["best"], facts["task"] == "segmentation"
    merit = facts["figure_of_merit"]
    tag = "image-segmentation" if segments else "image-to-image"
    result = EvalResult(
        task_type=tag,
        dataset_type=facts["data"],
        dataset_name=facts["data"],
        dataset_split="validation",
        metric_type=merit,
        metric_value=round(best[merit], 4),
    )
    header = ModelCardData(
        library_name="emfm",
        pipeline_tag=tag,
        tags=TAGS if segments else [*TAGS, facts["task"]],
        model_name=f"{facts['generator']} on {facts['data']}",
        eval_results=[result],
    )
    scratch = facts["start"].startswith("random ")
    return FINETUNED.format(
        header=header.to_yaml(),
        run=facts,
        best=best,
        start="random weights" if scratch else f"the pretrained weights `{facts['start']}`",
        images=_images(facts),
        crops=facts["batch_size"] * facts["gradient_accumulation_steps"] * facts["processes"],
        trunk=_trunk(facts),
        pairs=_pairs(facts),
        output=OUTPUTS.get(facts["task"], "the restored micrograph, in the input's units and dtype"),
        table=_segmentation_table(best) if segments else _finetuned_table(best),
        needs="labels" if segments else "pairs",
        limit=""
        if segments
        else " The output is a plausible image: check on known structures before you measure on it.",
    )


def _images(facts: dict[str, Any]) -> str:
    count = facts["images"]["train"]
    kind = "labelled micrographs" if facts["task"] == "segmentation" else "micrographs with targets"
    kind = "clean micrographs" if facts["degrade"] else kind
    return f"a stream of {kind}" if count is None else f"{count} {kind}"


def _trunk(facts: dict[str, Any]) -> str:
    if facts["lora"]:
        return f" with LoRA of rank {facts['lora']}"
    if facts["freeze"] != "none":
        return f" with a part frozen ({facts['freeze']})"
    return "" if facts["backbone_lr_scale"] == 1 else f" ({facts['backbone_lr_scale']:g} times that for the trunk)"


def _pairs(facts: dict[str, Any]) -> str:
    if not facts["degrade"]:
        return ""
    how = f"{facts['degrade']}, {facts['scale']}x" if facts["scale"] > 1 else facts["degrade"]
    return f" The inputs were made from the clean micrographs ({how}); the figures below are for inputs made likewise."


def _segmentation_table(best: dict[str, Any]) -> str:
    names = [name for name in ("dice", "iou", "boundary_f1") if name in best]
    headings = {"dice": "Dice", "iou": "IoU", "boundary_f1": "boundary F1 (2 px)"}
    lines = [f"| class | {' | '.join(headings[name] for name in names)} |", f"|---{'|---' * len(names)}|"]
    for label, figures in best["per_class"].items():
        lines.append(f"| {label} | {' | '.join(_figure(figures[name]) for name in names)} |")
    lines.append(f"| **mean without background** | {' | '.join(_figure(best[name]) for name in names)} |")
    return "\n".join(lines)


def _finetuned_table(best: dict[str, Any]) -> str:
    shown = " | ".join(format(best[name], form) for name, _, form in RESTORATION)
    headings = " | ".join(label for _, label, _ in RESTORATION)
    return f"| {headings} |\n|---|---|---|\n| {shown} |\n\nData range: {best['data_range']}."


def _figure(value: float | None) -> str:
    return "absent" if value is None else f"{value:.4f}"


def _restoration_table(figures: dict[str, float]) -> str:
    shown = [(name, label, form) for name, label, form in RESTORATION if name in figures]
    lines = [f"| | {' | '.join(label for _, label, _ in shown)} |", f"|---{'|---' * len(shown)}|"]
    for row, suffix in (("damaged input", "_input"), ("restored", "")):
        lines.append(f"| {row} | {' | '.join(format(figures[name + suffix], form) for name, _, form in shown)} |")
    return "\n".join(lines)


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
