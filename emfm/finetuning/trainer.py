"""EMTrainer: transformers' Trainer with the habits that few labelled micrographs need.

Training draws crops; evaluations, the first before any step, predict whole micrographs as a user
will, and go into `curve.json`. The output folder keeps the best model by validation.
"""

import atexit
import json
import math
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, SequentialSampler, Subset
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import TrainOutput

from emfm.data.croppers import StreamedTrainingCrops, TrainingCrops
from emfm.data.examples import Examples
from emfm.data.streamed_examples import StreamedExamples
from emfm.errors import EMError
from emfm.files import to_disk, writable_folder, write_text, writing
from emfm.finetuning.card import finetuned_card
from emfm.finetuning.course import Course, CourseBar
from emfm.finetuning.freezing import freeze, parameter_groups
from emfm.finetuning.head import fit_head
from emfm.finetuning.lora import add_lora, write_model
from emfm.finetuning.record import run_record
from emfm.finetuning.stopping import SaveOnStop
from emfm.finetuning.trainer_arguments import EMTrainingArguments
from emfm.finetuning.trainer_state import (
    checkpoints_of,
    find_checkpoint,
    restore_optimizer,
    run_settings,
    save_run,
)
from emfm.finetuning.training_crops import HEAD_CROPS, training_crops
from emfm.finetuning.trust import note_for_trust
from emfm.finetuning.truth import check_validation_truth
from emfm.hub.push import PushArguments, push_folder
from emfm.hub.verify import write_test_tensors
from emfm.inference.predict import predict
from emfm.no_data import naming
from emfm.tasks.task import EMTaskModel
from emfm.training.batch_norm import recalibrate_batch_norm
from emfm.training.checkpoint import Run, Tensors, read_tensors
from emfm.training.stop import StopRequest

CALIBRATION_CROPS = 64


