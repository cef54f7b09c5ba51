"""timm, imported when a network of its is built, and the names of its networks."""

from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from importlib.metadata import distributions
from types import ModuleType

from emfm.errors import EMError


def import_timm() -> ModuleType:
    """Import timm, or say which of torch and torchvision do not fit together.

    Raises:
        EMError: it does not import; the message names the versions and the command that mends it.
    """
    try:
        return import_module("timm")
    except (ImportError, RuntimeError, AttributeError) as error:  # a torchvision of another torch
        installed = {package.name: package.version for package in distributions()}
        needed = ("torch", "torchvision", "timm")
        found = ", ".join(f"{name} {installed.get(name, '(missing)')}" for name in needed)
        raise EMError(
            f"this network needs timm, which does not import here ({found}): {error}. "
            "Install versions that fit together: pip install --upgrade torch torchvision timm"
        ) from error


@lru_cache(maxsize=1)
def _networks() -> dict[str, str]:
    """Return timm's names by the way emfm writes them: small letters, digits and hyphens."""
    timm = import_timm()
    # the latter bring the name of their weights, as in resnet18.a1_in1k
    names = [*timm.list_pretrained(), *timm.list_models()]
    return {name.lower().replace("_", "-").replace(".", "-"): name for name in names}


def timm_name(name: str) -> str:
    """Return timm's name of a network that is written with hyphens alone.

    Raises:
        EMError: timm has none of this name; the message holds the nearest.
    """
    known = _networks()
    if name not in known:
        close = get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "timm.list_models() names them"
        raise EMError(f"timm has no network '{name}'; {hint}")
    return known[name]
