"""The card of a fine-tuned model: a template, filled from the record of its run and from its task."""

from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from emfm.hub.card import HERE, UNKNOWN_LICENSE, dataset_slug, model_card_data
from emfm.hub.rendering import TEMPLATES, fill_card
from emfm.tasks import TASKS


def finetuned_card(record: dict[str, Any]) -> str:
    """Return the README.md of a fine-tuned model, from the record that `finetune` returned."""
    task = TASKS[record["task"]]
    template = TEMPLATES / "finetuned_card.md"
    table = task.card_table(record["best"])
    return fill_card(template, _header(record), run=record, words=task.card, place=HERE, table=table)


def _header(record: dict[str, Any]) -> ModelCardData:
    fields: dict[str, Any] = {"license": record["license"] or UNKNOWN_LICENSE}
    if record["base_model"]:
        # the Hub's words: an adapter needs the weights of its base model
        relation = "adapter" if record["adapter"] else "finetune"
        fields |= {"base_model": record["base_model"], "base_model_relation": relation}
    if record["dataset_id"]:
        fields["datasets"] = [record["dataset_id"]]
    return model_card_data(
        **fields,
        pipeline_tag=TASKS[record["task"]].card.pipeline_tag,
        tags=[record["task"]],
        model_name=f"{record['generator']} on {record['data']}",
        eval_results=_evaluations(record),
    )


def _evaluations(record: dict[str, Any]) -> list[EvalResult]:
    """Return the best figures in the form that the Hub shows beside a card."""
    best, task = record["best"], TASKS[record["task"]]
    return [
        EvalResult(
            task_type=task.card.pipeline_tag,
            task_name=record["task"],
            dataset_type=record["dataset_id"] or dataset_slug(record["data"]),
            dataset_name=record["data"],
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
