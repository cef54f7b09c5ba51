"""The demonstration: pretrained, random weights and a random forest on three labels."""

from dataclasses import dataclass

from emfm.settings import COUNT, SEEDS, Settings, setting


@dataclass(frozen=True)
class DemoArguments(Settings):
    """Settings of the demonstration."""

    output: str = setting("demo_output", "Folder for the report.")
    data: str | None = setting(None, "Labelled folder to use instead of the bundled micrographs.")
    steps: int = setting(120, "Training steps of each network.", COUNT)
    seed: int = setting(0, "Decides everything.", SEEDS)
