"""The model zoo: which models there are, and what is known of each.

`facts.json` beside the weights holds the facts; `python -m model_cards.render` writes it from the
files in `model_cards/`, the run's configuration and the committed results.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from emfm.errors import EMError
from emfm.loading.model_files import RECORD
from emfm.loading.names import BUNDLED, bundled_names, zoo_id

FACTS = "facts.json"
# Heading and format of each figure.
FORMS = {"dice": ("Dice", ".3f"), "iou": ("IoU", ".3f"), "l1": ("L1", ".4f"), "psnr": ("PSNR (dB)", ".2f")}
FORMS |= {"ssim": ("SSIM", ".3f")}


@dataclass(frozen=True)
class DataSource:
    """One source of the data that a model was pretrained on."""

    name: str  # as in the run's configuration
    what: str  # kind of microscopy and specimen
    origin: str  # who published it
    license: str  # of the images
    pixel_size: float | None  # nm per pixel, None where the source does not say

    def __str__(self) -> str:
        size = f", {self.pixel_size:g} nm per pixel" if self.pixel_size else ""
        return f"{self.name}: {self.what}{size}; {self.origin}; {self.license}"


@dataclass(frozen=True)
class Metric:
    """One measured figure."""

    name: str  # "dice", "iou", "l1", "psnr" or "ssim"
    value: float  # mean over the repeats
    spread: float | None  # standard deviation over the repeats, None where there is but one
    repeats: str  # how many runs, and of what: "3 seeds"
    n: str  # of how many images each: "15 test micrographs"
    task: str  # "restoration", or the task that the model was fine-tuned for
    data: str  # what was measured on
    setting: str  # what was done before
    compared: dict[str, tuple[float, float | None]]  # what to beat: value, spread
    command: str  # measures it
    result: str  # the committed file with its outcome

    def __str__(self) -> str:
        heading, form = FORMS[self.name]
        others = ", ".join(f"{name} {mean_and_spread(*other, form)}" for name, other in self.compared.items())
        value = mean_and_spread(self.value, self.spread, form)
        return f"{heading} {value} ({others}): {self.data}, {self.setting}; {self.repeats}, {self.n}"


def mean_and_spread(mean: float, spread: float | None, form: str) -> str:
    """Return a mean and its standard deviation, where there is one, as text."""
    return format(mean, form) if spread is None else f"{mean:{form}} ± {spread:{form}}"


@dataclass(frozen=True)
class ModelInfo:
    """Facts of one model: a pretrained generator, or one fine-tuned to be used as it is."""

    name: str  # what `from_pretrained` takes
    summary: str  # one line
    parameters: int  # number of weights
    receptive_field: int  # side in pixels
    size: int  # bytes of the weights file
    license: str  # of the weights
    pixel_size_range: tuple[float, float] | None  # of the training data in nm, None if not known
    pixel_sizes: str  # what is known of them
    data: list[DataSource]  # sources of the training
    command: str  # trains it anew
    hours: float  # duration of the training
    metrics: list[Metric]  # what was measured
    recommended_for: list[str]  # tasks for which it is the first to try
    intended_use: list[str]  # what it is for
    limits: list[str]  # what it cannot do
    not_tested: list[str]  # what nobody has measured
    pretraining: dict[str, Any]  # the whole recipe, as stored with the weights
    finetuning: dict[str, Any] | None  # the record of the fine-tuning; None of a pretrained generator
    bundled: bool  # whether the weights are in this package
    hub_id: str | None  # where they lie on the Hub; None where no account there holds the zoo

    @property
    def task(self) -> str | None:
        """What it was fine-tuned for; None of a pretrained generator."""
        return self.finetuning["task"] if self.finetuning else None

    @property
    def generator(self) -> str:
        """The network, as `--generator` and `--scratch` name it."""
        return self.finetuning["generator"] if self.finetuning else self.pretraining["generator"]

    @property
    def place(self) -> str:
        """Where `from_pretrained` finds the weights."""
        if self.bundled:
            return "package"
        return f"Hub: {self.hub_id}" if self.hub_id else "not to be had: set EMFM_ZOO to an account on the Hub"

    @property
    def data_licenses(self) -> list[str]:
        """Licences of the images that it was trained on, each once."""
        return list(dict.fromkeys(source.license for source in self.data))

    @property
    def headlines(self) -> list[Metric]:
        """The first figure of each thing that was measured."""
        firsts = {(metric.command, metric.data): metric for metric in reversed(self.metrics)}
        return list(firsts.values())[::-1]

    def shown_pixel_sizes(self) -> str:
        """Return the range of pixel sizes as text."""
        return "not known" if self.pixel_size_range is None else "{:g} to {:g} nm".format(*self.pixel_size_range)

    def to_dict(self) -> dict[str, Any]:
        """Return all facts for JSON, `task`, `place` and `data_licenses` among them."""
        return asdict(self) | {"task": self.task, "place": self.place, "data_licenses": self.data_licenses}


# What `facts.json` does not hold: it lies beside it, or depends on the machine.
NOT_STORED = ("pretraining", "finetuning", "bundled", "hub_id")


def read_facts(folder: str | Path) -> ModelInfo:
    """Return the facts that a folder of the zoo holds; an EMError says that they are damaged."""
    path = Path(folder) / FACTS
    if not path.is_file():
        raise EMError(f"{folder} holds no {FACTS}: it is no model of the zoo")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        pretraining = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))["pretraining"]
        stored["data"] = [DataSource(**source) for source in stored["data"]]
        stored["metrics"] = [_metric(metric) for metric in stored["metrics"]]
        pixel_sizes = stored["pixel_size_range"]
        stored["pixel_size_range"] = tuple(pixel_sizes) if pixel_sizes else None
        bundled, hub_id = stored["name"] in bundled_names(), zoo_id(stored["name"])
        runs = {"pretraining": pretraining, "finetuning": _finetuning(path.parent)}
        return ModelInfo(**stored, **runs, bundled=bundled, hub_id=hub_id)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        expected = ", ".join(field.name for field in fields(ModelInfo) if field.name not in NOT_STORED)
        raise EMError(f"{path} is damaged ({error}); expected {expected}") from error


def _finetuning(folder: Path) -> dict[str, Any] | None:
    record = folder / RECORD
    return json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None


def _metric(stored: dict[str, Any]) -> Metric:
    value_and_spread = {name: (value, spread) for name, (value, spread) in stored["compared"].items()}
    return Metric(**stored | {"compared": value_and_spread})


def model_info(name: str) -> ModelInfo:
    """Return the facts of one model of the zoo; its weights are not loaded.

    Raises:
        EMError: the zoo has no model of this name.
    """
    known = zoo_names()
    if name not in known:
        raise EMError(f"the zoo has no model '{name}'; it has {', '.join(known)}")
    return read_facts(BUNDLED / name)


def zoo_names() -> list[str]:
    """Return the names of all models of which this package holds facts, bundled or on the Hub."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{FACTS}"))


def list_models() -> list[ModelInfo]:
    """Return the facts of every model that `from_pretrained` knows by name, smallest first."""
    return sorted(map(model_info, zoo_names()), key=lambda info: info.parameters)
