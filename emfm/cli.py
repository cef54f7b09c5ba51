"""The command line: one verb a job. Wrong input answers with one line and exit code 2."""

import json
import logging
import os
import sys
import warnings
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from emfm.errors import EMError

app = typer.Typer(
    name="emfm",
    help="Foundation models for electron microscopy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


class Precision(StrEnum):
    """Number format of training."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


@app.command("list")
def list_command(as_json: Json = False) -> None:
    """List the pretrained models."""
    from emfm.hub.zoo import list_models

    models = list_models()
    if as_json:
        return typer.echo(json.dumps([asdict(info) for info in models], indent=1))
    typer.echo(f"{'name':<20}{'parameters':>12}{'receptive field':>18}{'size':>10}")
    for info in models:
        typer.echo(f"{info.name:<20}{info.parameters:>12,}{info.receptive_field:>15} px{info.size / 1e6:>7.1f} MB")


@app.command()
def info(model: Annotated[str, typer.Argument(help="Zoo name, folder or Hub id.")], as_json: Json = False) -> None:
    """Show what is known of a model."""
    from emfm.tasks import load_model

    loaded = load_model(model)
    facts: dict[str, Any] = {
        "model": model,
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
    if as_json:
        return typer.echo(json.dumps(facts, indent=1))
    for name, value in facts.items():
        typer.echo(f"{name + ':':<18}{json.dumps(value) if isinstance(value, dict) else value}")


@app.command()
def verify(
    model: Annotated[str, typer.Argument(help="Zoo name, folder or Hub id.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    as_json: Json = False,
) -> None:
    """Compare a model's files with their checksums, recompute its stored test output and compare."""
    from emfm.hub.verify import model_folder
    from emfm.hub.verify import verify as verify_model
    from emfm.tasks import load_model

    folder = model_folder(model, revision)
    difference = verify_model(load_model(folder), folder)
    if as_json:
        return typer.echo(json.dumps({"model": model, "difference": difference}))
    typer.echo(f"{model}: verified, largest difference {difference:.2g}")


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
    generator: Annotated[str, typer.Option(help="Generator name.")] = "unet4-rf200",
    norm: Annotated[str, typer.Option(help="Normalisation layers of a U-Net: instance or batch.")] = "instance",
    steps: Annotated[int, typer.Option(help="Training steps.")] = 20_000,
    batch_size: Annotated[int, typer.Option(help="Crops at a time on each process.")] = 16,
    gradient_accumulation_steps: Annotated[int, typer.Option(help="So many batches make one step.")] = 1,
    crop: Annotated[int, typer.Option(help="Side of a crop in pixels.")] = 224,
    corruption: Annotated[
        str,
        typer.Option(help="paper (blur, noise), dose (as a microscope), masked (paper, blocks hidden) or dose+masked."),
    ] = "paper",
    adversarial: Annotated[str, typer.Option(help="lsgan, vanilla, hinge or none.")] = "lsgan",
    discriminator_width: Annotated[int, typer.Option(help="Channels of the discriminator's first layer.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Constant for half of the steps, then linear to 0.")] = 2e-4,
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
    """Pretrain a generator on unlabelled micrographs (pix2pix). Ctrl-C and SIGTERM save the run and leave."""
    from emfm.training.pretrain import PretrainArguments
    from emfm.training.pretrain import pretrain as run

    settings = dict(locals())
    fields = {name: settings[name] for name in PretrainArguments.__dataclass_fields__ if name in settings}
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
    norm: Annotated[str, typer.Option(help="With --scratch, of a U-Net: instance or batch.")] = "instance",
    degrade: Annotated[
        str | None,
        typer.Option(help="Restoration: make pairs from clean images: dose, paper, downsample or background."),
    ] = None,
    scale: Annotated[
        int | None, typer.Option(help="Super-resolution: 2 or 4; by default what the pairs have, 2 to make pairs.")
    ] = None,
    class_weights: Annotated[
        str | None, typer.Option(help="Segmentation: 'balanced', or a number for each class, as in 0.5,2.")
    ] = None,
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
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest whole checkpoint.")] = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a model; the best by validation is kept."""
    from emfm.training.finetune import FinetuneArguments
    from emfm.training.finetune import finetune as run

    settings = dict(locals())
    fields = {name: settings[name] for name in FinetuneArguments.__dataclass_fields__ if name in settings}
    facts = run(FinetuneArguments(**{**fields, "precision": precision.value}))
    if as_json:
        return typer.echo(json.dumps(facts, indent=1))
    best = facts["best"]
    typer.echo(f"validation {_figures(best)} at step {best['step']}; model: {output}")


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="Fine-tuned model: folder or Hub id.")],
    data: Annotated[str, typer.Option(help="Folder with images/ and masks/ or targets/, or a dataset.")],
    split: Annotated[str, typer.Option(help="Which list of splits.json, or split of the dataset.")] = "test",
    degrade: Annotated[
        str | None, typer.Option(help="Restoration: make pairs from clean images, as in training.")
    ] = None,
    tile: Annotated[int, typer.Option(help="Side of a tile in pixels.")] = 1024,
    as_json: Json = False,
) -> None:
    """Measure a fine-tuned model on one split, beside an answer that needs no network."""
    from emfm.training.evaluate import evaluate as run

    result = run(model, data, split, tile, degrade)
    if as_json:
        return typer.echo(json.dumps(result, indent=1))
    for label, figures in result.get("per_class", {}).items():
        shown = [f"{name} {'absent' if value is None else f'{value:.4f}'}" for name, value in figures.items()]
        typer.echo(f"{label:<24}{'  '.join(shown)}")
    typer.echo(f"{'model':<24}{_figures(result)}  ({result['n']} images)")
    typer.echo(f"{'without a network':<24}{_figures(result['trivial'])}")
    if "data_range" in result:
        typer.echo(f"data range: {result['data_range']}")


