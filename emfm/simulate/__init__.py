"""Simulated micrographs with exact truth."""

from dataclasses import dataclass

from emfm.settings import REQUIRED, SEEDS, OneOf, Range, Settings, setting

LARGEST = 2**15  # px: a larger image takes tens of GB in the making
KINDS = ("nanoparticles", "atomic-stem", "structures")


@dataclass(frozen=True)
class SimulateArguments(Settings):
    """Which micrographs are simulated, and how many."""

    kind: str = setting(REQUIRED, "What they show.", OneOf(KINDS), flag="KIND")
    count: int = setting(16, "How many micrographs, at least one for each split.", Range(least=3))
    size: int = setting(512, "Side in pixels.", Range(least=16, most=LARGEST))
    seed: int = setting(0, "Decides every image.", SEEDS)
