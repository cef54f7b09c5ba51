"""The backbones: kinds of trunk, and the names of the generators that are built on them."""

from typing import Any

from emfm.backbones.hrnet import HRNetTrunk
from emfm.backbones.timm_unet import TimmUNetTrunk
from emfm.backbones.trunk import Trunk
from emfm.backbones.unet import UNetTrunk
from emfm.errors import EMError, nearest

# A new backbone is a file with a subclass of Trunk, and a line here.
BACKBONES: dict[str, type[Trunk]] = {"unet": UNetTrunk, "hrnet": HRNetTrunk, "timm-unet": TimmUNetTrunk}


def generator_names() -> list[str]:
    """Return the names of all generators that are listed; other widths are valid besides."""
    return [name for trunk in BACKBONES.values() for name in trunk.generators]


def generator_fields(name: str) -> dict[str, Any]:
    """Return the fields of a configuration that a generator's name stands for.

    Raises:
        EMError: the name is not known; the message holds the nearest names.
    """
    for backbone, trunk in BACKBONES.items():
        fields = trunk.fields_of(name)
        if fields is not None:
            return {"backbone": backbone, "norm": trunk.norms[0], **fields}
    hints = "".join(trunk.names_hint for trunk in BACKBONES.values())
    raise EMError(f"'{name}' is not a generator; {nearest(name, generator_names())}{hints}")


def has_norms(generator: str) -> bool:
    """Tell whether a generator has a choice of norms."""
    return len(BACKBONES[generator_fields(generator)["backbone"]].norms) > 1
