"""Which kind of source of micrographs a text names."""

from pathlib import Path

from emfm.errors import EMError, nearest


def is_dataset(source: str) -> bool:
    """Tell whether a source is a dataset (on the Hub, or parquet files), not a folder of images.

    Raises:
        EMError: it may be a dataset's id, but names nothing in a folder of this machine.
    """
    folder = Path(source)
    if folder.is_dir():
        return any(folder.glob("*.parquet")) or any(folder.glob("*/*.parquet"))  # Hub layouts
    if folder.exists():
        return False
    if is_hub_id(source):
        check_no_folder(source)
        return True
    return False


def is_hub_id(name: str) -> bool:
    """Tell whether a name can be that of a repository on the Hub: owner/name."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def check_no_folder(name: str) -> None:
    """Raise an EMError where owner/name is rather a mistyped path: the owner is a folder here."""
    parent = Path(name).parent
    if parent.is_dir():
        inside = sorted(path.name for path in parent.iterdir() if not path.name.startswith("."))
        hint = nearest(Path(name).name, inside) if inside else "it is empty"
        raise EMError(
            f"there is no {name}, though there is a folder {parent}; {hint} (for a repository of that name on the Hub "
            "run the command from another folder)"
        )
