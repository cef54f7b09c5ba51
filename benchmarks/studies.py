"""The studies of `benchmarks.transfer`: which runs each of them is made of."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from benchmarks.pretexts import AVERAGED, PARTIAL, PRETEXTS
from benchmarks.transfer_cell import PARTS, SIMULATED, TUNING_SEED, Cell
from benchmarks.transfer_report import Results, better, merit
from emfm.backbones.unet import DILATIONS

SEEDS = (0, 1, 2)
RATES = (3e-4, 1e-3, 3e-3)
PAPER_RATE = 2e-4


@dataclass(frozen=True)
class Problem:
    """What is to be learnt: a task on the micrographs of a folder, degraded where the task is restoration."""

    task: str
    data: str
    degrade: str | None = None


SEGMENTATION = tuple(
    Problem("segmentation", name)
    for name in (
        "vnc_mitochondria",
        "isbi_membrane",
        "axon_myelin",
        "superalloy_precipitates",
        "alumina_pt",
        "emps_particles",
    )
)
BIOLOGY, MATERIALS = SEGMENTATION[:3], SEGMENTATION[3:]
RESTORATION = (
    Problem("denoising", "alumina_pt", "dose"),
    Problem("super-resolution", "alumina_pt", "downsample"),
    Problem("background-removal", "alumina_pt", "background"),
    *(Problem(task, SIMULATED) for task in ("denoising", "super-resolution", "background-removal")),
)
# Rates of a task are chosen on these problems.
TUNING = {
    "segmentation": tuple(p for p in SEGMENTATION if p.data in ("vnc_mitochondria", "alumina_pt", "emps_particles")),
    **{problem.task: (problem,) for problem in RESTORATION[:3]},
}
GENERATORS = ("unet4-rf200-w16", "hrnet-w18-small")


@dataclass(frozen=True)
class Study:
    """Every combination of what varies.

    Attributes:
        title: what it asks.
        problems: to be learnt.
        generators: networks.
        starts: see `Cell`.
        images: numbers of labelled images; None for all.
        parts: what learns, see `Cell`.
        protocol: "strong" or "paper".
        steps: of every run.
        seeds: of the runs that are reported.
        rate: of all runs; None chooses one for each network and start.
        split: on which the reported runs are measured.
        panels: fields of `Cell` that tell the panels of its picture apart; what else varies is a
            line in a panel.
    """

    title: str
    problems: tuple[Problem, ...]
    generators: tuple[str, ...] = GENERATORS
    starts: tuple[str, ...] = ("random", "zoo")
    images: tuple[int | None, ...] = (3,)
    parts: tuple[str, ...] = ("all",)
    protocol: str = "strong"
    steps: int = 150
    seeds: tuple[int, ...] = SEEDS
    rate: float | None = None
    split: str = "test"
    panels: tuple[str, ...] = ("task", "data", "generator", "num_images")

    def tuning(self) -> list[Cell]:
        """Return the runs that choose the rates; none where the rate is given."""
        if self.rate is not None:
            return []
        representatives = dict.fromkeys(map(representative, self.generators))
        return [
            _tuning_cell(problem, generator, start, rate)
            for task in dict.fromkeys(problem.task for problem in self.problems)
            for problem, generator, start, rate in product(TUNING[task], representatives, self.starts, RATES)
        ]

    def cells(self, results: Results) -> list[Cell]:
        """Return the runs that are reported, at the rates that the tuning runs chose."""
        return list(self._cells(results))

    def _cells(self, results: Results) -> Iterator[Cell]:
        for problem, generator, images, start, part, seed in product(
            self.problems, self.generators, self.images, self.starts, self.parts, self.seeds
        ):
            if start == "random" and PARTS[part].keys() & {"freeze", "lora"}:
                continue  # random weights cannot stay as they are
            rate = self.rate or chosen_rate(problem.task, generator, start, results)
            cell = replace(_cell(problem, generator, start), protocol=self.protocol, steps=self.steps, split=self.split)
            yield replace(cell, num_images=images, part=part, seed=seed, learning_rate=rate)


def representative(generator: str) -> str:
    """Return the network whose rate a network takes: the U-Net of the paper's size with its width, or itself."""
    _, _, width = generator.partition("-w") if generator.startswith("unet") else ("", "", "")
    return "unet4-rf200" + (f"-w{width}" if width else "") if generator.startswith("unet") else generator


