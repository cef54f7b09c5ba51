"""What `emfm demo` is told."""

from dataclasses import dataclass

from emfm.settings import SEEDS, Range, check_settings, setting


@dataclass(frozen=True)
class DemoArguments:
    """Settings of the demonstration.

    Raises:
        EMError: a setting has a value that it cannot have.
    """

    output: str = setting("demo_output", "Folder for the report.")
    data: str | None = setting(None, "Labelled folder to use instead of simulated micrographs.")
    steps: int = setting(120, "Training steps of each model.", Range(least=1))
    seed: int = setting(0, "Decides everything.", SEEDS)

    def __post_init__(self):
        check_settings(self)
