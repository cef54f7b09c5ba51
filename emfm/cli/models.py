"""Verbs about models: what there is, what is known of it, whether it is whole, and giving it to others."""

import json
from typing import Annotated, Any

import typer

from emfm.cli.application import Json, app
from emfm.cli.options import takes
from emfm.hub.arguments import PushArguments


@app.command("list")
def list_command(as_json: Json = False) -> None:
    """List the pretrained models."""
    from emfm.hub.zoo import list_models

    models = list_models()
    if as_json:
        return typer.echo(json.dumps([info.to_dict() for info in models], indent=1))
    heading = f"{'name':<20}{'parameters':>12}{'receptive field':>18}{'size':>10}  {'pixel sizes':<16}{'data licences'}"
    typer.echo(heading)
    for info in models:
        typer.echo(
            f"{info.name:<20}{info.parameters:>12,}{info.receptive_field:>15} px{info.size / 1e6:>7.2f} MB  "
            f"{info.shown_pixel_sizes():<16}{', '.join(info.data_licenses)}"
        )
        for line in (f"in: {info.place}", *map(str, info.headlines)):
            typer.echo(f"    {line}")


@app.command()
def info(model: Annotated[str, typer.Argument(help="Zoo name, folder or Hub id.")], as_json: Json = False) -> None:
    """Show what is known of a model."""
    from emfm.hub.zoo import model_info, zoo_names

    zoo = model_info(model) if model in zoo_names() else None
    facts = {"model": model, **(_zoo_facts(zoo) if zoo else _model_facts(model))}
    if as_json:
        return typer.echo(json.dumps(facts, indent=1))
    if zoo:
        facts |= {"data": list(map(str, zoo.data)), "metrics": list(map(str, zoo.metrics)), "hours": f"{zoo.hours:.2f}"}
    for name, value in facts.items():
        lines = [str(entry) for entry in value] if isinstance(value, list) else [str(value)]
        lines = [f"{key}: {entry}" for key, entry in value.items()] if isinstance(value, dict) else lines
        typer.echo(f"{name + ':':<18}" + f"\n{'':<18}".join(lines or ["none"]))


def _zoo_facts(zoo: Any) -> dict[str, Any]:
    """Return the facts of a model of the zoo; its weights are not loaded."""
    return {"class": "EMFoundation", "generator": zoo.name, "norm": zoo.pretraining["norm"], **zoo.to_dict()}


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
    model: Annotated[str, typer.Argument(help="Zoo name, folder or Hub id.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    as_json: Json = False,
) -> None:
    """Compare a model's files with their checksums, recompute its stored test output and compare."""
    from emfm.hub.verify import verify as verify_model
    from emfm.loading.names import model_folder
    from emfm.tasks import load_model

    folder = model_folder(model, revision=revision)
    difference = verify_model(load_model(folder), folder)
    if as_json:
        return typer.echo(json.dumps({"model": model, "difference": difference}))
    typer.echo(f"{model}: verified, largest difference {difference:.2g}")


@app.command()
@takes(PushArguments, arguments=("repo_id",))
def push(
    folder: Annotated[str, typer.Argument(help="Model folder, as finetune and pretrain leave it.")],
    given: dict[str, Any],
    as_json: Json = False,
) -> None:
    """Verify a model and push it to the Hub in one commit; the token is that of `hf auth login` or of HF_TOKEN."""
    where = PushArguments(**given)

    from emfm.hub.push import push_folder
    from emfm.tasks import load_model

    address = push_folder(load_model(folder), folder, where)
    typer.echo(json.dumps({"repo_id": where.repo_id, "commit": address}) if as_json else f"pushed: {address}")