def _figures(result: dict[str, Any]) -> str:
    """Return what there is of the figures of merit, with their names."""
    forms = {"dice": ".4f", "iou": ".4f", "boundary_f1": ".4f", "l1": ".4f", "psnr": ".2f", "ssim": ".4f"}
    return "  ".join(f"{name} {result[name]:{form}}" for name, form in forms.items() if name in result)


@app.command()
def predict(
    inputs: Annotated[list[str], typer.Argument(help="Micrograph files.", metavar="INPUT...")],
    model: Annotated[str, typer.Option(help="Model: zoo name, folder or Hub id.")],
    output: Annotated[str, typer.Option(help="Folder for the results.")],
    tile: Annotated[int, typer.Option(help="Side of a tile in pixels; smaller ones take less memory.")] = 1024,
    pixel_size: Annotated[float | None, typer.Option(help="nm per pixel, where the file does not say.")] = None,
    as_json: Json = False,
) -> None:
    """Predict micrographs: NAME.tif with the result and NAME_overlay.png to look at."""
    from emfm.inference.files import predict_files

    written = predict_files(model, [Path(path) for path in inputs], Path(output), tile, pixel_size)
    if as_json:
        return typer.echo(json.dumps(written, indent=1))
    for entry in written:
        typer.echo(f"{entry['input']} -> {entry['output']}, {entry['picture']}")


@app.command()
def push(
    folder: Annotated[str, typer.Argument(help="Model folder, as finetune and pretrain leave it.")],
    repo_id: Annotated[str, typer.Argument(help="Repository on the Hub: owner/name.")],
    private: Annotated[bool | None, typer.Option(help="Whether a new repository is private.")] = None,
    branch: Annotated[str | None, typer.Option(help="Branch to push to, made where it is missing.")] = None,
    tag: Annotated[str | None, typer.Option(help="Name for this revision, such as v1.0.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Propose the change instead of making it.")] = False,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    as_json: Json = False,
) -> None:
    """Verify a model and push it to the Hub in one commit; the token is that of `hf auth login` or of HF_TOKEN."""
    from emfm.hub.push import PushArguments, push_folder

    arguments = PushArguments(repo_id, private, branch, tag, create_pr, None, message)
    address = push_folder(folder, arguments)
    typer.echo(json.dumps({"repo_id": repo_id, "commit": address}) if as_json else f"pushed: {address}")


@app.command()
def simulate(
    kind: Annotated[str, typer.Argument(help="nanoparticles or atomic-stem")],
    output: Annotated[str, typer.Option(help="Folder for the images and their masks or targets.")],
    count: Annotated[int, typer.Option(help="How many micrographs.")] = 16,
    size: Annotated[int, typer.Option(help="Side in pixels.")] = 512,
    seed: Annotated[int, typer.Option(help="Decides every image.")] = 0,
) -> None:
    """Simulate micrographs with exact masks (a labelled folder) or targets (a folder of pairs for each task)."""
    from emfm.data.simulated_folder import write_simulated_folder

    folder = write_simulated_folder(kind, Path(output), count, (size, size), seed)
    typer.echo(f"{count} simulated micrographs: {folder}")


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


def main() -> None:
    """Run the command line; an EMError becomes one line on standard error and exit code 2."""
    _quieten()
    try:
        app()
    except EMError as error:
        sys.stderr.write(f"emfm: {' '.join(str(error).split())}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("emfm: stopped\n")
        sys.exit(130)


def _quieten() -> None:
    """Keep the libraries' own bars and advice off the terminal; their warnings stay in the log at level ERROR."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|accelerate)\..*")
    logging.basicConfig(level=logging.WARNING, format="emfm: %(message)s")


if __name__ == "__main__":
    main()
