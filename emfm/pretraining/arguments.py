"""The settings of a pretraining run."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from emfm.data.degradations import CORRUPTIONS, CorruptionStrength
from emfm.data.sources import is_dataset
from emfm.defaults import DEFAULT_GENERATOR
from emfm.errors import EMError
from emfm.pretraining.losses import ADVERSARIAL

# What is learnt, by name, where it differs from the defaults. Those, "emfm", measured best for fine-tuning, see
# docs/findings.md; "paper" is the recipe of Kazimi et al. 2024 (arXiv:2402.18286).
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
class PretrainArguments:
    """Settings of one pretraining run; they are stored with the weights. The defaults are the recipe "emfm".

    Raises:
        EMError: a setting has a value that it cannot have.
    """

    data: tuple[str, ...]  # folders of micrographs, folders of parquet files, or ids of datasets on the Hub
    output: str  # folder of the run
    weights: tuple[float, ...] | None = None  # of the data, one each; by default every micrograph counts alike
    num_images: int | None = None  # so many micrographs, drawn by the seed; those of n are among those of n + 1
    streaming: bool = False  # read datasets as they come instead of downloading and decoding them first
    generator: str = DEFAULT_GENERATOR
    norm: str = "instance"  # normalisation layers, where the generator leaves a choice
    residual: bool | None = None  # restore by changing the input; by default where the trunk has no full resolution
    steps: int = 20_000
    batch_size: int = 16  # crops at a time on each process
    gradient_accumulation_steps: int = 1  # so many batches make one step
    crop: int = 224  # side in pixels
    corruption: str = "masked"
    strength: CorruptionStrength = field(default_factory=CorruptionStrength)
    filters: bool = True  # learn the responses of hand-made filters to the clean micrograph, too
    structures: int = 8  # beside each batch, so many crops of simulated structures, whose regions are learnt
    adversarial: str = "none"  # L1 alone, or a GAN: "lsgan", "vanilla", "hinge"
    discriminator_width: int = 64
    l1_weight: float = 100.0
    learning_rate: float = 2e-3  # constant for the first half, then linear to 0
    ema_decay: float = 0.999  # of the averaged generator, which is what is saved
    precision: str = "fp32"
    compile: bool = False  # let torch.compile fuse the networks' operations
    workers: int | None = None  # processes that cut crops; None: none on a CPU, up to 8 beside a GPU
    seed: int = 0
    save_steps: int = 1000  # validation, picture and checkpoint
    save_total_limit: int = 3  # checkpoints that are kept
    resume: bool = False

    def __post_init__(self):
        for name, known in (
            ("adversarial", ADVERSARIAL),
            ("precision", ("fp32", "bf16")),
            ("corruption", CORRUPTIONS),
        ):
            if getattr(self, name) not in known:
                raise EMError(f"{name} is '{getattr(self, name)}'; expected one of {', '.join(known)}")
        least = {"steps": 1, "batch_size": 1, "gradient_accumulation_steps": 1, "crop": 32, "save_steps": 1}
        least |= {"save_total_limit": 1, "discriminator_width": 1, "seed": 0, "structures": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise EMError(f"{name} is {getattr(self, name)}; expected at least {smallest}")
        if self.workers is not None and self.workers < 0:
            raise EMError(f"workers is {self.workers}; expected at least 0")
        if self.num_images is not None and (self.num_images < 1 or self.streaming):
            raise EMError(
                f"num_images is {self.num_images}; expected at least 1, and data that are not streamed: a stream does "
                "not know how many micrographs follow"
            )
        self._check_data()

    def _check_data(self):
        if not self.data:
            raise EMError("no data were given; expected at least one folder or dataset")
        if self.weights is not None and (len(self.weights) != len(self.data) or min(self.weights) <= 0):
            raise EMError(
                f"{len(self.weights)} weights {self.weights} for {len(self.data)} data: give each one above 0, or none"
            )
        folders = [source for source in self.data if not is_dataset(source)]
        if self.streaming and folders:
            raise EMError(
                f"{folders[0]} is no dataset: streaming takes ids of datasets on the Hub (owner/name) and folders of "
                "parquet files"
            )

    def recipe(self) -> dict[str, Any]:
        """Return the settings that decide the result, for checkpoints and cards."""
        settings = {name: value for name, value in asdict(self).items() if name not in FREE_ON_RESUME}
        settings["data"] = [source if is_dataset(source) else Path(source).name for source in self.data]
        return json.loads(json.dumps(settings))


def from_recipe(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe's settings and those that are given; what is None is left out, for the recipe or the default.

    Raises:
        EMError: there is no such recipe.
    """
    if name not in RECIPES:
        raise EMError(f"recipe is '{name}'; expected one of {', '.join(RECIPES)}")
    return RECIPES[name] | {key: value for key, value in settings.items() if value is not None}
