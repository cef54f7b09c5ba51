"""Looking into an unpacked download: what it holds, an order drawn by a seed, images that may be in colour."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from emfm.errors import EMError
from emfm.hub.datasets.encoded_image import EncodedImage, encode_image, kept_file


def shuffled(items: Sequence[str], seed: int) -> list[str]:
    """Return the items in an order drawn by the seed."""
    return [items[index] for index in np.random.default_rng(seed).permutation(len(items))]


def contents(folder: Path) -> str:
    """Return what a folder holds, for errors: its folders, and its files counted by suffix."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    folders = [f"{entry.name}/" for entry in entries if entry.is_dir()]
    suffixes = Counter(entry.suffix or "no suffix" for entry in entries if entry.is_file())
    parts = [*folders[:12], *(f"{count} files ({suffix})" for suffix, count in suffixes.most_common(6))]
    return ", ".join(parts) or "nothing"


def grey_file(path: Path) -> EncodedImage:
    """Return an image file as it is if it is grey, also when stored as RGB; one in colour as PNG of its luminance.

    Raises:
        EMError: the file is damaged.
    """
    try:
        with Image.open(path) as picture:
            colours = np.asarray(picture.convert("RGB")) if picture.mode in ("RGB", "RGBA", "P") else None
            if colours is not None and (colours != colours[..., :1]).any():
                return encode_image(np.asarray(picture.convert("L")), path.stem)
    except OSError as error:
        raise EMError(f"{path} is damaged or no image ({error}); download it again") from error
    return kept_file(path)
