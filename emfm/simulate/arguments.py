"""What `emfm simulate` is told."""

from dataclasses import dataclass

from emfm.settings import REQUIRED, SEEDS, OneOf, Range, check_settings, setting

KINDS = ("nanoparticles", "atomic-stem", "structures")


@dataclass(frozen=True)
class SimulateArguments:
    """Which micrographs are simulated, and how many.

    Raises:
        EMError: a setting has a value that it cannot have.
    """

    kind: str = setting(REQUIRED, "What they show.", OneOf(KINDS), flag="KIND")
    count: int = setting(16, "How many micrographs, at least one for each split.", Range(least=3))
    size: int = setting(512, "Side in pixels.", Range(least=16))
    seed: int = setting(0, "Decides every image.", SEEDS)

    def __post_init__(self):
        check_settings(self)
