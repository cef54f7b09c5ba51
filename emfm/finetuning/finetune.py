"""Fine-tuning from labelled micrographs to a finished folder: weights, processor, curve, card."""

import json
import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from transformers import TrainerCallback, set_seed

from emfm.config import EMFoundationConfig
from emfm.data.classes import read_json_object
from emfm.data.examples import CleanMicrographs, Examples
from emfm.data.labelled_folder import TRUTHS
from emfm.data.noisy import NoisyMicrographs, load_noisy
from emfm.data.streamed_examples import StreamedExamples
from emfm.errors import EMError, MissingSplitError
from emfm.files import writable_folder, write_atomically, write_text
from emfm.finetuning.arguments import FinetuneArguments
from emfm.finetuning.budget import steps_within
from emfm.finetuning.card import short_name
from emfm.finetuning.left_out import Fold, folds_of, left_out, note_left_out, steps_of
from emfm.finetuning.start import learning_rate, pretrained_start
from emfm.finetuning.trainer import EMTrainer
from emfm.finetuning.trainer_arguments import EMTrainingArguments
from emfm.finetuning.trainer_state import RECORDED, checkpoints_of
from emfm.hub.verify import write_test_tensors
from emfm.io.reading import FileChoice
from emfm.loading.model_files import PUBLISHED, RECORD
from emfm.settings import flag_of, settings_of
from emfm.tasks import TASKS
from emfm.tasks.task import EMTaskModel, ModelChoices
from emfm.training.machine import check_shared_memory, worker_count

logger = logging.getLogger(__name__)
SERVE_AS_BOTH = 4  # of so few images none is held out
STREAM_VALIDATION = 32  # so many micrographs of a stream are read for validation


def read_splits(args: FinetuneArguments) -> tuple[Examples | StreamedExamples, Examples]:
    """Return training and validation micrographs.

    Without a "validation" split a fifth of the training split is held out, slices of a stack
    together; fewer than five serve as both, with a warning. Where each is left out once, all train,
    and the first few serve as both. Of a stream the first micrographs of "validation" are read.
    """
    if args.self_supervised:
        return _noisy_splits(args)
    task = TASKS[args.task]
    load = partial(task.load, degrade=args.degrade, scale=args.scale, streaming=args.streaming)
    load = partial(load, choice=FileChoice(args.dataset, args.colour))
    training = load(args.data, "train")
    try:
        validation = load(args.data, "validation")
    except MissingSplitError:
        if args.streaming:
            raise
        training, validation = _held_out(training, args)
    else:
        if args.leave_one_out:
            raise EMError(f"{args.data} has a validation split, which measures: leave --leave-one-out out")
    if args.streaming:
        return training, validation.take(STREAM_VALIDATION)
    training, validation = training.without(args.nodata), validation.without(args.nodata)
    training, validation = (_at_dose(part, args.dose) for part in (training, validation))
    if args.num_images is not None:
        training = training.take(args.num_images, args.seed)
    return training, validation


def _noisy_splits(args: FinetuneArguments) -> tuple[Examples, Examples]:
    """Return noisy micrographs to learn from; nothing measures how clean they become."""
    training = load_noisy(args.data, "train", args.noise, FileChoice(args.dataset, args.colour)).without(args.nodata)
    if args.num_images is not None:
        training = training.take(args.num_images, args.seed)
    return training, training.corner() if isinstance(training, NoisyMicrographs) else training.part(0, 1)


def _at_dose(data: Examples, dose: tuple[float, float] | None) -> Examples:
    """Return clean micrographs that are damaged at other doses than the usual."""
    if dose is None or not isinstance(data, CleanMicrographs):
        return data
    return replace(data, degradation=replace(data.degradation, dose=dose))


def _held_out(training: Examples, args: FinetuneArguments) -> tuple[Examples, Examples]:
    if args.leave_one_out:
        return training, training.part(0, min(SERVE_AS_BOTH, len(training)))
    if len(training) <= SERVE_AS_BOTH:
        message = (
            "%s has no validation split and few images: the best step is chosen on those; how good it is on "
            "others, --leave-one-out measures"
        )
        logger.warning(message, args.data)
        return training, training
    return training.held_out(args.seed)


