"""EMTrainer: transformers' Trainer with the habits that few labelled micrographs need.

Training draws crops; every evaluation, the one before the first step included, predicts whole micrographs the way a
user will, and goes into `curve.json`. The best model by validation is kept in the output folder.
"""

import atexit
import json
import shutil
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, SequentialSampler, Subset
from transformers import EarlyStoppingCallback, Trainer
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from emfm.data.examples import Examples
from emfm.data.streamed_examples import StreamedExamples
from emfm.data.training_crops import StreamedTrainingCrops, TrainingCrops
from emfm.errors import EMError
from emfm.files import write_text
from emfm.finetuning.card import finetuned_card
from emfm.finetuning.evaluate import check_finite, measure
from emfm.finetuning.freezing import freeze
from emfm.finetuning.head import fit_head
from emfm.finetuning.lora import add_lora, merge, save_adapter
from emfm.finetuning.record import run_facts
from emfm.finetuning.trainer_arguments import EMTrainingArguments
from emfm.finetuning.trainer_state import last_checkpoint, load_optimizer, load_state, load_tensors, save_state
from emfm.finetuning.training_data import crops_per_step, training_crops
from emfm.hub.push import PushArguments, push_folder
from emfm.hub.verify import write_test_tensors
from emfm.tasks.task import EMTaskModel
from emfm.training.batch_norm import recalibrate_batch_norm

CALIBRATION_CROPS, HEAD_CROPS = 64, 16
ModelWeights = dict[str, Tensor]


