"""What tests ask of a dataset folder: its rows, with the bytes of the files, and their pixels."""

import io
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from emfm.data.hub_images import PIXEL_SIZE


def reloaded(folder: Path) -> dict[str, list[dict]]:
    """Return the rows of every split, with the bytes of the files in place of pictures."""
    import datasets

    splits = datasets.load_dataset(str(folder))
    columns = dict(next(iter(splits.values())).features)
    assert columns.pop(PIXEL_SIZE) == datasets.Value("float64")
    assert all(isinstance(feature, datasets.Image) for feature in columns.values())
    for column in columns:
        splits = splits.cast_column(column, datasets.Image(decode=False))
    return {split: list(rows) for split, rows in splits.items()}


def pixels(cell: dict) -> np.ndarray:
    """Return the array of a cell in its own dtype."""
    content = cell["bytes"]
    tiff = content[:2] in (b"II", b"MM")
    return tifffile.imread(io.BytesIO(content)) if tiff else np.asarray(Image.open(io.BytesIO(content)))


def names(rows: list[dict]) -> list[str]:
    return [row["image"]["path"] for row in rows]


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
