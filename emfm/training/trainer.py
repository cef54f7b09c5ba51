"""EMTrainer: transformers' Trainer with the habits that few labelled micrographs need.

Training draws crops; every evaluation, the one before the first step included, predicts whole micrographs the way a
user will, and goes into `curve.json`. The best model by validation is kept in the output folder.
"""

import json
import shutil
import time
from collections.abc import Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler, Subset
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from emfm.data.datasets import LabelledMicrographs
from emfm.data.io import write_text
from emfm.data.patches import LabelledCrops
from emfm.errors import EMError
from emfm.inference.predict import DEFAULT_TILE, predict
from emfm.modeling import EMPreTrainedModel
from emfm.training.batch_norm import recalibrate_batch_norm

EVALUATIONS = 10
CALIBRATION_CROPS = 64


def bf16_units() -> bool:
    """Tell whether the device computes bfloat16 in hardware: a recent GPU, or a CPU with AMX or AVX512-BF16."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@dataclass
class EMTrainingArguments(TrainingArguments):
    """TrainingArguments with defaults for segmentation from few labelled micrographs.

    Every argument of transformers' TrainingArguments works too. Evaluation runs on the whole validation micrographs,
    before the first step and then every tenth of the steps.
    """

    output_dir: str | None = "finetuned"
    max_steps: int = 300
    per_device_train_batch_size: int = 8
    learning_rate: float = 1e-3
    warmup_steps: float = 0.05  # a share of all steps
    lr_scheduler_type: str = "cosine"
    weight_decay: float = 1e-4
    crop: int = field(default=256, metadata={"help": "side of a training crop in pixels"})
    precision: str = field(default="auto", metadata={"help": "auto, fp32 or bf16; auto is bf16 where hardware has it"})
    eval_strategy: str = "steps"
    eval_on_start: bool = True
    save_strategy: str = "no"  # the best model is written by EMTrainer itself, without pickle
    logging_strategy: str = "no"
    report_to: str | None = "none"
    remove_unused_columns: bool = False
    dataloader_pin_memory: bool = field(default_factory=torch.cuda.is_available)

    def __post_init__(self):
        if self.max_steps < 1:
            raise EMError(f"max_steps is {self.max_steps}; expected at least 1")
        if self.crop < 16:
            raise EMError(f"crop is {self.crop} px; expected at least 16")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise EMError(f"precision is '{self.precision}'; expected auto, fp32 or bf16")
        self.bf16 = self.bf16 or self.precision == "bf16" or (self.precision == "auto" and bf16_units())
        # transformers takes bf16 on a CPU only when told that the CPU is meant
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        if self.eval_steps is None:
            self.eval_steps = max(1, self.max_steps // EVALUATIONS)
        super().__post_init__()


class _Progress(ProgressCallback):
    """One bar with the latest validation Dice beside it, instead of a printed dict per log."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.training_bar is not None and logs and "eval_dice" in logs:
            self.training_bar.set_postfix(dice=f"{logs['eval_dice']:.3f}")


