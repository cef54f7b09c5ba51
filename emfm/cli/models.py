"""Verbs about models: list them, describe, verify and push one."""

from textwrap import wrap
from typing import Annotated, Any

import typer

from emfm.cli.application import Json, Model, answer, app
from emfm.cli.options import takes
from emfm.hub.arguments import PushArguments

WIDTH = 100  # of the lines of `emfm list`, in characters


@app.command("list")
def list_command(as_json: Json = False) -> None:
    """List the pretrained models."""
    from emfm.hub.zoo import list_models

    models = list_models()
    lines = [f"{'name':<28}{'parameters':>11}{'receptive field':>18}{'size':>10}  {'pixel sizes':<16}in"]
    for info in models:
        lines.append(
            f"{info.name:<28}{info.parameters:>11,}{info.receptive_field:>15} px"
            f"{info.size / 1e6:>7.2f} MB  {info.shown_pixel_sizes():<16}{info.place}"
        )
        first = [f"first to try for: {', '.join(info.recommended_for)}"] if info.recommended_for else []
        for told in (*first, f"data licences: {', '.join(info.data_licenses)}", *map(str, info.headlines)):
            lines += wrap(told, WIDTH, initial_indent="    ", subsequent_indent="        ")
    answer(as_json, [info.to_dict() for info in models], "\n".join(lines), indent=1)


@app.command()
def info(model: Model, as_json: Json = False) -> None:
    """Show what is known of a model."""
    from emfm.hub.zoo import model_info, zoo_names

    zoo = model_info(model) if model in zoo_names() else None
    facts = {"model": model, **(_zoo_facts(zoo) if zoo else _model_facts(model))}
    told = facts
    if zoo:
        data, metrics = list(map(str, zoo.data)), list(map(str, zoo.metrics))
        told = facts | {"data": data, "metrics": metrics, "hours": f"{zoo.hours:.2f}"}
    text = []
    for name, value in told.items():
        entries = [value]
        if isinstance(value, list):
            entries = value or ["none"]
        elif isinstance(value, dict):
            entries = [f"{key}: {entry}" for key, entry in value.items()] or ["none"]
        text.append(f"{name + ':':<18}" + f"\n{'':<18}".join(map(str, entries)))
    answer(as_json, facts, "\n".join(text), indent=1)


def _zoo_facts(zoo: Any) -> dict[str, Any]:
    """Return the facts of a model of the zoo; its weights are not loaded."""
    from emfm.tasks import TASKS

    saved_by = TASKS[zoo.task].__name__ if zoo.task else "EMFoundation"
    return {"class": saved_by, "generator": zoo.generator, "norm": zoo.pretraining["norm"], **zoo.to_dict()}


def _model_facts(model: str) -> dict[str, Any]:
    """Return the facts of any other model, with those of the zoo where its folder holds them."""
    from emfm.hub.zoo import FACTS, read_facts
    from emfm.loading.names import model_folder
    from emfm.tasks import load_model

    folder = model_folder(model)
    loaded = load_model(folder)
    facts: dict[str, Any] = {
        "class": type(loaded).__name__,
        "generator": loaded.config.generator,
        "parameters": loaded.num_parameters(),
        "receptive_field": loaded.receptive_field,
        "norm": loaded.config.norm,
        "pixel_size_range": loaded.config.pixel_size_range,
        "pretraining": loaded.config.pretraining,
    }
    if loaded.classes is not None:
        facts["classes"] = list(loaded.classes.values())
    return facts | (_zoo_facts(read_facts(folder)) if (folder / FACTS).is_file() else {})


@app.command()
def verify(
    model: Model,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    as_json: Json = False,
) -> None:
    """Compare a model's files with their checksums, and its output with the stored one."""
    from emfm.hub.verify import verify as run
    from emfm.loading.names import model_folder
    from emfm.tasks import load_model

    folder = model_folder(model, revision=revision)
    difference = run(load_model(folder), folder)
    text = f"{model}: verified, largest difference {difference:.2g}"
    answer(as_json, {"model": model, "difference": difference}, text)


@app.command()
@takes(PushArguments)
def push(
    folder: Annotated[str, typer.Argument(help="Model folder, as finetune and pretrain leave it.")],
    given: dict[str, Any],
    as_json: Json = False,
) -> None:
    """Verify a model and push it in one commit, with the token of HF_TOKEN or `hf auth login`."""
    where = PushArguments(**given)

    from emfm.hub.push import push_folder
    from emfm.tasks import load_model

    address = push_folder(load_model(folder), folder, where)
    answer(as_json, {"repo_id": where.repo_id, "commit": address}, f"pushed: {address}")
