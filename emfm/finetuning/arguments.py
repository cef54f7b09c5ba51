"""The settings of a fine-tuning run."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from emfm.errors import EMError
from emfm.settings import SEEDS, OneOf, Range, check_settings, setting


def task_names() -> Iterable[str]:
    """Return the names of the tasks, with whose networks torch is imported."""
    from emfm.tasks import TASKS

    return TASKS


COUNT = Range(least=1)
NOT_NEGATIVE = Range(least=0)


@dataclass(frozen=True)
class FinetuneArguments:
    """What `emfm finetune` is told; exactly one of `model` and `scratch` is given.

    Raises:
        EMError: a setting has a value that it cannot have.
    """

    task: str = setting(help="What the network shall do.", allowed=OneOf(task_names))
    data: str = setting(help="Folder with images/ and masks/ or targets/, or a dataset: parquet folder or Hub id.")
    output: str = setting(help="Folder of the finished model.")
    model: str | None = setting(None, help="Pretrained model: zoo name, folder or Hub id.")
    scratch: str | None = setting(None, help="Generator name: start from random weights.")
    norm: str = setting("instance", help="With --scratch, of a U-Net: instance or batch.")
    degrade: str | None = setting(
        None, help="Restoration: make pairs from clean images: dose, paper, downsample or background."
    )
    scale: int | None = setting(
        None,
        help="Super-resolution: 2 or 4; by default what the pairs have, 2 to make pairs.",
        allowed=OneOf((2, 4)),
    )
    residual: bool | None = setting(
        None, help="Restoration: predict what is to be added to the input; by default what measured best."
    )
    class_weights: str = setting(
        "root",
        help="Segmentation: balanced (the inverse of a class's share of the pixels), root (its square root), none, "
        "or a number for each class, as in 0.5,2.",
    )
    num_images: int | None = setting(None, help="How many training images to use; all by default.", allowed=COUNT)
    streaming: bool = setting(False, help="Read a dataset as it comes, without downloading it first.")
    steps: int = setting(300, help="Training steps.", allowed=COUNT)
    batch_size: int = setting(8, help="Crops at a time on each process.", allowed=COUNT)
    gradient_accumulation_steps: int = setting(1, help="So many batches make one step.", allowed=COUNT)
    crop: int = setting(256, help="Side of a crop in pixels, of the target's.", allowed=Range(least=16))
    learning_rate: float = setting(1e-3, help="Peak of the cosine schedule.", allowed=Range(above=0))
    backbone_lr_scale: float = setting(
        1.0, help="The trunk's rate, as a share of the head's.", allowed=Range(above=0, most=1)
    )
    freeze: str = setting(
        "none", help="What does not learn: none, encoder, all-but-head, last:K (all but the last K blocks)."
    )
    lora: int = setting(0, help="Rank of LoRA's additions to a frozen trunk; 0 is without.", allowed=NOT_NEGATIVE)
    merge: bool = setting(False, help="Save LoRA's additions merged into the weights.")
    early_stopping: int = setting(
        0, help="Stop after so many evaluations without a better one; 0 never.", allowed=NOT_NEGATIVE
    )
    intensity_jitter: float = setting(
        0.2,
        help="Random change of a crop's contrast and brightness; 0 is none.",
        allowed=Range(least=0, below=1),
    )
    precision: str = setting(
        "auto", help="auto: bf16 where the hardware has it.", allowed=OneOf(("auto", "fp32", "bf16"))
    )
    workers: int | None = setting(
        None,
        help="Processes that cut crops; by default none on a CPU, up to 8 beside a GPU.",
        allowed=NOT_NEGATIVE,
    )
    seed: int = setting(0, help="Decides new weights, images and crops.", allowed=SEEDS)
    license: str | None = setting(None, help="Of the finished weights, for the card, as the Hub names it: cc-by-4.0.")
    resume: bool = setting(False, help="Go on from the newest whole checkpoint.")

    def __post_init__(self):
        check_settings(self)
        if (self.model is None) == (self.scratch is None):
            raise EMError(
                "give either a pretrained model (--model) or a generator's name for random weights (--scratch)"
            )
        if self.scratch is not None and (self.lora or self.freeze != "none"):
            raise EMError("--lora and --freeze keep pretrained weights: they need --model, not --scratch")
        if self.merge and not self.lora:
            raise EMError("--merge merges LoRA's additions: give --lora RANK with it")
        if self.streaming and self.num_images is not None:
            raise EMError("--num-images draws from all images, which a stream does not know: leave one of them out")
        if self.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", self.license):
            raise EMError(
                f"license is '{self.license}'; expected an identifier as on the Hub: apache-2.0, cc-by-4.0, mit"
            )
