"""Verbs that train."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from emfm.cli.application import Json, app, figures
from emfm.defaults import DEFAULT_GENERATOR


class Precision(StrEnum):
    """Number format of training."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


@app.command()
def pretrain(
    data: Annotated[
        list[str],
        typer.Option(
            help="Folder of micrographs or of parquet files, or id of a Hub dataset; may be given several times."
        ),
    ],
    output: Annotated[str, typer.Option(help="Folder of the run.")],
    weight: Annotated[
        list[float] | None,
        typer.Option(help="Share of each --data among the crops, in their order; by default its size."),
    ] = None,
    num_images: Annotated[
        int | None, typer.Option(help="How many micrographs to train on, drawn by the seed; all by default.")
    ] = None,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="Read datasets as they come, without downloading them first.")
    ] = False,
    generator: Annotated[str, typer.Option(help="Generator name.")] = DEFAULT_GENERATOR,
    norm: Annotated[str, typer.Option(help="Norm of a generator that has the choice: instance or batch.")] = "instance",
    steps: Annotated[int, typer.Option(help="Training steps.")] = 20_000,
    batch_size: Annotated[int, typer.Option(help="Crops at a time on each process.")] = 16,
    gradient_accumulation_steps: Annotated[int, typer.Option(help="So many batches make one step.")] = 1,
    crop: Annotated[int, typer.Option(help="Side of a crop in pixels.")] = 224,
    recipe: Annotated[
        str, typer.Option(help="What the next six are unless they are given: emfm (measured best) or paper.")
    ] = "emfm",
    corruption: Annotated[
        str | None,
        typer.Option(help="paper (blur, noise), dose (as a microscope), masked (paper, blocks hidden) or dose+masked."),
    ] = None,
    filters: Annotated[
        bool | None, typer.Option(help="Learn what hand-made filters see in the clean micrograph, too.")
    ] = None,
    structures: Annotated[
        int | None,
        typer.Option(help="Beside each batch, crops of simulated structures, whose regions are learnt, too."),
    ] = None,
    residual: Annotated[
        bool | None,
        typer.Option(help="Restore by changing the input; by default where the trunk has no path at full resolution."),
    ] = None,
    adversarial: Annotated[str | None, typer.Option(help="lsgan, vanilla, hinge or none.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Constant for half of the steps, then linear to 0.")
    ] = None,
    discriminator_width: Annotated[int, typer.Option(help="Channels of the discriminator's first layer.")] = 64,
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    compile: Annotated[
        bool, typer.Option("--compile", help="Let torch.compile fuse the networks' operations.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(help="Processes that cut crops; by default none on a CPU, up to 8 beside a GPU.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides weights, crops and damage.")] = 0,
    save_steps: Annotated[int, typer.Option(help="Steps between validation, picture and checkpoint.")] = 1000,
    save_total_limit: Annotated[int, typer.Option(help="Checkpoints that are kept.")] = 3,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest whole checkpoint.")] = False,
    as_json: Json = False,
) -> None:
    """Pretrain a generator on unlabelled micrographs. Ctrl-C and SIGTERM save the run and leave."""
    settings = dict(locals())
    from emfm.pretraining.arguments import from_recipe
    from emfm.pretraining.pretrain import PretrainArguments
    from emfm.pretraining.pretrain import pretrain as run

    chosen = from_recipe(recipe, settings)
    fields = {name: chosen[name] for name in PretrainArguments.__dataclass_fields__ if name in chosen}
    folder = run(PretrainArguments(**{**fields, "data": tuple(data), "weights": tuple(weight) if weight else None}))
    if as_json:
        facts = json.loads((folder / "config.json").read_text())["pretraining"]
        return typer.echo(json.dumps({"model": str(folder), **facts["validation"], "seconds": facts["seconds"]}))
    typer.echo(f"pretrained model: {folder}")


@app.command()
def finetune(
    task: Annotated[str, typer.Argument(help="segmentation, denoising, super-resolution or background-removal")],
    data: Annotated[
        str, typer.Option(help="Folder with images/ and masks/ or targets/, or a dataset: parquet folder or Hub id.")
    ],
    output: Annotated[str, typer.Option(help="Folder of the finished model.")],
    model: Annotated[str | None, typer.Option(help="Pretrained model: zoo name, folder or Hub id.")] = None,
    scratch: Annotated[str | None, typer.Option(help="Generator name: start from random weights.")] = None,
    norm: Annotated[str, typer.Option(help="With --scratch, if it has the choice: instance or batch.")] = "instance",
    degrade: Annotated[
        str | None,
        typer.Option(help="Restoration: make pairs from clean images: dose, paper, downsample or background."),
    ] = None,
    scale: Annotated[
        int | None, typer.Option(help="Super-resolution: 2 or 4; by default what the pairs have, 2 to make pairs.")
    ] = None,
    class_weights: Annotated[
        str,
        typer.Option(
            help="Segmentation: balanced (the inverse of a class's share of the pixels), root (its square root), "
            "none, or a number for each class, as in 0.5,2."
        ),
    ] = "root",
    num_images: Annotated[int | None, typer.Option(help="How many training images to use; all by default.")] = None,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="Read a dataset as it comes, without downloading it first.")
    ] = False,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 300,
    batch_size: Annotated[int, typer.Option(help="Crops at a time on each process.")] = 8,
    gradient_accumulation_steps: Annotated[int, typer.Option(help="So many batches make one step.")] = 1,
    crop: Annotated[int, typer.Option(help="Side of a crop in pixels, of the target's.")] = 256,
    learning_rate: Annotated[float, typer.Option(help="Peak of the cosine schedule.")] = 1e-3,
    backbone_lr_scale: Annotated[float, typer.Option(help="The trunk's rate, as a share of the head's.")] = 1.0,
    freeze: Annotated[
        str,
        typer.Option(help="What does not learn: none, encoder, all-but-head, last:K (all but the last K blocks)."),
    ] = "none",
    lora: Annotated[int, typer.Option(help="Rank of LoRA's additions to a frozen trunk; 0 is without.")] = 0,
    merge: Annotated[bool, typer.Option("--merge", help="Save LoRA's additions merged into the weights.")] = False,
    early_stopping: Annotated[
        int, typer.Option(help="Stop after so many evaluations without a better one; 0 never.")
    ] = 0,
    intensity_jitter: Annotated[
        float, typer.Option(help="Random change of a crop's contrast and brightness; 0 is none.")
    ] = 0.2,
    precision: Annotated[Precision, typer.Option(help="auto: bf16 where the hardware has it.")] = Precision.AUTO,
    workers: Annotated[
        int | None, typer.Option(help="Processes that cut crops; by default none on a CPU, up to 8 beside a GPU.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides new weights, images and crops.")] = 0,
    license: Annotated[
        str | None, typer.Option(help="Of the finished weights, for the card, as the Hub names it: cc-by-4.0.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest whole checkpoint.")] = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a model; the best by validation is kept."""
    from emfm.finetuning.finetune import FinetuneArguments
    from emfm.finetuning.finetune import finetune as run

    settings = dict(locals())
    fields = {name: settings[name] for name in FinetuneArguments.__dataclass_fields__ if name in settings}
    facts = run(FinetuneArguments(**{**fields, "precision": precision.value}))
    if as_json:
        return typer.echo(json.dumps(facts, indent=1))
    best = facts["best"]
    typer.echo(f"validation {figures(best)} at step {best['step']}; model: {output}")


@app.command()
def demo(
    output: Annotated[str, typer.Option(help="Folder for the report.")] = "demo_output",
    data: Annotated[str | None, typer.Option(help="Labelled folder to use instead of simulated micrographs.")] = None,
    steps: Annotated[int, typer.Option(help="Training steps of each model.")] = 120,
    seed: Annotated[int, typer.Option(help="Decides everything.")] = 0,
    as_json: Json = False,
) -> None:
    """Fine-tune the bundled model and the same network from scratch, compare, and write a report."""
    from emfm.demo.run import run_demo

    summary = run_demo(Path(output), data, steps, seed)
    typer.echo(json.dumps(summary, indent=1) if as_json else summary["table"])
