"""Which mask or target belongs to which image of a folder."""

import logging
from collections import defaultdict
from pathlib import Path

from emfm.data.splits import NameIndex, stem
from emfm.errors import EMError, nearest
from emfm.io.masks import MASK_SUFFIXES, Mask, read_masks
from emfm.io.reading import SUFFIXES, FileChoice, Micrograph, list_micrographs, read_slices

logger = logging.getLogger(__name__)
# They change values: such a file is the truth of an image of the very same name alone.
LOSSY = (".jpg", ".jpeg")


class TruthFiles:
    """The files of `masks/`, `instances/` or `targets/`, found by their images.

    Args:
        folder: that holds them.
        kind: "masks", "instances" or "targets".
        images: folder of the images.
        names: of all images, relative to theirs.
    """

    def __init__(self, folder: Path, kind: str, images: Path, names: list[str]):
        self.folder, self.kind, self._images = folder, kind, images
        suffixes = SUFFIXES if kind == "targets" else MASK_SUFFIXES
        self._index = NameIndex(path.relative_to(folder).as_posix() for path in list_micrographs(folder, suffixes))
        self._names = set(names)
        self._found = {name: self._candidates(name) for name in names}
        self._images_of: dict[str, list[str]] = defaultdict(list)
        for name, candidates in self._found.items():
            for candidate in candidates:
                self._images_of[candidate].append(name)

    def _candidates(self, name: str) -> list[str]:
        """Return the truth of an image: of the same name, or of another lossless suffix."""
        lossless = [other for other in self._index.of_stem(stem(name)) if not other.lower().endswith(LOSSY)]
        for some in (self._index.find(name), lossless):
            # what has an image of its very name is that one's
            own = [other for other in some if other == name or other not in self._names]
            if own:
                return own
        return []

    def path(self, name: str) -> Path:
        """Return the truth of an image.

        Raises:
            EMError: there is none, there are several, or another image has the same.
        """
        image, found, kind = self._images / name, self._found[name], self.kind[:-1]
        if not found:
            if lossy := [other for other in self._index.of_stem(stem(name)) if other.lower().endswith(LOSSY)]:
                raise EMError(
                    f"{image} has no {kind} but {self.folder / lossy[0]}, a JPEG file, which changes values: "
                    "save it as PNG or TIFF, from the original"
                )
            hint = nearest(name, self.unused())
            near = f"; {hint}" if hint.startswith("did") else ""
            raise EMError(f"{image} has no {kind}: expected {self.folder / name}{near}")
        if len(found) > 1:
            raise EMError(f"{image} has several {kind}s in {self.folder}: {', '.join(found)}; keep one")
        shared = self._images_of[found[0]]
        if len(shared) > 1:
            raise EMError(
                f"{self.folder / found[0]} would be the {kind} of {' and of '.join(sorted(shared))}: "
                "give each image a name of its own"
            )
        return self.folder / found[0]

    def paths(self) -> list[Path]:
        """Return all files."""
        return [self.folder / name for name in self._index.names]

    def read(self, path: Path, choice: FileChoice) -> list[Mask] | list[Micrograph]:
        """Read masks or numbers, by rules for masks, or target images: one, or one a slice."""
        return list(read_slices(path, choice)) if self.kind == "targets" else read_masks(path)

    def unused(self) -> list[str]:
        """Return the truths that belong to no image."""
        return [name for name in self._index.names if name not in self._images_of]

    def warn_of_unused(self) -> None:
        """Say which truths belong to no image."""
        unused = self.unused()
        if unused:
            more = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
            named = ", ".join(unused[:3])
            logger.warning("%s: no image belongs to %s%s: left out", self.folder, named, more)
