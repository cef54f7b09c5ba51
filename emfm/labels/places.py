"""Which micrograph a file of labels belongs to."""

import logging
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from emfm.data.splits import NameIndex, stem
from emfm.errors import EMError, nearest
from emfm.io.reading import list_micrographs
from emfm.labels.shapes import DrawnImage

logger = logging.getLogger(__name__)
MOST_SHOWN = 3  # names of many


class Places:
    """Finds the micrograph of each file of labels.

    Args:
        source: file or folder of the labels.
        form: the program that made them.
        images: folder of the micrographs; that of the labels if None.

    Raises:
        EMError: the labels are images themselves, and no folder is given.
    """

    def __init__(self, source: Path, form: str, images: str | None):
        if images is None and form in ("napari", "ilastik"):
            raise EMError("labels that are images do not tell where the micrographs are: give --images FOLDER")
        self.folder = Path(images) if images is not None else source if source.is_dir() else source.parent
        self._index = NameIndex(path.relative_to(self.folder).as_posix() for path in list_micrographs(self.folder))
        self._by_base: dict[str, list[str]] = {}
        for name in self._index.names:
            for key in (PurePosixPath(name).name.casefold(), stem(PurePosixPath(name).name)):
                if name not in self._by_base.setdefault(key, []):
                    self._by_base[key].append(name)

    def pairs(self, found: Iterable[DrawnImage]) -> dict[str, list[DrawnImage]]:
        """Return for each micrograph what was drawn on it, or on its slices.

        Raises:
            EMError: a name stands for no micrograph or for several, or two files are of one.
        """
        pairs: dict[str, list[DrawnImage]] = {}
        found = list(found)
        alone = len({image.file for image in found}) == 1 and len(self._index.names) == 1
        for image in found:
            name = self._index.names[0] if alone and image.shape is None else self._name(image)
            others = pairs.setdefault(name, [])
            if any(other.index == image.index for other in others):
                raise EMError(f"{others[0].file} and {image.file} are both of {self.folder / name}: keep one")
            others.append(image)
        unused = sorted(set(self._index.names) - set(pairs))
        if unused:
            more = f" and {len(unused) - MOST_SHOWN} more" if len(unused) > MOST_SHOWN else ""
            logger.warning("%s: no labels belong to %s%s: left out", self.folder, ", ".join(unused[:MOST_SHOWN]), more)
        return pairs

    def _name(self, image: DrawnImage) -> str:
        """Return the micrograph of the very name, of that name in a sub-folder, or of that stem."""
        base = PurePosixPath(image.image).name
        for some in (
            self._index.find(image.image),
            self._by_base.get(base.casefold(), []),
            self._by_base.get(stem(base), []),
        ):
            if len(some) > 1:
                raise EMError(
                    f"{image.file} is of the image '{image.image}', which may be {' or '.join(some)} of {self.folder}"
                )
            if some:
                return some[0]
        hint = nearest(image.image, self._index.names[:1000])
        hint = hint if hint.startswith("did") else "give its folder with --images"
        raise EMError(f"{image.file} is of the image '{image.image}', which is not in {self.folder}; {hint}")

    def path(self, name: str) -> Path:
        """Return a micrograph's path."""
        return self.folder / name