class _Progress(ProgressCallback):
    """One bar with the latest validation figure beside it, instead of a printed dict per log."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        name = f"eval_{args.metric_for_best_model}"
        if self.training_bar is not None and logs and name in logs:
            self.training_bar.set_postfix({args.metric_for_best_model: f"{logs[name]:.4f}"})


class _EarlyStopping(EarlyStoppingCallback):
    """Without the advice to set `load_best_model_at_end`: EMTrainer loads the best model itself."""

    def on_train_begin(self, args, state, control, **kwargs):
        pass


class EMTrainer(Trainer):
    """Fine-tunes a model on micrographs with masks or targets.

    Args:
        model: a task model, such as `EMForSemanticSegmentation`.
        args: training arguments.
        train_dataset: what `load_em_dataset` returned, streamed or not; or a dataset of `pixel_values` and `labels`.
        eval_dataset: what `load_em_dataset` returned, for validation.
        **kwargs: further arguments of transformers' Trainer.

    Attributes:
        curve: one entry per evaluation: step, epoch, seconds of training, metrics. Also in `curve.json`.
        adapter: PEFT's view of the model, with `args.lora`, until it is merged.
        micrographs: how many there are to train on, None for a stream.
        training_kind: the micrographs, or an empty sample of a stream.
        start: name, folder or Hub id of the weights from which training started; empty for random ones.

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
        if not isinstance(eval_dataset, Examples):
            raise EMError("validation needs micrographs in memory; of a stream take some: .take(16)")
        model.check_data(eval_dataset, "the validation data")
        eval_dataset = eval_dataset.to_measure()
        self.micrographs = len(train_dataset) if isinstance(train_dataset, Examples) else None
        self.training_kind = train_dataset.like if isinstance(train_dataset, StreamedExamples) else train_dataset
        self.start = model.name_or_path
        self._frozen = freeze(model, args.freeze)
        self.adapter = None
        if args.lora:
            if not model.name_or_path:
                raise EMError("LoRA adds to pretrained weights; this model has random ones: use from_pretrained")
            self.adapter = add_lora(model, args.lora, model.name_or_path)
            self._frozen = [model.trunk]
        args.metric_for_best_model, args.greater_is_better = model.figure_of_merit, model.greater_is_better
        crops = training_crops(model, args, train_dataset)
        model.to(memory_format=model.memory_format)
        super().__init__(model=model, args=args, train_dataset=crops, eval_dataset=eval_dataset, **kwargs)
        # the losses are means already: with accumulated gradients they are averaged, not summed
        self.model_accepts_loss_kwargs = False
        if self.accelerator.num_processes > 1:
            # a process that ends with its threads of communication still running may abort
            atexit.register(self.accelerator.state.destroy_process_group)
        self.curve: list[dict[str, Any]] = []
        self._best: ModelWeights = {}
        self._seconds_evaluating = 0.0
        self._started = time.perf_counter()
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        if not args.disable_tqdm:
            self.add_callback(_Progress)
        if args.early_stopping:
            self.add_callback(_EarlyStopping(args.early_stopping))

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        if isinstance(dataset, TrainingCrops):
            return SequentialSampler(dataset)  # these crops are random by their index already
        return super()._get_train_sampler(train_dataset)

    def get_train_dataloader(self) -> DataLoader:
        """Return the loader of training crops; those of a stream are shared among processes where they are read."""
        if not isinstance(self.train_dataset, StreamedTrainingCrops):
            return super().get_train_dataloader()
        return DataLoader(
            self.train_dataset,
            batch_size=self.args.train_batch_size,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Return the optimiser: the trunk at `backbone_lr_scale` times the rate, norms and biases without decay."""
        if self.optimizer is None:
            groups: dict[tuple[bool, bool], list[Tensor]] = {}
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    groups.setdefault((name.startswith("trunk."), parameter.ndim > 1), []).append(parameter)
            cls, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            rate = self.args.learning_rate
            self.optimizer = cls(
                [
                    {
                        "params": parameters,
                        "lr": rate * (self.args.backbone_lr_scale if in_trunk else 1.0),
                        "weight_decay": self.args.weight_decay if decays else 0.0,
                    }
                    for (in_trunk, decays), parameters in groups.items()
                ],
                **settings,
            )
        return self.optimizer

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Return the loss of a batch; frozen parts are kept in evaluation mode, so that their statistics stay."""
        for module in self._frozen:
            module.eval()
        return super().compute_loss(model, inputs, *args, **kwargs)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train, then load the best weights by validation back into the model; returns transformers' TrainOutput.

        Args:
            resume_from_checkpoint: True for the newest whole checkpoint of the output folder, or the path of one. The
                run then ends with the same weights as if it had not been interrupted.
            **kwargs: as in transformers.

        Raises:
            EMError: there is no whole checkpoint, or it belongs to a run with other settings.
        """
        self._started, self._seconds_evaluating = time.perf_counter(), 0.0
        if resume_from_checkpoint:
            found = last_checkpoint(self.args.output_dir) if resume_from_checkpoint is True else resume_from_checkpoint
            self.curve, self._best, seconds = load_state(self, Path(found))
            self._started -= seconds
            self.args.eval_on_start = False  # it was
            resume_from_checkpoint = str(found)
        elif self.args.fit_head and self.model.new_head:
            self._fit_head()
        self.model.new_head = False
        output = super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        # Accelerate leaves its bf16 wrapper on forward; from here on the model computes in its own precision again
        self.model = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        if self._best:
            self.model.load_state_dict(self._best)
        return output

    def evaluate(
        self,
        eval_dataset: Examples | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Predict whole micrographs and return the metrics as `<prefix>_<name>`; processes share the micrographs."""
        started = time.perf_counter()
        model = self.accelerator.unwrap_model(self.model)
        if self.is_in_train:
            check_finite(model, self.state.global_step)
            self.recalibrate(model)
        result = self._measure(model, eval_dataset or self.eval_dataset)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in result.items() if isinstance(value, float)}
        self._seconds_evaluating += time.perf_counter() - started
        if self.is_in_train:
            self._record(model, result)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _measure(self, model: EMTaskModel, data: Examples) -> dict[str, Any]:
        metrics = model.new_metrics()
        measure(model, data, range(self.args.process_index, len(data), self.args.world_size), metrics)
        if self.args.world_size > 1:
            moved = {name: total.to(self.args.device) for name, total in metrics.totals.items()}
            metrics.totals = {name: total.cpu() for name, total in self.accelerator.reduce(moved).items()}
        return metrics.result()

    def _fit_head(self) -> None:
        model = self.accelerator.unwrap_model(self.model)
        self.recalibrate(model)
        fit_head(model, islice(iter(self.train_dataset), HEAD_CROPS))

    def recalibrate(self, model: EMTaskModel) -> None:
        """Measure batch norm's running statistics anew on training crops; evaluations do this first."""
        if isinstance(self.train_dataset, IterableDataset):
            return
        crops = Subset(self.train_dataset, range(min(CALIBRATION_CROPS, len(self.train_dataset))))
        loader = DataLoader(crops, batch_size=self.args.per_device_train_batch_size)
        with self.compute_loss_context_manager():
            batches = (batch["pixel_values"].to(self.args.device) for batch in loader)
            recalibrate_batch_norm(model, batches, self._frozen)

    @property
    def seconds(self) -> float:
        """Seconds of training so far, without evaluations."""
        return time.perf_counter() - self._started - self._seconds_evaluating

    def _record(self, model: EMTaskModel, result: dict[str, Any]) -> None:
        """Extend the curve; where the model is the best so far, write it to the output folder."""
        step, merit = self.state.global_step, model.figure_of_merit
        crops = step * crops_per_step(self.args)
        epoch = None if self.micrographs is None else round(crops / self.micrographs, 3)
        sign = 1 if model.greater_is_better else -1
        best = max((sign * entry[merit] for entry in self.curve), default=-float("inf"))
        self.curve.append({"step": step, "epoch": epoch, "seconds": round(self.seconds, 2), **result})
        better = sign * result[merit] > best
        if better:
            self._best = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        if self.is_world_process_zero():
            output = Path(self.args.output_dir)
            if better:
                self.save_model(str(output))
            write_text(output / "curve.json", json.dumps(self.curve, indent=1))

    def create_model_card(self, dataset: str = "micrographs", license: str | None = None, **kwargs: Any) -> None:
        """Write README.md from what the run did and measured.

        Args:
            dataset: name, folder or Hub id of the training data.
            license: of the weights, as the Hub names it ("cc-by-4.0"); without it the card says that none was stated.
            **kwargs: accepted for transformers, not used.
        """
        if self.is_world_process_zero():
            facts = run_facts(self, dataset, license)
            write_text(Path(self.args.output_dir) / "README.md", finetuned_card(facts))

    def push_to_hub(self, repo_id: str | None = None, **kwargs: Any) -> str | None:
        """Push the best model with card, test tensors and curve in one commit; returns the commit's address.

        Args:
            repo_id: `owner/name`; by default `args.hub_model_id`.
            **kwargs: `private`, `branch`, `tag`, `create_pr`, `token`, `message` of `emfm.hub.push.PushArguments`.

        Raises:
            EMError: nothing was trained yet, there is no repository, or the Hub refuses.
        """
        repo_id = repo_id or self.args.hub_model_id
        if repo_id is None or not self.curve:
            missing = "name a repository: push_to_hub('owner/name')" if self.curve else "nothing was trained: train()"
            raise EMError(f"cannot push: {missing}")
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
            self.model = merge(self.adapter)
            self.adapter = None

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Write the model folder file by file, each whole; transformers would add a pickle of its arguments."""
        if not self.args.should_save:  # transformers calls this on every process
            return
        output = Path(output_dir or self.args.output_dir)
        temporary = output / ".model.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        model = self.accelerator.unwrap_model(self.model)
        if self.adapter is None:
            model.save_pretrained(temporary)
        else:
            save_adapter(self.adapter, model, temporary)
        for file in temporary.iterdir():
            file.replace(output / file.name)
        temporary.rmdir()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # transformers would keep the best checkpoint and drop the newest, from which a run goes on; the best weights
        # lie in the output folder
        self.state.best_global_step = None
        super()._save_checkpoint(model, trial)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.args.should_save:
            save_state(self, Path(output_dir), self._best)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        weights = load_tensors(Path(resume_from_checkpoint), "model")
        (model or self.model).load_state_dict(weights)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_optimizer(self, Path(checkpoint))

    def _save_rng_state(self, output_dir: str) -> None:
        """Do nothing: crops follow from (seed, epoch, index), and no layer draws random numbers."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Do nothing, see above."""
