"""Which kind of source of micrographs a text names."""

from pathlib import Path


def is_dataset(source: str) -> bool:
    """Tell whether a source is a dataset (on the Hub, or parquet files), not a folder of images."""
    folder = Path(source)
    if folder.is_dir():
        return any(folder.glob("*.parquet")) or any(folder.glob("*/*.parquet"))  # Hub layouts
    if folder.exists():
        return False
    return source.count("/") == 1 and not source.startswith((".", "/", "~"))
