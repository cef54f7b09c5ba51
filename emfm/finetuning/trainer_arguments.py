"""EMTrainingArguments: transformers' TrainingArguments with the defaults that few labelled micrographs need."""

from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments

from emfm.errors import EMError
from emfm.training.precision import bf16_units, warn_of_emulated_bf16
from emfm.training.workers import worker_count

EVALUATIONS = 10


@dataclass
class EMTrainingArguments(TrainingArguments):
    """TrainingArguments for fine-tuning on few micrographs.

    Every argument of transformers' TrainingArguments works too. Evaluation runs on the whole validation micrographs,
    before the first step and then every tenth of the steps, with a checkpoint after each.
    """

    output_dir: str | None = "finetuned"
    max_steps: int = 300
    per_device_train_batch_size: int = 8
    learning_rate: float = 1e-3
    warmup_steps: float = 0.05  # a share of all steps
    lr_scheduler_type: str = "cosine"
    weight_decay: float = 1e-4
    crop: int = field(default=256, metadata={"help": "side of a training crop in pixels, of the target's"})
    precision: str = field(default="auto", metadata={"help": "auto, fp32 or bf16; auto is bf16 where hardware has it"})
    backbone_lr_scale: float = field(
        default=1.0, metadata={"help": "the trunk's learning rate, as a share of the head's"}
    )
    freeze: str = field(default="none", metadata={"help": "what does not learn: none, encoder, all-but-head or last:K"})
    fit_head: bool = field(
        default=True, metadata={"help": "fit a new head to the trunk's features before the first step"}
    )
    lora: int = field(default=0, metadata={"help": "rank of LoRA's additions to a frozen trunk; 0 is without"})
    early_stopping: int = field(default=0, metadata={"help": "stop after so many evaluations without a better one"})
    intensity_jitter: float = field(default=0.2, metadata={"help": "random change of intensities; 0 is none"})
    eval_strategy: str = "steps"
    eval_on_start: bool = True
    save_strategy: str = "steps"
    save_total_limit: int | None = 1
    logging_strategy: str = "no"
    report_to: str | None = "none"
    remove_unused_columns: bool = False
    dataloader_num_workers: int = field(default_factory=lambda: worker_count(None))
    dataloader_pin_memory: bool = field(default_factory=torch.cuda.is_available)

    def __post_init__(self):
        self._check()
        self.bf16 = self.bf16 or self.precision == "bf16" or (self.precision == "auto" and bf16_units())
        if self.bf16:
            warn_of_emulated_bf16()
        # transformers takes bf16 on a CPU only when told that the CPU is meant
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        if self.eval_steps is None:
            self.eval_steps = max(1, self.max_steps // EVALUATIONS)
        if self.save_strategy == "steps":
            self.save_steps = self.eval_steps
        super().__post_init__()

    def _check(self):
        if self.max_steps < 1:
            raise EMError(f"max_steps is {self.max_steps}; expected at least 1")
        if self.crop < 16:
            raise EMError(f"crop is {self.crop} px; expected at least 16")
        if self.precision not in ("auto", "fp32", "bf16") or self.fp16:
            given = "fp16" if self.fp16 else self.precision
            raise EMError(f"precision is '{given}'; expected auto, fp32 or bf16")
        if self.push_to_hub:
            raise EMError("push_to_hub=True would push unfinished weights: call trainer.push_to_hub() after training")
        if not 0 < self.backbone_lr_scale <= 1:
            raise EMError(
                f"backbone_lr_scale is {self.backbone_lr_scale}; expected above 0, up to 1 (to freeze: freeze)"
            )
        if not 0 <= self.intensity_jitter < 1:
            raise EMError(f"intensity_jitter is {self.intensity_jitter}; expected 0 up to, not including, 1")
        if self.lora < 0 or self.early_stopping < 0:
            raise EMError(f"lora is {self.lora} and early_stopping {self.early_stopping}; expected 0 or more")
        if self.lora and self.freeze != "none":
            raise EMError("LoRA freezes the trunk itself: give either lora or freeze")
