"""Fine-tuning from micrographs with masks or targets to a finished model folder: weights, processor, curve, card."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from transformers import set_seed

from emfm.config import EMFoundationConfig
from emfm.data.examples import CleanMicrographs, Examples, LabelledMicrographs, PairedMicrographs
from emfm.data.streamed_examples import StreamedExamples
from emfm.errors import EMError
from emfm.files import write_text
from emfm.finetuning.arguments import FinetuneArguments
from emfm.finetuning.evaluate import load_examples
from emfm.finetuning.record import run_facts
from emfm.finetuning.trainer import EMTrainer
from emfm.finetuning.trainer_arguments import EMTrainingArguments
from emfm.finetuning.trainer_state import checkpoints
from emfm.hub.verify import write_test_tensors
from emfm.loading.download import model_folder
from emfm.tasks import TASKS
from emfm.tasks.restoration import EMForImageRestoration
from emfm.tasks.task import EMTaskModel
from emfm.training.curves import plot_curves
from emfm.training.workers import worker_count

logger = logging.getLogger(__name__)
# Of a stream so many micrographs are read for validation.
STREAM_VALIDATION = 32
# A class's weight is the inverse of its share of the pixels to this power. The root keeps a rare class from being given
# up in the first steps, and does not invent it as full balance does: see docs/findings.md.
CLASS_WEIGHTS = {"root": 0.5, "balanced": 1.0}
# Written last: a folder with it is finished.
FACTS = "finetuning.json"


def read_splits(args: FinetuneArguments) -> tuple[Examples | StreamedExamples, Examples]:
    """Return training and validation micrographs.

    Without a "validation" split a fifth of the training split is held out; with fewer than five training micrographs
    they serve for both, and a warning says so. Of a stream the first micrographs of "validation" are read.
    """
    task = TASKS[args.task]
    training = load_examples(task, args.data, "train", args.degrade, args.scale, args.streaming)
    if args.streaming:
        held_out = load_examples(task, args.data, "validation", args.degrade, args.scale, True)
        return training, held_out.take(STREAM_VALIDATION)
    try:
        validation = load_examples(task, args.data, "validation", args.degrade, args.scale)
    except EMError as error:
        if "split" not in str(error):
            raise
        training, validation = _held_out(training, args)
    if args.num_images is not None:
        training = training.take(args.num_images, args.seed)
    return training, validation


def _held_out(training: Examples, args: FinetuneArguments) -> tuple[Examples, Examples]:
    held_out = max(1, len(training) // 5)
    if len(training) < 5:
        logger.warning(
            "%s has no validation split and few images: the best step is chosen on the training images", args.data
        )
        return training, training
    shuffled = training.take(len(training), args.seed)
    return shuffled.part(held_out, len(shuffled)), shuffled.part(0, held_out)


def build_model(args: FinetuneArguments, data: Examples) -> EMTaskModel:
    """Return the task model with pretrained or random trunk; the seed decides the new weights.

    Where the arguments do not say, restoration predicts the difference to its input, which super-resolution enlarges
    first. A pretrained U-Net alone goes on drawing the image itself for denoising and background removal, as it learnt
    to. These choices measured best on held-out micrographs, see docs/finetuning.md. Without a path at full resolution
    an HRNet takes far longer to draw the image itself.

    Args:
        args: of the run.
        data: training micrographs, or an empty sample of a stream: classes and scale are theirs.
    """
    set_seed(args.seed)
    task = TASKS[args.task]
    fields: dict[str, Any] = {"residual": False}
    if isinstance(data, LabelledMicrographs):
        fields["id2label"] = data.id2label
        fields["class_weights"] = _class_weights(args.class_weights, data)
    if issubclass(task, EMForImageRestoration):
        fields["residual"] = _adds_to_input(args) if args.residual is None else args.residual
    if args.task == "super-resolution" and isinstance(data, (PairedMicrographs, CleanMicrographs)):
        if data.scale == 1:
            raise EMError(f"the targets of {args.data} have the size of their images: nothing to enlarge")
        fields["scale"] = data.scale
    if args.scratch is None:
        return task.from_pretrained(args.model, **fields)
    norm = {} if args.scratch.startswith("hrnet") else {"norm": args.norm}
    return task(EMFoundationConfig.from_name(args.scratch, **fields, **norm))


def _adds_to_input(args: FinetuneArguments) -> bool:
    if args.scratch is not None or args.task == "super-resolution":
        return True
    config = EMFoundationConfig.from_pretrained(model_folder(str(args.model)))
    # a model that was fine-tuned in this way before goes on so
    return config.residual or config.backbone == "hrnet"


def _class_weights(given: str, data: LabelledMicrographs) -> list[float] | None:
    """Return a weight for each class; None for equal ones, as by default on a stream, whose pixels nobody counts."""
    if given == "none" or (given == "root" and not len(data)):
        return None
    if given in CLASS_WEIGHTS:
        if not len(data):
            raise EMError("class weights of a stream cannot be counted: give a number for each class")
        return data.balanced_weights(CLASS_WEIGHTS[given])
    try:
        return [float(weight) for weight in given.split(",")]
    except ValueError as error:
        expected = f"{', '.join(CLASS_WEIGHTS)}, none, or numbers like 0.5,2"
        raise EMError(f"class weights are '{given}'; expected {expected} ({error})") from error


def _training_arguments(args: FinetuneArguments, show_progress: bool) -> EMTrainingArguments:
    same = ["gradient_accumulation_steps", "crop", "learning_rate", "backbone_lr_scale", "freeze", "lora"]
    same += ["early_stopping", "intensity_jitter", "precision", "seed"]
    return EMTrainingArguments(
        output_dir=args.output,
        max_steps=args.steps,
        per_device_train_batch_size=args.batch_size,
        dataloader_num_workers=worker_count(args.workers),
        disable_tqdm=not show_progress,
        **{name: getattr(args, name) for name in same},
    )


def finetune(args: FinetuneArguments, show_progress: bool = True) -> dict[str, Any]:
    """Fine-tune and write a model folder; returns the facts that also stand in its `finetuning.json`.

    Raises:
        EMError: wrong settings, data or model, or an output folder that already holds a model.
    """
    output = Path(args.output)
    resuming = args.resume and bool(checkpoints(output))
    if not resuming and (output / "config.json").exists():
        raise EMError(f"{output} holds a model already: choose another --output, or --resume a run that was stopped")
    if (output / FACTS).exists():
        raise EMError(f"{output} holds a finished model: choose another --output")
    training, validation = read_splits(args)
    model = build_model(args, training.like if isinstance(training, StreamedExamples) else training)
    trainer = EMTrainer(model, _training_arguments(args, show_progress), training, validation)
    trainer.train(resume_from_checkpoint=resuming)
    facts = run_facts(trainer, args.data, args.license)
    if trainer.is_world_process_zero():
        _write_folder(trainer, args, facts)
    return facts


def _write_folder(trainer: EMTrainer, args: FinetuneArguments, facts: dict[str, Any]) -> None:
    """Complete the folder that the trainer began; checkpoints have served."""
    output = Path(args.output)
    if args.merge:
        trainer.merge_adapter()
        trainer.save_model(str(output))
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (output / name).unlink()
    trainer.create_model_card(args.data, args.license)
    # of the model as users will load it, additions of LoRA merged
    write_test_tensors(TASKS[args.task].from_pretrained(output), output)
    plot_curves({facts["start"]: trainer.curve}, output / "curve.png", TASKS[args.task].figure_of_merit)
    write_text(output / FACTS, json.dumps(facts, indent=1))
    for checkpoint in checkpoints(output):
        shutil.rmtree(checkpoint)
