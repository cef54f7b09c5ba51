"""Models in the formats of other programs: ONNX and bioimage.io. Needs the extra `emfm[export]`."""

from dataclasses import dataclass

from emfm.settings import Settings, setting


@dataclass(frozen=True)
class PackageArguments(Settings):
    """What a bioimage.io package says beside what the model knows of itself."""

    name: str | None = setting(None, "bioimageio: the model's name; by default MODEL's.")
    authors: tuple[str, ...] = setting((), "bioimageio: name of an author; may be repeated.", flag="--author")
    license: str | None = setting(None, "bioimageio: SPDX identifier, as in Apache-2.0; by default the card's.")