class EMTrainer(Trainer):
    """Fine-tunes a model on labelled micrographs.

    Args:
        model: a task model, such as `EMForSemanticSegmentation`.
        args: training arguments.
        train_dataset: labelled micrographs, or a dataset of `pixel_values` and `labels`.
        eval_dataset: labelled micrographs for validation.
        **kwargs: further arguments of transformers' Trainer.

    Attributes:
        curve: one entry per evaluation: step, epoch, seconds of training, metrics. Also in `curve.json`.
    """

    def __init__(
        self,
        model: EMPreTrainedModel,
        args: EMTrainingArguments,
        train_dataset: LabelledMicrographs | Dataset,
        eval_dataset: LabelledMicrographs,
        **kwargs: Any,
    ):
        crops = train_dataset
        if isinstance(train_dataset, LabelledMicrographs):
            count = args.max_steps * self._crops_per_step(args)
            crops = LabelledCrops(train_dataset, model.processor, args.crop, count, args.seed)
        model.to(memory_format=model.memory_format)
        super().__init__(model=model, args=args, train_dataset=crops, eval_dataset=eval_dataset, **kwargs)
        self.micrographs = len(train_dataset) if isinstance(train_dataset, Sized) else 1
        self.curve: list[dict[str, Any]] = []
        self._best: dict[str, torch.Tensor] = {}
        self._seconds_evaluating = 0.0
        self._started = time.perf_counter()
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        if not args.disable_tqdm:
            self.add_callback(_Progress)

    @staticmethod
    def _crops_per_step(args: EMTrainingArguments) -> int:
        return args.train_batch_size * args.gradient_accumulation_steps * args.world_size

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        if isinstance(dataset, LabelledCrops):
            return SequentialSampler(dataset)  # these crops are random by their index already
        return super()._get_train_sampler(train_dataset)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, then load the best weights by validation back into the model; returns transformers' TrainOutput."""
        self._started, self._seconds_evaluating = time.perf_counter(), 0.0
        output = super().train(*args, **kwargs)
        # Accelerate leaves its bf16 wrapper on forward; from here on the model computes in its own precision again
        self.model = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        if self._best:
            self.model.load_state_dict(self._best)
        return output

    def evaluate(
        self,
        eval_dataset: LabelledMicrographs | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Predict whole micrographs and return `<prefix>_dice` and `<prefix>_iou`; processes share the micrographs."""
        started = time.perf_counter()
        model = self.accelerator.unwrap_model(self.model)
        if self.is_in_train and isinstance(self.train_dataset, LabelledCrops):
            self._recalibrate(model)
        result = self._measure(model, eval_dataset or self.eval_dataset)
        metrics = {f"{metric_key_prefix}_{name}": result[name] for name in ("dice", "iou")}
        self._seconds_evaluating += time.perf_counter() - started
        if self.is_in_train:
            self._record(model, result)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _measure(self, model: EMPreTrainedModel, data: LabelledMicrographs) -> dict[str, Any]:
        metrics = model.new_metrics()
        for index in range(self.args.process_index, len(data), self.args.world_size):
            metrics.add(predict(model, data.images[index], tile=DEFAULT_TILE).output, data.masks[index])
        if self.args.world_size > 1:
            metrics.counts = self.accelerator.reduce(metrics.counts.to(self.args.device)).cpu()
            metrics.images = len(data)
        return metrics.result()

    def _recalibrate(self, model: EMPreTrainedModel) -> None:
        crops = Subset(self.train_dataset, range(min(CALIBRATION_CROPS, len(self.train_dataset))))
        loader = DataLoader(crops, batch_size=self.args.per_device_train_batch_size)
        with self.compute_loss_context_manager():
            recalibrate_batch_norm(model, (batch["pixel_values"].to(self.args.device) for batch in loader))

    def _record(self, model: EMPreTrainedModel, result: dict[str, Any]) -> None:
        """Extend the curve; where the model is the best so far, write it to the output folder."""
        step = self.state.global_step
        seconds = time.perf_counter() - self._started - self._seconds_evaluating
        epoch = step * self._crops_per_step(self.args) / self.micrographs
        best = max((entry["dice"] for entry in self.curve), default=-1.0)
        self.curve.append({"step": step, "epoch": round(epoch, 3), "seconds": round(seconds, 2), **result})
        if result["dice"] > best:
            self._best = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        if self.is_world_process_zero():
            output = Path(self.args.output_dir)
            if result["dice"] > best:
                self.save_model(str(output))
            write_text(output / "curve.json", json.dumps(self.curve, indent=1))

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Write the model folder file by file, each whole; transformers would add a pickle of its arguments."""
        output = Path(output_dir or self.args.output_dir)
        temporary = output / ".model.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        self.accelerator.unwrap_model(self.model).save_pretrained(temporary)
        for file in temporary.iterdir():
            file.replace(output / file.name)
        temporary.rmdir()
