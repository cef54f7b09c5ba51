"""What the record of a fine-tuning says of weights and data, and the model card filled from it."""

from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCardData

from emfm.data.examples import Examples
from emfm.hub.card import HERE, TEMPLATES, UNKNOWN_LICENSE, dataset_slug, fill_card, model_card_data
from emfm.loading.names import locate, zoo_id
from emfm.tasks import TASKS


def short_name(start: str) -> str:
    """Return a zoo name or Hub id as it is, and the name of a folder without its path."""
    return Path(start).resolve().name if start and Path(start).is_dir() else start


def base_model(start: str) -> str | None:
    """Return the Hub id of the weights it started from; None for random ones and for a folder."""
    if not start or Path(start).is_dir():
        return None
    return zoo_id(start) if Path(locate(start)).is_dir() else locate(start)


def dataset_id(data: str) -> str | None:
    """Return the id of a data set of the Hub; None of a folder."""
    if data.count("/") != 1 or data.startswith((".", "/", "~")) or Path(data).exists():
        return None
    return data


def trained_on_too(trained: object, held_out: Examples) -> int:
    """Return how many validation micrographs were trained on: some, if few images serve as both."""
    if not isinstance(trained, Examples):
        return 0
    shown = held_out.images
    if trained.degrade is not None:  # of pairs that damage made the target is the micrograph
        shown = [held_out.truth(index) for index in range(len(held_out))]
    return sum(any(np.may_share_memory(image, other) for other in trained.images) for image in shown)


def finetuned_card(record: dict[str, Any]) -> str:
    """Return the README.md of a fine-tuned model, from the record that `finetune` returned."""
    task = TASKS[record["task"]]
    template = TEMPLATES / "finetuned_card.md"
    table = task.card_table(record["best"])
    words = {"run": record, "words": task.card, "place": HERE, "table": table, **_left_out(record)}
    return fill_card(template, _header(record), **words)


def _left_out(record: dict[str, Any]) -> dict[str, Any]:
    """Return what the card says of the micrographs that were left out once."""
    left, task = record.get("left_out"), TASKS[record["task"]]
    if left is None:
        return {"left": None}
    shown = next(figure for figure in task.figures if figure.name == record["figure_of_merit"])
    values = [value for value in left["each"].values() if value is not None]
    return {
        "left": left,
        "left_table": task.card_table(left["figures"]),
        "heading": shown.heading,
        "form": f"%{shown.form}",
        "worst": min(values, default=None),
        "best": max(values, default=None),
    }


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