def build_model(args: FinetuneArguments, data: Examples) -> EMTaskModel:
    """Return the task model with pretrained or random trunk; the seed decides the new weights.

    Classes and scale are those of `data`: training micrographs, or an empty sample of a stream.
    """
    set_seed(args.seed)
    task = TASKS[args.task]
    fields = task.fields_for(data, _choices(args))
    if args.scratch is None:
        assert args.model is not None
        return pretrained_start(task, args.model, fields)
    if args.norm is not None:
        fields["norm"] = args.norm
    return task(EMFoundationConfig.from_name(args.scratch, **fields))


def _choices(args: FinetuneArguments) -> ModelChoices:
    all_scales = True if args.steps == 0 and args.all_scales is None else args.all_scales
    return ModelChoices(args.data, args.model, args.residual, args.class_weights, all_scales)


def _check_task_settings(args: FinetuneArguments) -> None:
    """Raise an EMError where a setting is given that the task has no use for."""
    others = {name for task in TASKS.values() for name in task.own_settings} - set(TASKS[args.task].own_settings)
    for known in settings_of(FinetuneArguments):
        if known.name in others and getattr(args, known.name) != known.default:
            takers = ", ".join(name for name, task in TASKS.items() if known.name in task.own_settings)
            raise EMError(f"{flag_of(known)} is for {takers}; {args.task} has no use for it: leave it out")


def _training_arguments(args: FinetuneArguments, show_progress: bool, **others: Any) -> EMTrainingArguments:
    """Return the trainer's settings; `others` take the place of those that `args` say."""
    same = ["gradient_accumulation_steps", "crop", "learning_rate", "backbone_lr_scale", "freeze", "lora"]
    same += ["early_stopping", "intensity_jitter", "augment", "precision", "seed"]
    settings = {name: getattr(args, name) for name in same} | {
        "output_dir": args.output,
        "max_steps": args.steps,
        "per_device_train_batch_size": args.batch_size,
        "dataloader_num_workers": worker_count(args.workers),
        "disable_tqdm": not show_progress,
    }
    return EMTrainingArguments(**{**settings, **others})


def _measure_left_out(args: FinetuneArguments, trainer: EMTrainer, folds: tuple[str, list[Fold]]) -> None:
    """Train without each of the micrographs, and note what that says of the trainer's model."""
    steps = steps_of(trainer.args.max_steps, len(folds[1]))

    def run(fold: Fold) -> tuple[dict[str, Any], float]:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            once = {"eval_steps": max(1, steps), "eval_on_start": False, "save_strategy": "no", "early_stopping": 0}
            arguments = _training_arguments(args, False, output_dir=folder, max_steps=steps, **once)
            short = EMTrainer(build_model(args, fold.training.like), arguments, fold.training, fold.measured)
            short.train()
            return short.curve[-1], short.model.config.temperature

    note_left_out(trainer, left_out(*folds, steps, trainer.model.figure_of_merit, run))


def finetune(
    args: FinetuneArguments, show_progress: bool = True, callbacks: Sequence[TrainerCallback] = ()
) -> dict[str, Any]:
    """Fine-tune and write a model folder; returns the run's record, as in `finetuning.json`.

    Args:
        args: the settings.
        show_progress: show a bar.
        callbacks: of transformers, for programs that show the run or end it early; the best weights
            until then are written.

    Raises:
        EMError: wrong settings, data or model, or an output folder that already holds a model.
    """
    _check_task_settings(args)
    args = replace(args, learning_rate=learning_rate(args))
    output = writable_folder(args.output)
    _check_apart(output, args.data)
    if args.resume and (output / RECORD).is_file():
        return _finished(output, args)
    checkpoint = _look_into(output, args.resume)
    check_shared_memory(worker_count(args.workers), args.batch_size, args.crop)
    training, validation = read_splits(args)
    folds = folds_of(training, args.seed) if args.leave_one_out and isinstance(training, Examples) else None
    model = build_model(args, training.like)
    arguments = _training_arguments(args, show_progress)
    if args.minutes is not None:
        assert isinstance(training, Examples)
        steps = steps_within(args.minutes, model, training, arguments)
        logger.warning(
            "%d steps fit into %g minutes; to go on after a stop: --steps %d --resume", steps, args.minutes, steps
        )
        arguments = _training_arguments(replace(args, minutes=None, steps=steps), show_progress)
    trainer = EMTrainer(model, arguments, training, validation, callbacks=list(callbacks))
    trainer.train(resume_from_checkpoint=checkpoint)
    if folds is not None:
        _measure_left_out(args, trainer, folds)
    record = trainer.record(args.data, args.license)
    if trainer.is_world_process_zero():
        _write_folder(trainer, args, record)
    return record


