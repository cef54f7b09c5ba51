"""Fine-tuning from a labelled folder to a finished model folder: weights, processor, curve, card, test tensors."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import set_seed

from emfm.config import EMFoundationConfig
from emfm.data.datasets import LabelledMicrographs, load_em_dataset
from emfm.data.io import write_text
from emfm.errors import EMError
from emfm.hub.card import finetuned_card
from emfm.hub.verify import write_test_tensors
from emfm.modeling import EMPreTrainedModel
from emfm.tasks import TASKS
from emfm.training.curves import plot_curves
from emfm.training.trainer import EMTrainer, EMTrainingArguments

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinetuneArguments:
    """What `emfm finetune` is told; exactly one of `model` and `scratch` is given."""

    task: str
    data: str  # labelled folder
    output: str  # folder of the finished model
    model: str | None = None  # zoo name, folder or Hub id
    scratch: str | None = None  # generator name, random weights
    norm: str = "instance"  # of a generator from scratch
    num_images: int | None = None  # of the training split; all by default
    steps: int = 300
    batch_size: int = 8
    crop: int = 256
    learning_rate: float = 1e-3
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self):
        if self.task not in TASKS:
            raise EMError(f"task is '{self.task}'; expected one of {', '.join(TASKS)}")
        if (self.model is None) == (self.scratch is None):
            raise EMError(
                "give either a pretrained model (--model) or a generator's name for random weights (--scratch)"
            )


def read_splits(args: FinetuneArguments) -> tuple[LabelledMicrographs, LabelledMicrographs]:
    """Return training and validation micrographs.

    Without a "validation" split a fifth of the training split is held out; with fewer than five training micrographs
    they serve for both, and a warning says so.
    """
    training = load_em_dataset(args.data, "train")
    try:
        validation = load_em_dataset(args.data, "validation")
    except EMError as error:
        if "split" not in str(error):
            raise
        held_out = max(1, len(training) // 5)
        if len(training) < 5:
            logger.warning(
                "%s has no validation split and few images: the best step is chosen on the training images", args.data
            )
            validation = training
        else:
            shuffled = training.take(len(training), args.seed)
            validation, training = shuffled.part(0, held_out), shuffled.part(held_out, len(shuffled))
    if args.num_images is not None:
        training = training.take(args.num_images, args.seed)
    return training, validation


def build_model(args: FinetuneArguments, id2label: dict[int, str]) -> EMPreTrainedModel:
    """Return the task model with pretrained or random trunk; the seed decides the new weights."""
    set_seed(args.seed)
    model_class = TASKS[args.task]
    if args.scratch is None:
        return model_class.from_pretrained(args.model, id2label=id2label)
    fields = {} if args.scratch.startswith("hrnet") else {"norm": args.norm}
    return model_class(EMFoundationConfig.from_name(args.scratch, id2label=id2label, **fields))


def finetune(args: FinetuneArguments, show_progress: bool = True) -> dict[str, Any]:
    """Fine-tune and write a model folder; returns the facts that also stand in its `finetuning.json`.

    Raises:
        EMError: wrong settings, data or model, or an output folder that already holds a model.
    """
    output = Path(args.output)
    if (output / "config.json").exists():
        raise EMError(f"{output} holds a model already: choose another --output")
    training, validation = read_splits(args)
    model = build_model(args, training.id2label)
    trainer = EMTrainer(
        model,
        EMTrainingArguments(
            output_dir=str(output),
            max_steps=args.steps,
            per_device_train_batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            crop=args.crop,
            precision=args.precision,
            seed=args.seed,
            disable_tqdm=not show_progress,
        ),
        training,
        validation,
    )
    trainer.train()
    facts = _facts(args, model, trainer, {"train": len(training), "validation": len(validation)})
    if trainer.is_world_process_zero():
        write_text(output / "finetuning.json", json.dumps(facts, indent=1))
        write_text(output / "README.md", finetuned_card(facts))
        write_test_tensors(model, output)
        plot_curves({facts["start"]: trainer.curve}, output / "curve.png")
    return facts


def _facts(
    args: FinetuneArguments, model: EMPreTrainedModel, trainer: EMTrainer, images: dict[str, int]
) -> dict[str, Any]:
    """Return what the card and `finetuning.json` tell of the run."""
    settings = ("task", "steps", "batch_size", "crop", "learning_rate", "seed")
    return {
        **{name: getattr(args, name) for name in settings},
        "start": args.model or f"random {args.scratch}",
        "generator": model.config.generator,
        "data": Path(args.data).resolve().name,
        "images": images,
        "precision": "bf16" if trainer.args.bf16 else "fp32",
        "seconds": trainer.curve[-1]["seconds"],
        "best": max(trainer.curve, key=lambda entry: entry["dice"]),
    }
