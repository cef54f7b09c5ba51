"""The settings of a fine-tuning run."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from emfm.data.noise_kinds import NOISES
from emfm.defaults import DEFAULT_DENOISER
from emfm.errors import EMError
from emfm.inference.arguments import PredictArguments
from emfm.settings import COUNT, NOT_NEGATIVE, REQUIRED, SEEDS, OneOf, Range, Settings, field_of, same_setting, setting

# Rates of training; a denoiser that goes on learning from noisy pixels unlearns at the usual one.
RATE, GENTLE_RATE = 3e-3, 1e-4


def task_names() -> Iterable[str]:
    """Return the names of the tasks, with whose networks torch is imported."""
    from emfm.tasks import TASKS

    return TASKS


@dataclass(frozen=True)
class FinetuneArguments(Settings):
    """What `emfm finetune` is told; exactly one of `model` and `scratch` is given."""

    task: str = setting(REQUIRED, "What to learn: a name of `emfm.tasks.TASKS`.", OneOf(task_names), flag="TASK")
    data: str = setting(REQUIRED, "Folder with images/ and masks/ or targets/, or a dataset: parquet folder or Hub id.")
    output: str = setting(REQUIRED, "Folder of the finished model.")
    model: str | None = setting(
        None, "Pretrained model: zoo name, folder or Hub id; denoiser by default with --self-supervised."
    )
    scratch: str | None = setting(None, "Generator name: start from random weights.")
    norm: str | None = setting(None, "With --scratch: instance or batch, if it has the choice; by default the first.")
    degrade: str | None = setting(None, "Restoration: pairs from clean images: dose, paper, downsample or background.")
    self_supervised: bool = setting(
        False, "Denoising without targets: learn from noisy images, a folder or a stack, alone."
    )
    noise: str = setting(
        "auto",
        "With --self-supervised: auto measures; pixels (independent), rows or columns (lines), frames (repeats).",
        OneOf(NOISES),
    )
    dose: tuple[float, float] | None = setting(
        None,
        "With --degrade dose or background: fewest and most counts per pixel; by default 5 and 500.",
        Range(above=0),
    )
    scale: int | None = setting(None, "Super-resolution: 2 or 4; by default that of the pairs, else 2.", OneOf((2, 4)))
    residual: bool | None = setting(None, "Restoration: predict what is added to the input; by default as the task.")
    class_weights: str = setting(
        "root",
        "Segmentation: balanced (the inverse of a class's share of the pixels), root (its square "
        "root), none, or a number for each class, as in 0.5,2.",
    )
    all_scales: bool | None = setting(
        None, "Segmentation: let the head see all scales, and hand-made filters; by default with --steps 0."
    )
    nodata: float | None = same_setting(PredictArguments, "nodata")
    dataset: str | None = same_setting(PredictArguments, "dataset")
    colour: str | None = same_setting(PredictArguments, "colour")
    num_images: int | None = setting(None, "How many training images to use; all by default.", COUNT)
    leave_one_out: bool = setting(
        False,
        "Without a validation split: learn from all images, and measure with short trainings that "
        "leave each out once (of a single one, parts of its labels).",
    )
    streaming: bool = setting(False, "Read a dataset as it comes, without downloading it first.")
    steps: int = setting(300, "Training steps; 0 fits the head alone, in seconds.", NOT_NEGATIVE)
    minutes: float | None = setting(
        None, "Train for about so long in place of --steps, evaluations not counted.", Range(above=0)
    )
    batch_size: int = setting(8, "Crops at a time on each process.", COUNT)
    gradient_accumulation_steps: int = setting(1, "So many batches make one step.", COUNT)
    crop: int = setting(256, "Side of a crop in pixels, of the target's.", Range(least=16))
    learning_rate: float | None = setting(
        None,
        f"Peak of the cosine schedule; by default {RATE:g}, and {GENTLE_RATE:g} for a denoiser with --self-supervised.",
        Range(above=0),
    )
    backbone_lr_scale: float = setting(1.0, "The trunk's rate, as a share of the head's.", Range(above=0, most=1))
    freeze: str = setting("none", "What does not learn: none, encoder, all-but-head, last:K (all but the last K).")
    lora: int = setting(0, "Rank of LoRA's additions to a frozen trunk; 0 is without.", NOT_NEGATIVE)
    merge: bool = setting(False, "Save LoRA's additions merged into the weights.")
    early_stopping: int = setting(0, "Stop after so many evaluations without a better one; 0 never.", NOT_NEGATIVE)
    intensity_jitter: float = setting(
        0.2, "Random change of contrast and brightness; 0: none.", Range(least=0, below=1)
    )
    augment: float = setting(
        0.0,
        "Segmentation: strength of random zoom, rotation, bending, gamma, blur and noise; 0: turns "
        "by 90 degrees and mirrors alone.",
        Range(least=0, most=2),
    )
    precision: str = setting("auto", "auto: bf16 where the hardware has it.", OneOf(("auto", "fp32", "bf16")))
    workers: int | None = setting(
        None, "Processes that cut crops; by default up to 8 with a GPU, else 0.", NOT_NEGATIVE
    )
    seed: int = setting(0, "Decides new weights, images and crops.", SEEDS)
    license: str | None = setting(None, "Of the finished weights, for the card, as the Hub names it: cc-by-4.0.")
    resume: bool = setting(False, "Go on from the newest whole checkpoint.")

    def __post_init__(self):
        super().__post_init__()
        if self.self_supervised and self.model is None and self.scratch is None:
            object.__setattr__(self, "model", DEFAULT_DENOISER)
        self._check_left_out()
        if (self.model is None) == (self.scratch is None):
            raise EMError("give either a pretrained model (--model) or a generator for random weights (--scratch)")
        if self.scratch is not None and (self.lora or self.freeze != "none"):
            raise EMError("--lora and --freeze keep pretrained weights: they need --model, not --scratch")
        if self.scratch is None and self.norm is not None:
            raise EMError("--norm is for new weights, --scratch: those of a model have their own")
        if self.freeze == "all-but-head" and self.backbone_lr_scale != 1:
            raise EMError("--backbone-lr-scale is the trunk's rate, and --freeze all-but-head leaves it as it is")
        if self.merge and not self.lora:
            raise EMError("--merge merges LoRA's additions: give --lora RANK with it")
        if self.streaming and self.num_images is not None:
            raise EMError("--num-images draws from all images, which a stream does not know: leave one of them out")
        if self.streaming and self.nodata is not None:
            raise EMError("--nodata reads files; of a stream NaN alone is no data: leave --streaming or --nodata out")
        if self.minutes is not None and (self.streaming or self.resume):
            raise EMError(
                "--minutes times the first steps of images in memory: with --streaming or --resume give --steps"
            )
        if self.minutes is not None and self.steps != field_of(FinetuneArguments, "steps").default:
            raise EMError(f"--steps is {self.steps} and --minutes {self.minutes:g}: give one of them")
        if self.steps == 0 and (self.lora or self.freeze != "none" or self.early_stopping):
            raise EMError(
                "--steps 0 fits the head alone: --lora, --freeze and --early-stopping have no effect, leave them out"
            )
        if self.self_supervised and (self.degrade or self.streaming):
            raise EMError("--self-supervised learns from images as they are: leave --degrade and --streaming out")
        if self.noise != "auto" and not self.self_supervised:
            raise EMError(f"--noise {self.noise} is for --self-supervised: give that with it")
        if self.dose is not None and (len(self.dose) != 2 or self.dose[0] > self.dose[1]):
            raise EMError(
                f"dose is {self.dose}; expected the fewest and the most counts per pixel: --dose 5 --dose 500"
            )
        if self.dose is not None and self.degrade is None:
            raise EMError("--dose is for pairs that are made: give --degrade dose or background with it")
        if self.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", self.license):
            raise EMError(f"license is '{self.license}'; expected an identifier as on the Hub: cc-by-4.0, mit")

    def _check_left_out(self) -> None:
        if self.leave_one_out and (self.streaming or self.self_supervised):
            raise EMError(
                "--leave-one-out measures images with truth in memory: leave --streaming and --self-supervised"
            )