def _finished(output: Path, args: FinetuneArguments) -> dict[str, Any]:
    """Return the record of a finished run, to which no step is left."""
    record = read_json_object(output / RECORD, "the record of a finished run")
    if (record.get("task"), record.get("steps")) != (args.task, args.steps):
        raise EMError(
            f"{output} was finished ({record.get('task')}, {record.get('steps')} steps), and its checkpoints are "
            f"gone: go on with --model {output} and another --output"
        )
    start = f"random {args.scratch}" if args.model is None else short_name(args.model)
    asked = asdict(args) | {"start": start, "data": Path(args.data).resolve().name}
    known = [name for name in (*RECORDED, "batch_size", "start", "data") if name in record]
    others = [name for name in known if record[name] != asked[name]]
    if others:
        changed = ", ".join(f"{name} was {record[name]}, now {asked[name]}" for name in others)
        raise EMError(f"{output} was finished with other settings ({changed}): use those, or another --output")
    logger.warning("%s is finished: nothing is left to train", output)
    return record


def _look_into(output: Path, resume: bool) -> str | None:
    """Return the checkpoint to go on from, None to begin; what a run left behind is said.

    Raises:
        EMError: the folder holds a model, or a run that was not to be resumed.
    """
    if (output / RECORD).exists():
        raise EMError(f"{output} holds a finished model: choose another --output")
    began = bool(checkpoints_of(output).newest_first()) or (output / "curve.json").is_file()
    if not began and (output / "config.json").exists():
        raise EMError(f"{output} holds a model already: choose another --output")
    if began and not resume:
        raise EMError(f"{output} holds a run that was stopped: go on with --resume, or choose another --output")
    if not resume:
        _check_nothing_replaced(output)
        return None
    found, _ = checkpoints_of(output).newest_whole()
    if found is not None:
        return str(found[0])
    logger.warning("%s holds no whole checkpoint: the run begins anew", output)
    for torn in checkpoints_of(output).newest_first():
        shutil.rmtree(torn, ignore_errors=True)  # another process may be doing it
    return None


def _check_nothing_replaced(output: Path) -> None:
    """Raise an EMError where the folder holds files of the user's that the run would replace."""
    there = [name for name in PUBLISHED if (output / name).exists()]
    if there:
        raise EMError(f"{output} holds {', '.join(there)}, which the run would replace: choose another --output")


def _check_apart(output: Path, data: str) -> None:
    """Raise an EMError where the model would lie among the data."""
    folder, place = Path(data).resolve(), output.resolve()
    parts = [folder / name for name in ("images", *TRUTHS)]
    if folder.is_dir() and (place == folder or any(part == place or part in place.parents for part in parts)):
        raise EMError(f"--output {output} lies among the data, {data}: choose another folder")


def _write_folder(trainer: EMTrainer, args: FinetuneArguments, record: dict[str, Any]) -> None:
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
    merit = TASKS[args.task].figure_of_merit
    plot_curves({record["start"]: trainer.curve}, output / "curve.png", merit, trainer.course.left_out)
    write_text(output / RECORD, json.dumps(record, indent=1))
    for checkpoint in checkpoints_of(output).newest_first():
        shutil.rmtree(checkpoint)


def plot_curves(
    curves: dict[str, list[dict[str, Any]]],
    path: str | Path,
    figure_of_merit: str = "dice",
    left_out: dict[str, Any] | None = None,
) -> None:
    """Draw validation curves, one line a start, into a PNG file.

    Args:
        curves: entries of a trainer's `curve`, by the name of its start.
        path: of the file.
        figure_of_merit: which metric of the entries: "dice" is shown from 0 to 1, others from 0 up.
        left_out: what the micrographs that were left out once say, as a level with its spread.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot([e["step"] for e in curve], [e[figure_of_merit] for e in curve], marker="o", markersize=4, label=name)
    if left_out is not None and left_out["mean"] is not None:
        mean, spread = left_out["mean"], left_out["spread"]
        axes.axhline(mean, color="C3", linestyle="--", label=f"left out once: {mean:.3f} ± {spread:.3f}")
        axes.axhspan(mean - spread, mean + spread, color="C3", alpha=0.15)
    axes.set(xlabel="training steps", ylabel=f"validation {figure_of_merit}")
    axes.set_ylim(0, 1 if figure_of_merit == "dice" else None)
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=120))
