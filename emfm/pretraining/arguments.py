"""The settings of a pretraining run."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emfm.data.corruptions import CORRUPTIONS, CorruptionStrength
from emfm.data.sources import is_dataset
from emfm.defaults import DEFAULT_GENERATOR
from emfm.errors import EMError
from emfm.inference.arguments import PredictArguments
from emfm.settings import COUNT, NOT_NEGATIVE, REQUIRED, SEEDS, OneOf, Range, Settings, field_of, same_setting, setting

IMAGENET = "imagenet"  # what `init` says for the weights of timm's encoders
ADVERSARIAL = ("lsgan", "vanilla", "hinge", "none")
# What is learnt, by name, where it differs from the defaults. Those, "emfm", measured best (see
# docs/findings.md); "paper" is the recipe of Kazimi et al. 2024 (arXiv:2402.18286).
RECIPES: dict[str, dict[str, Any]] = {
    "emfm": {},
    "paper": {
        "corruption": "paper",
        "filters": False,
        "structures": 0,
        "adversarial": "lsgan",
        "learning_rate": 2e-4,
        "residual": False,
    },
}
# Settings that may differ when a run goes on: they change neither the data nor the result.
FREE_ON_RESUME = ("output", "resume", "save_steps", "save_total_limit", "workers", "compile")


@dataclass(frozen=True)
class PretrainArguments(Settings):
    """Settings of a pretraining run, stored with the weights; by default the recipe "emfm"."""

    data: tuple[str, ...] = setting(REQUIRED, "Folder of micrographs or parquet files, or Hub id; may be repeated.")
    output: str = setting(REQUIRED, "Folder of the run.")
    weights: tuple[float, ...] | None = setting(
        None, "Share of each --data of the crops, in order; by default its size.", Range(above=0), flag="--weight"
    )
    nodata: float | None = same_setting(PredictArguments, "nodata")
    dataset: str | None = same_setting(PredictArguments, "dataset")
    colour: str | None = same_setting(PredictArguments, "colour")
    num_images: int | None = setting(None, "How many micrographs, drawn by the seed; all by default.", COUNT)
    streaming: bool = setting(False, "Read datasets as they come, without downloading them first.")
    generator: str | None = setting(None, f"Generator name; by default --init's, else {DEFAULT_GENERATOR}.")
    init: str | None = setting(
        None, "First weights: imagenet (of timm's encoders), or a model to go on from; random by default."
    )
    norm: str | None = setting(None, "instance or batch, if the generator has the choice; by default the first.")
    residual: bool | None = setting(
        None, "Restore by changing the input; by default where the trunk has no path at full resolution."
    )
    steps: int = setting(20_000, "Training steps.", COUNT)
    batch_size: int = setting(16, "Crops at a time on each process.", COUNT)
    gradient_accumulation_steps: int = setting(1, "So many batches make one step.", COUNT)
    crop: int = setting(224, "Side of a crop in pixels.", Range(least=32))
    corruption: str = setting(
        "masked",
        "paper (blur, noise), dose (microscope), masked (paper, blocks hidden) or dose+masked.",
        OneOf(CORRUPTIONS),
    )
    strength: CorruptionStrength = setting(CorruptionStrength(), "Ranges of the damage.", on_command_line=False)
    filters: bool = setting(True, "Learn what hand-made filters see in the clean micrograph, too.")
    structures: int = setting(8, "Simulated crops beside each batch, whose regions are learnt, too.", NOT_NEGATIVE)
    adversarial: str = setting("none", "Loss of a GAN beside L1.", OneOf(ADVERSARIAL))
    discriminator_width: int = setting(64, "Channels of the discriminator's first layer.", COUNT)
    l1_weight: float = setting(100.0, "Weight of L1 beside the GAN's loss.", NOT_NEGATIVE)
    learning_rate: float = setting(2e-3, "Constant for half of the steps, then linear to 0.", Range(above=0))
    encoder_lr_scale: float | None = setting(
        None,
        "The encoder's rate, as a share of the decoder's; by default 0.1 with --init imagenet, else 1.",
        Range(above=0, most=1),
    )
    ema_decay: float = setting(0.999, "Of the averaged generator, which is what is saved.", Range(least=0, below=1))
    precision: str = setting("fp32", "Number format of training.", OneOf(("fp32", "bf16")))
    compile: bool = setting(False, "Let torch.compile fuse the networks' operations.")
    workers: int | None = setting(
        None, "Processes that cut crops; by default up to 8 with a GPU, else 0.", NOT_NEGATIVE
    )
    seed: int = setting(0, "Decides weights, crops and damage.", SEEDS)
    save_steps: int = setting(1000, "Steps between validation, picture and checkpoint.", COUNT)
    save_total_limit: int = setting(3, "Checkpoints that are kept.", COUNT)
    resume: bool = setting(False, "Go on from the newest whole checkpoint.")

    def __post_init__(self):
        super().__post_init__()
        if self.streaming and self.nodata is not None:
            raise EMError("--nodata reads files; of a stream NaN alone is no data: leave --streaming or --nodata out")
        if not self.data:
            raise EMError("no data were given; expected at least one folder or dataset")
        if self.weights is not None and len(self.weights) != len(self.data):
            raise EMError(f"{len(self.weights)} weights for {len(self.data)} data: give one each, or none")
        if self.streaming and self.num_images is not None:
            raise EMError(f"num_images is {self.num_images}: a stream does not know how many micrographs follow")
        for source in self.data:
            if self.dataset is not None and is_dataset(source):
                raise EMError(f"dataset is '{self.dataset}', but {source} holds rows of one image each: leave it out")
            if self.streaming and not is_dataset(source):
                raise EMError(f"{source} is no dataset: streaming takes Hub ids (owner/name) and parquet folders")

    @property
    def encoder_share(self) -> float:
        """The encoder's rate, as a share of the decoder's: what ImageNet taught it is kept."""
        if self.encoder_lr_scale is not None:
            return self.encoder_lr_scale
        return 0.1 if self.init == IMAGENET else 1.0

    def idle(self) -> list[str]:
        """Return the settings of a GAN that are given where there is none."""
        of_gan = [] if self.adversarial != "none" else ["discriminator_width", "l1_weight"]
        return [name for name in of_gan if getattr(self, name) != field_of(PretrainArguments, name).default]

    def recipe(self) -> dict[str, Any]:
        """Return the settings that decide the result, for checkpoints and cards."""
        settings = {name: value for name, value in asdict(self).items() if name not in FREE_ON_RESUME}
        if self.init is not None and Path(self.init).is_dir():
            settings["init"] = Path(self.init).name
        settings["data"] = [source if is_dataset(source) else Path(source).name for source in self.data]
        return json.loads(json.dumps(settings))


def from_recipe(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe's settings and those that are given (not None), which take precedence.

    Raises:
        EMError: there is no such recipe.
    """
    if name not in RECIPES:
        raise EMError(f"recipe is '{name}'; expected one of {', '.join(RECIPES)}")
    return RECIPES[name] | {key: value for key, value in settings.items() if value is not None}
