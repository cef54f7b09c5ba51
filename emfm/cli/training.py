"""Verbs that train."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from emfm.cli.application import Json, answer, app, figures
from emfm.cli.options import takes
from emfm.cli.words import UsageError
from emfm.demo import DemoArguments
from emfm.finetuning.arguments import FinetuneArguments, task_names
from emfm.pretraining.arguments import RECIPES, PretrainArguments, from_recipe

OF_A_RECIPE = tuple(RECIPES["paper"])
RECIPE_HELP = f"{' or '.join(RECIPES)}; it decides {', '.join(OF_A_RECIPE)} where they are not given."


class TaskCommand(TyperCommand):
    """A verb whose help names the tasks, which are imported, in seconds, only to be shown."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        self._name_tasks()
        super().format_help(ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words of the command line; the error of a missing task names them all."""
        try:
            return super().parse_args(ctx, args)
        except UsageError:
            self._name_tasks()
            raise

    def _name_tasks(self) -> None:
        for parameter in self.params:
            if parameter.name == "task":
                parameter.help = ", ".join(task_names())  # type: ignore[attr-defined]


@app.command()
@takes(PretrainArguments, unset=OF_A_RECIPE)
def pretrain(
    given: dict[str, Any],
    recipe: Annotated[str, typer.Option(help=RECIPE_HELP)] = "emfm",
    as_json: Json = False,
) -> None:
    """Pretrain a generator on unlabelled micrographs. Ctrl-C and SIGTERM save the run and leave."""
    arguments = PretrainArguments(**from_recipe(recipe, given))

    from emfm.pretraining.pretrain import pretrain as run

    folder = run(arguments)
    result = {"model": str(folder)}
    if as_json:
        record = json.loads((folder / "config.json").read_text())["pretraining"]
        result |= {**record["validation"], "seconds": record["seconds"]}
    answer(as_json, result, f"pretrained model: {folder}")


@app.command(cls=TaskCommand)
@takes(FinetuneArguments)
def finetune(given: dict[str, Any], as_json: Json = False) -> None:
    """Fine-tune a model; the best by validation is kept."""
    arguments = FinetuneArguments(**given)

    from emfm.finetuning.finetune import finetune as run
    from emfm.finetuning.left_out import told

    record = run(arguments)
    best = record["best"]
    chosen = f"at step {best['step']}"
    if best[record["figure_of_merit"]] is None:
        chosen = f"(no figure could choose: the last weights were kept, of step {best['step']})"
    left = record["left_out"]
    text = "" if left is None else f"{told(left, record['figure_of_merit'])}; "
    text += f"validation {figures(best)} {chosen}; model: {arguments.output}"
    answer(as_json, record, text, indent=1)


@app.command()
@takes(DemoArguments)
def demo(given: dict[str, Any], as_json: Json = False) -> None:
    """Compare a bundled network, the same from scratch and a random forest, and write a report."""
    from emfm.demo.run import run_demo

    summary = run_demo(Path(given.pop("output")), **given)
    answer(as_json, summary, summary["table"], indent=1)
