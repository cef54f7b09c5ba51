"""EMTrainingArguments: transformers' TrainingArguments with defaults for few micrographs."""

import logging
from dataclasses import MISSING, dataclass, field
from typing import Any

import torch
from transformers import TrainingArguments

from emfm.errors import EMError
from emfm.finetuning.arguments import RATE, FinetuneArguments
from emfm.settings import COUNT, NOT_NEGATIVE, Range, check_settings, same_setting, setting
from emfm.training.machine import bf16_units, warn_of_emulated_bf16, worker_count

logger = logging.getLogger(__name__)
# Arguments of transformers' that change nothing here, and why.
IDLE = {
    "per_device_eval_batch_size": "whole micrographs are evaluated one by one",
    "eval_accumulation_steps": "whole micrographs are evaluated one by one",
    "prediction_loss_only": "figures are measured in any case",
}


@dataclass
class EMTrainingArguments(TrainingArguments):
    """TrainingArguments for fine-tuning on few micrographs.

    Arguments of transformers' work, too; those that change nothing here are said. Whole validation
    micrographs are evaluated before the first step and then every tenth of the steps, with a
    checkpoint after each.
    """

    output_dir: str | None = "finetuned"
    max_steps: int = same_setting(FinetuneArguments, "steps")
    per_device_train_batch_size: int = same_setting(FinetuneArguments, "batch_size")
    gradient_accumulation_steps: int = same_setting(FinetuneArguments, "gradient_accumulation_steps")
    learning_rate: float = same_setting(FinetuneArguments, "learning_rate", default=RATE)
    warmup_steps: float = setting(0.05, "A share of all steps, or so many from 1 on.", NOT_NEGATIVE)
    lr_scheduler_type: str = "cosine"
    max_grad_norm: float = setting(1.0, "Longer gradients are cut; 0 leaves them.", NOT_NEGATIVE)
    weight_decay: float = setting(1e-4, "Of all weights.", NOT_NEGATIVE)
    seed: int = same_setting(FinetuneArguments, "seed", default=42)
    crop: int = same_setting(FinetuneArguments, "crop")
    precision: str = same_setting(FinetuneArguments, "precision")
    backbone_lr_scale: float = same_setting(FinetuneArguments, "backbone_lr_scale")
    freeze: str = same_setting(FinetuneArguments, "freeze")
    fit_head: bool = setting(True, "Fit a new head to the trunk's features before the first step.")
    lora: int = same_setting(FinetuneArguments, "lora")
    early_stopping: int = same_setting(FinetuneArguments, "early_stopping")
    augment: float = same_setting(FinetuneArguments, "augment")
    intensity_jitter: float = same_setting(FinetuneArguments, "intensity_jitter")
    eval_strategy: str = "steps"
    eval_steps: float | None = setting(None, "Steps between evaluations; by default a tenth.", Range(above=0))
    eval_on_start: bool = True
    save_strategy: str = "steps"
    save_total_limit: int | None = setting(1, "Checkpoints that are kept; None keeps all.", COUNT)
    logging_strategy: str = "no"
    report_to: str | None = "none"
    remove_unused_columns: bool = False
    dataloader_num_workers: int = same_setting(
        FinetuneArguments, "workers", default=MISSING, default_factory=lambda: worker_count(None)
    )
    dataloader_pin_memory: bool = field(default_factory=torch.cuda.is_available)

    def __post_init__(self):
        check_settings(self)
        if self.fp16:
            raise EMError("fp16 is True; expected precision='auto', 'fp32' or 'bf16' in its place")
        if self.push_to_hub:
            raise EMError("push_to_hub=True would push unfinished weights: call trainer.push_to_hub() after training")
        if self.label_smoothing_factor:
            raise EMError("label_smoothing_factor is of transformers' loss; here the task has its own: leave it out")
        if self.num_train_epochs != _default("num_train_epochs"):
            raise EMError(
                f"num_train_epochs is {self.num_train_epochs}, but crops are drawn at random, so there are no epochs: "
                "give max_steps"
            )
        for name, why in IDLE.items():
            if getattr(self, name, None) != _default(name):
                logger.warning("%s has no effect: %s", name, why)
        if self.lora and self.freeze != "none":
            raise EMError("LoRA freezes the trunk itself: give either lora or freeze")
        self.bf16 = self.bf16 or self.precision == "bf16" or (self.precision == "auto" and bf16_units())
        if self.bf16:
            warn_of_emulated_bf16()
        # transformers takes bf16 on a CPU only when told that the CPU is meant
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        if self.eval_steps is None:
            self.eval_steps = max(1, self.max_steps // 10)
        if self.save_strategy == "steps":
            self.save_steps = self.eval_steps
        super().__post_init__()


def _default(name: str) -> Any:
    """Return transformers' own value of an argument, None where this version has none."""
    known = TrainingArguments.__dataclass_fields__.get(name)
    return None if known is None or known.default is MISSING else known.default
