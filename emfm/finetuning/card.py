"""The card of a fine-tuned model: a template, filled from the facts of its run and from its task."""

from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from emfm.hub.card import HERE, TEMPLATES, UNKNOWN_LICENSE, dataset_slug, fill_card, model_card_data
from emfm.tasks import TASKS


def finetuned_card(facts: dict[str, Any]) -> str:
    """Return the README.md of a fine-tuned model, from the facts that `finetune` returned."""
    task, start = TASKS[facts["task"]], facts["start"]
    return fill_card(
        TEMPLATES / "finetuned_card.md",
        _header(facts),
        run=facts,
        words=task.card,
        place=HERE,
        start="random weights" if start.startswith("random ") else f"the pretrained weights `{start}`",
        images=_images(facts),
        crops=facts["batch_size"] * facts["gradient_accumulation_steps"] * facts["processes"],
        trunk=_trunk(facts),
        validation=_count(facts["best"]["n"], "validation micrograph"),
        table=task.card_table(facts["best"]),
    )


def _header(facts: dict[str, Any]) -> ModelCardData:
    fields: dict[str, Any] = {"license": facts["license"] or UNKNOWN_LICENSE}
    if facts["base_model"]:
        # the Hub's words: an adapter needs the weights of its base model
        relation = "adapter" if facts["adapter"] else "finetune"
        fields |= {"base_model": facts["base_model"], "base_model_relation": relation}
    if facts["dataset_id"]:
        fields["datasets"] = [facts["dataset_id"]]
    return model_card_data(
        **fields,
        pipeline_tag=TASKS[facts["task"]].card.pipeline_tag,
        tags=[facts["task"]],
        model_name=f"{facts['generator']} on {facts['data']}",
        eval_results=_evaluations(facts),
    )


def _evaluations(facts: dict[str, Any]) -> list[EvalResult]:
    """Return the best figures in the form that the Hub shows beside a card."""
    best, task = facts["best"], TASKS[facts["task"]]
    return [
        EvalResult(
            task_type=task.card.pipeline_tag,
            task_name=facts["task"],
            dataset_type=facts["dataset_id"] or dataset_slug(facts["data"]),
            dataset_name=facts["data"],
            dataset_split="validation",
            dataset_args={"n": best["n"]},
            metric_type=figure.name,
            metric_name=figure.heading,
            metric_value=round(best[figure.name], 4),
            metric_args={"seeds": 1},
        )
        for figure in task.figures
        if best.get(figure.name) is not None
    ]


def _count(count: int, singular: str) -> str:
    return f"{count} {singular}{'' if count == 1 else 's'}"


def _images(facts: dict[str, Any]) -> str:
    words, count = TASKS[facts["task"]].card, facts["images"]["train"]
    kind, truth = ("clean micrograph", "") if facts["degrade"] else (words.image, words.truth)
    return f"a stream of {kind}s{truth}" if count is None else f"{_count(count, kind)}{truth}"


def _trunk(facts: dict[str, Any]) -> str:
    if facts["lora"]:
        return f" with LoRA of rank {facts['lora']}"
    if facts["freeze"] != "none":
        return f" with a part frozen ({facts['freeze']})"
    scale = facts["backbone_lr_scale"]
    return "" if scale == 1 else f" ({scale:g} times that for the trunk)"
