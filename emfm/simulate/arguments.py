"""What `emfm simulate` is told."""

from dataclasses import dataclass

from emfm.settings import SEEDS, OneOf, Range, check_settings, setting

KINDS = ("nanoparticles", "atomic-stem", "structures")


@dataclass(frozen=True)
class SimulateArguments:
    """Which micrographs are simulated, and how many.

    Raises:
        EMError: a setting has a value that it cannot have.
    """

    kind: str = setting(help="What they show.", allowed=OneOf(KINDS))
    count: int = setting(16, help="How many micrographs, at least one for each split.", allowed=Range(least=3))
    size: int = setting(512, help="Side in pixels.", allowed=Range(least=16))
    seed: int = setting(0, help="Decides every image.", allowed=SEEDS)

    def __post_init__(self):
        check_settings(self)