class EMTrainer(Trainer):
    """Fine-tunes a model on micrographs with masks or targets.

    Args:
        model: a task model, such as `EMForSemanticSegmentation`.
        args: training arguments.
        train_dataset: from `load_em_dataset`, or any dataset of `pixel_values` and `labels`.
        eval_dataset: from `load_em_dataset`, not streamed, for validation.
        **kwargs: further arguments of transformers' Trainer.

    Attributes:
        course: evaluations, seconds of training and best weights so far.
        curve: step, epoch, seconds of training and metrics of each evaluation, as in `curve.json`.
        adapter: PEFT's view of the model, with `args.lora`, until it is merged.
        micrographs: how many there are to train on, None for a stream.
        training_kind: the micrographs, or an empty sample of a stream.
        start: name, folder or Hub id of the first weights; empty for random ones.

    Raises:
        EMError: the data do not fit the model, or the arguments do not fit each other.
    """

    args: EMTrainingArguments
    model: Any
    eval_dataset: Any

    def __init__(
        self,
        model: EMTaskModel,
        args: EMTrainingArguments,
        train_dataset: Examples | StreamedExamples | Dataset,
        eval_dataset: Examples,
        **kwargs: Any,
    ):
        writable_folder(args.output_dir, "output_dir")
        if not isinstance(eval_dataset, Examples):
            raise EMError("validation needs micrographs in memory; of a stream use .take(16)")
        model.check_data(eval_dataset, "the validation data")
        check_validation_truth(model, eval_dataset, "the validation data")
        eval_dataset = eval_dataset.to_measure()
        self.micrographs = len(train_dataset) if isinstance(train_dataset, Examples) else None
        self.training_kind = train_dataset.like if isinstance(train_dataset, StreamedExamples) else train_dataset
        # what was learnt of other micrographs
        self.start, model.domain, model.config.class_offsets = model.name_or_path, None, None
        self._frozen, self.adapter = freeze(model, args.freeze), None
        if args.lora:
            self.adapter = add_lora(model, args.lora, model.name_or_path)
            self._frozen = [model.trunk]
        args.metric_for_best_model, args.greater_is_better = model.figure_of_merit, model.greater_is_better
        self._crops_per_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        crops = training_crops(model, args, train_dataset, self._crops_per_step)
        model.to(memory_format=model.trunk.memory_format)
        super().__init__(model=model, args=args, train_dataset=crops, eval_dataset=eval_dataset, **kwargs)
        # the losses are means already: with accumulated gradients they are averaged, not summed
        self.model_accepts_loss_kwargs = False
        if self.accelerator.num_processes > 1:
            atexit.register(self.accelerator.state.destroy_process_group)  # else it may abort
        self.course = Course(model.figure_of_merit, model.greater_is_better)
        self.curve = self.course.curve
        self._saved: Run = {}
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        if not args.disable_tqdm:
            self.add_callback(CourseBar)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        if isinstance(dataset, TrainingCrops):
            return SequentialSampler(dataset)  # these crops are random by their index already
        return super()._get_train_sampler(train_dataset)

    def get_train_dataloader(self) -> DataLoader:
        """Return the loader of training crops; a stream itself shares them among processes."""
        if not isinstance(self.train_dataset, StreamedTrainingCrops):
            return super().get_train_dataloader()
        workers, pinned = self.args.dataloader_num_workers, self.args.dataloader_pin_memory
        size = self.args.train_batch_size
        return DataLoader(self.train_dataset, batch_size=size, num_workers=workers, pin_memory=pinned)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return the optimiser: `backbone_lr_scale` for the trunk, no decay of norms and biases."""
        if self.optimizer is None:
            rate, decay = self.args.learning_rate, self.args.weight_decay
            groups = parameter_groups(self.model, rate, rate * self.args.backbone_lr_scale, decay)
            cls, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer = cls(groups, **settings)
        return self.optimizer

    def compute_loss(self, model: nn.Module, inputs: Tensors, *args: Any, **kwargs: Any) -> Tensor | tuple[Tensor, Any]:
        """Return the loss of a batch; frozen parts stay in evaluation mode, statistics included."""
        for module in self._frozen:
            module.eval()
        return super().compute_loss(model, inputs, *args, **kwargs)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """Train, then load the best weights by validation back into the model.

        Ctrl-C and SIGTERM let the step end, save a checkpoint, and leave.

        Args:
            resume_from_checkpoint: True for the newest whole checkpoint of the output folder, or
                the path of one. The run ends with the same weights as without an interruption.
            **kwargs: as in transformers.

        Raises:
            EMError: there is no whole checkpoint, or it belongs to a run with other settings.
        """
        self.course.start_clock()
        if resume_from_checkpoint:
            settings = run_settings(self.args, self.micrographs)
            checkpoint, self._saved = find_checkpoint(self.args.output_dir, resume_from_checkpoint, settings)
            self.course.go_on(self._saved["curve"], read_tensors(checkpoint, "best"), self._saved["seconds"])
            self.args.eval_on_start = False  # it was
            resume_from_checkpoint = str(checkpoint)
        elif self.args.max_steps == 0 or (self.args.fit_head and self.model.new_head):
            self.recalibrate(self.model)
            fit_head(self.model, islice(iter(self.train_dataset), HEAD_CROPS))
        self.model.new_head = False
        if self.args.max_steps == 0:
            self._note(self.model, self._measure(self.model, self.eval_dataset))
            note_for_trust(self)
            return TrainOutput(0, math.nan, {})
        output = self._train_until_stopped(resume_from_checkpoint, **kwargs)
        # Accelerate leaves its bf16 wrapper on forward: back to the model's own precision
        self.model = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        if self.course.best_weights:
            self.model.load_state_dict(self.course.best_weights)
        note_for_trust(self)
        return output

    def amended(self) -> bool:
        """Measure again with the offsets of classes; return False where validation gets worse."""
        better = not self.curve or self.course.amend(self._measure(self.model, self.eval_dataset))
        self._write_curve()
        return better

    def _train_until_stopped(self, checkpoint: str | bool | None, **kwargs: Any) -> TrainOutput:
        with StopRequest(self.accelerator) as request:
            stopping = SaveOnStop(request)
            self.add_callback(stopping)
            output = super().train(resume_from_checkpoint=checkpoint, **kwargs)
            self.remove_callback(stopping)
        stopping.leave_if_stopped(self.state)
        return output

    def evaluate(
        self,
        eval_dataset: Examples | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Return metrics of whole micrographs as `<prefix>_<name>`; processes share the work."""
        model = self.accelerator.unwrap_model(self.model)
        with self.course.clock_stopped():
            if self.is_in_train:
                if not all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()):
                    raise EMError(
                        f"weights are no longer finite at step {self.state.global_step}: lower the "
                        "learning rate, use --precision fp32, or drop damaged micrographs"
                    )
                self.recalibrate(model)
            result = self._measure(model, eval_dataset or self.eval_dataset)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in result.items() if isinstance(value, float)}
        if self.is_in_train:
            self._note(model, result)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _measure(self, model: EMTaskModel, data: Examples) -> dict[str, Any]:
        metrics = model.new_metrics()
        for index in range(self.args.process_index, len(data), self.args.world_size):
            with naming(data.names[index]):
                found = predict(model, data.images[index], compare=False, precision="fp32")
                model.measure(metrics, found, data, index)
        if self.args.world_size > 1:
            moved = {name: total.to(self.args.device) for name, total in metrics.totals.items()}
            metrics.totals = {name: total.cpu() for name, total in self.accelerator.reduce(moved).items()}
        return metrics.result()

    def recalibrate(self, model: EMTaskModel) -> None:
        """Measure batch norm's running statistics on training crops, as evaluations do first."""
        if isinstance(self.train_dataset, IterableDataset):
            return
        crops = Subset(self.train_dataset, range(min(CALIBRATION_CROPS, len(self.train_dataset))))
        loader = DataLoader(crops, batch_size=self.args.per_device_train_batch_size)
        with self.compute_loss_context_manager():
            batches = (batch["pixel_values"].to(self.args.device) for batch in loader)
            recalibrate_batch_norm(model, batches, self._frozen)

    def _note(self, model: EMTaskModel, result: dict[str, Any]) -> None:
        """Extend the curve, write the model if it is the best so far, stop if none better comes."""
        step = self.state.global_step
        epoch = None if self.micrographs is None else round(step * self._crops_per_step / self.micrographs, 3)
        better = self.course.add(step, epoch, result, model)
        if 0 < self.args.early_stopping <= self.course.without_better():
            self.control.should_training_stop = True
        if better and self.is_world_process_zero():
            self.save_model(self.args.output_dir)
        self._write_curve()

    def _write_curve(self) -> None:
        if self.is_world_process_zero():
            write_text(Path(self.args.output_dir) / "curve.json", json.dumps(self.curve, indent=1))

    def record(self, data: str, license: str | None = None) -> dict[str, Any]:
        """Return settings, data, cost and best figures of the run.

        Args:
            data: name, folder or Hub id of the data set.
            license: of the finished weights, as the Hub names it ("cc-by-4.0"), if one is stated.
        """
        return run_record(self, data, license)

    def create_model_card(self, dataset: str = "micrographs", license: str | None = None, **kwargs: Any) -> None:
        """Write README.md from the run's `record`; takes `**kwargs` for transformers' sake."""
        if self.is_world_process_zero():
            write_text(Path(self.args.output_dir) / "README.md", finetuned_card(self.record(dataset, license)))

    def push_to_hub(self, repo_id: str | None = None, **kwargs: Any) -> str | None:
        """Push the best model, card, test tensors and curve in one commit; returns its address.

        Args:
            repo_id: `owner/name`; by default `args.hub_model_id`.
            **kwargs: `private`, `branch`, `tag`, `create_pr`, `token`, `message`: `PushArguments`.

        Raises:
            EMError: nothing was trained yet, there is no repository, or the Hub refuses.
        """
        repo_id = repo_id or self.args.hub_model_id
        if not self.curve:
            raise EMError("cannot push: nothing was trained: train()")
        if repo_id is None:
            raise EMError("cannot push: name a repository: push_to_hub('owner/name')")
        if not self.is_world_process_zero():
            return None
        output = Path(self.args.output_dir)
        if not (output / "README.md").is_file():
            self.create_model_card()
        saved = type(self.model).from_pretrained(output)
        write_test_tensors(saved, output)
        return push_folder(saved, output, PushArguments(repo_id, **kwargs))

    def merge_adapter(self) -> None:
        """Add LoRA's additions to the weights; what is saved from now on is a plain model."""
        if self.adapter is not None:
            self.model = self.adapter.merge_and_unload()
            self.adapter = None

    def _save(self, output_dir: str | None = None, state_dict: Tensors | None = None) -> None:
        if self.args.should_save:  # transformers calls this on every process
            model = self.accelerator.unwrap_model(self.model)
            write_model(model, self.adapter, Path(output_dir or self.args.output_dir))

    def _determine_best_metric(self, metrics: dict[str, float], trial: object) -> bool:
        # transformers demands a figure; the course knows what to do without one
        known = f"eval_{self.args.metric_for_best_model}" in metrics
        return known and super()._determine_best_metric(metrics, trial)

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        written = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        # transformers would keep the best one and drop the newest, from which a run goes on
        self.state.best_global_step = None
        # and it would drop the older ones before the new one is safe from a power cut
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            with writing(written):
                super()._save_checkpoint(model, trial)
                if self.args.should_save:
                    to_disk(written / "trainer_state.json")
        except BaseException:
            if self.args.should_save:
                shutil.rmtree(written, ignore_errors=True)
            raise
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save and limit:
            checkpoints_of(self.args.output_dir).remove_older(written, limit)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.args.should_save:
            settings = run_settings(self.args, self.micrographs)
            model = self.accelerator.unwrap_model(self.model)
            save_run(Path(output_dir), settings, self.course, model, self.optimizer, self.lr_scheduler)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        (model or self.model).load_state_dict(read_tensors(Path(resume_from_checkpoint), "model"))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            restore_optimizer(Path(checkpoint), self._saved, self.optimizer, self.lr_scheduler)

    def _save_rng_state(self, output_dir: str) -> None:
        """Do nothing: crops follow from (seed, epoch, index), no layer draws random numbers."""