def chosen_rate(task: str, generator: str, start: str, results: Results) -> float:
    """Return the rate that is best on validation micrographs at the last step, on average over the tuning problems.

    Figures differ in size between problems, so each problem's are divided by their mean first.
    """
    problems = TUNING[task]
    scores = dict.fromkeys(RATES, 0.0)
    for problem in problems:
        cells = {rate: _tuning_cell(problem, representative(generator), start, rate) for rate in RATES}
        found = {rate: results[cell]["curve"][-1][merit(task)] for rate, cell in cells.items()}
        for rate, value in found.items():
            scores[rate] += value / (sum(found.values()) / len(RATES)) / len(problems)
    best = RATES[0]
    for rate in RATES[1:]:
        best = rate if better(task, scores[rate], scores[best]) else best
    return best


def _cell(problem: Problem, generator: str, start: str) -> Cell:
    return Cell(
        protocol="strong",
        task=problem.task,
        data=problem.data,
        degrade=problem.degrade,
        generator=generator,
        start=start,
        num_images=3,
        part="all",
        steps=150,
        batch_size=4,
        crop=128,
        learning_rate=RATES[0],
        seed=TUNING_SEED,
        split="validation",
    )


def _tuning_cell(problem: Problem, generator: str, start: str, rate: float) -> Cell:
    return replace(_cell(problem, generator, start), learning_rate=rate)


def _real(*names: str) -> tuple[Problem, ...]:
    return tuple(problem for problem in SEGMENTATION if problem.data in names)


# What is varied is learnt from short pretrainings of this network, see `benchmarks.pretexts`.
SHORT, SHORT_RATE = "unet4-rf200-w8", 1e-3
_SHORT: dict[str, Any] = {"generators": (SHORT,), "steps": 100, "rate": SHORT_RATE}
_CHOOSING = {**_SHORT, "seeds": (0, 1), "split": "validation"}
STUDIES = {
    "segmentation": Study("Six real data sets, three labelled images", SEGMENTATION),
    "restoration": Study("Denoising, super-resolution, noise and background removal", RESTORATION, images=(20,)),
    "generators": Study(
        "Networks and receptive fields",
        _real("alumina_pt"),
        generators=(*DILATIONS, "unet4-rf200-w16", "unet4-rf424-w16", "hrnet-w18-small"),
        images=(5,),
    ),
    "paper": Study(
        "The settings of the paper",
        _real("alumina_pt"),
        generators=("unet4-rf200", "hrnet-w18-small"),
        starts=("random", "paper-batch-norm"),
        images=(5,),
        protocol="paper",
        rate=PAPER_RATE,
    ),
    "widths": Study(
        "Does a small pretrained network equal a larger random one?",
        _real("vnc_mitochondria", "superalloy_precipitates", "emps_particles"),
        generators=("unet4-rf200", "unet4-rf200-w16"),
        panels=("task", "data"),
    ),
    "labels": Study(
        "How many labelled images?",
        _real("alumina_pt", "emps_particles"),
        generators=GENERATORS[:1],
        images=(1, 5, 20, None),
    ),
    "parts": Study(
        "Frozen, last layers, LoRA, or all",
        _real("vnc_mitochondria", "superalloy_precipitates", "emps_particles"),
        generators=GENERATORS[:1],
        parts=("all", "encoder frozen", "last 3 blocks", "head alone", "LoRA of rank 8"),
    ),
    "set-sizes": Study(
        "How many micrographs to pretrain on?",
        SEGMENTATION,
        starts=("random", "both-60", "both-200", "both"),
        **_SHORT,
    ),
    "adversarial": Study(
        "With and without the adversarial loss",
        SEGMENTATION,
        starts=("random", "paper", "paper-without-gan", "both-lsgan", "both"),
        **_SHORT,
    ),
    "fields": Study(
        "Biology-pretrained on materials, and the reverse",
        SEGMENTATION,
        starts=("random", "both-biology", "both-materials", "both"),
        **_SHORT,
    ),
    "pretexts": Study("What transfers?", SEGMENTATION, starts=("random", *PRETEXTS, *PARTIAL, *AVERAGED), **_CHOOSING),
    "finetuning": Study(
        "How to fine-tune?",
        SEGMENTATION,
        starts=("random", "both"),
        parts=("all", "head not fitted first", "trunk at 0.3 of the rate"),
        **_CHOOSING,
    ),
    "restoration-heads": Study(
        "What is a fitted head worth in restoration?",
        (RESTORATION[0], RESTORATION[2]),
        images=(20,),
        parts=("all", "head not fitted first"),
        **{**_CHOOSING, "generators": GENERATORS[:1], "rate": 3e-3},
    ),
}
