"""The card of a fine-tuned model, from the facts of its run."""

from typing import Any

from huggingface_hub import EvalResult

from emfm.hub.card import HERE, RESTORATION, UNKNOWN_LICENSE, dataset_slug, figure, front_matter, table

FINETUNED = """\
---
{header}
---

# {run[generator]}, fine-tuned for {run[task]} on {run[data]}

Trained from {start} on {images}: {run[steps]} steps of {crops} crops of {run[crop]} x {run[crop]} pixels, learning rate
{run[learning_rate]:g}{trunk}, {run[precision]}, seed {run[seed]}, {run[seconds]:.0f} s.{pairs}

## Use

```python
from emfm import predict

model_id = "{here}"
result = predict(model_id, "micrograph.tif")
result.output  # {output}
```

## Figures

On {validation}, whole, after step {best[step]}. {caution}
`emfm evaluate --split test` measures that, beside an answer that needs no network.

{table}

## Limits

- One data set and one seed: another seed may give other figures, and how far they spread was not measured.
- Micrographs of another instrument, magnification or material may need {needs} of their own.{plausible}
- {license}
"""
CHOSEN = "This step was chosen by these same figures, so expect somewhat less on new images;"
TRAINED_ON = (
    "**The network was trained on {} of them, too**: the figures say how well they were learned, not what to expect on "
    "new images;"
)
PLAUSIBLE = "\n- The output is a plausible image: check on known structures before you measure on it."
NO_LICENSE = (
    "No licence was stated for these weights; that of the training images, and of the weights they started from, may "
    "limit their use."
)
LICENSED = "The weights are under the licence `{}`, as stated by whoever trained them."
OUTPUTS = {
    "segmentation": "class indices, one per pixel",
    "super-resolution": "the enlarged micrograph, in the input's units and dtype",
}
RESTORED = "the restored micrograph, in the input's units and dtype"
SEGMENTATION = {"dice": "Dice", "iou": "IoU", "boundary_f1": "boundary F1 (2 px)"}


def finetuned_card(facts: dict[str, Any]) -> str:
    """Return the README.md of a fine-tuned model, from the facts that `finetune` returned."""
    best, segments = facts["best"], facts["task"] == "segmentation"
    scratch = facts["start"].startswith("random ")
    license = facts["license"]
    return FINETUNED.format(
        header=_header(facts),
        run=facts,
        best=best,
        here=HERE,
        start="random weights" if scratch else f"the pretrained weights `{facts['start']}`",
        images=_images(facts),
        crops=facts["batch_size"] * facts["gradient_accumulation_steps"] * facts["processes"],
        trunk=_trunk(facts),
        pairs=_pairs(facts),
        output=OUTPUTS.get(facts["task"], RESTORED),
        validation=_count(best["n"], "validation micrograph"),
        caution=TRAINED_ON.format(seen) if (seen := facts["validation_trained_on"]) else CHOSEN,
        table=_segmentation_table(best) if segments else _restoration_table(best),
        needs="labels" if segments else "pairs",
        plausible="" if segments else PLAUSIBLE,
        license=LICENSED.format(license) if license else NO_LICENSE,
    )


def _header(facts: dict[str, Any]) -> str:
    segments = facts["task"] == "segmentation"
    fields: dict[str, Any] = {"license": facts["license"] or UNKNOWN_LICENSE}
    if facts["base_model"]:
        # the Hub's words: an adapter needs the weights of its base model
        relation = "adapter" if facts["adapter"] else "finetune"
        fields |= {"base_model": facts["base_model"], "base_model_relation": relation}
    if facts["dataset_id"]:
        fields["datasets"] = [facts["dataset_id"]]
    return front_matter(
        **fields,
        pipeline_tag="image-segmentation" if segments else "image-to-image",
        tags=[facts["task"]],
        model_name=f"{facts['generator']} on {facts['data']}",
        eval_results=_evaluations(facts),
    )


def _evaluations(facts: dict[str, Any]) -> list[EvalResult]:
    """Return the best figures in the form that the Hub shows beside a card."""
    best, segments = facts["best"], facts["task"] == "segmentation"
    headings = SEGMENTATION if segments else {name: heading for name, heading, _ in RESTORATION}
    return [
        EvalResult(
            task_type="image-segmentation" if segments else "image-to-image",
            task_name=facts["task"],
            dataset_type=facts["dataset_id"] or dataset_slug(facts["data"]),
            dataset_name=facts["data"],
            dataset_split="validation",
            dataset_args={"n": best["n"]},
            metric_type=name,
            metric_name=heading,
            metric_value=round(best[name], 4),
            metric_args={"seeds": 1},
        )
        for name, heading in headings.items()
        if best.get(name) is not None
    ]


def _count(count: int, singular: str) -> str:
    return f"{count} {singular}{'' if count == 1 else 's'}"


def _images(facts: dict[str, Any]) -> str:
    kind, rest = ("labelled micrograph", "") if facts["task"] == "segmentation" else ("micrograph", " with targets")
    if facts["degrade"]:
        kind, rest = "clean micrograph", ""
    count = facts["images"]["train"]
    return f"a stream of {kind}s{rest}" if count is None else f"{_count(count, kind)}{rest}"


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
    names = [name for name in SEGMENTATION if name in best]
    rows = [[label, *(figure(values[name]) for name in names)] for label, values in best["per_class"].items()]
    mean = "mean without background" if "background" in best["per_class"] else "mean"
    rows.append([f"**{mean}**", *(figure(best[name]) for name in names)])
    return table(["class", *(SEGMENTATION[name] for name in names)], rows)


def _restoration_table(best: dict[str, Any]) -> str:
    row = [figure(best[name], form) for name, _, form in RESTORATION]
    return f"{table([label for _, label, _ in RESTORATION], [row])}\n\nData range: {best['data_range']}."
