"""A look at DM3, DM4, SER and EMD files before rosettasciio reads them, so that damage costs neither time nor memory.

Formats: C. Boothroyd's descriptions of DigitalMicrograph and TIA files, https://personal.ntu.edu.sg/cbb/info.
"""

import math
import struct
from pathlib import Path
from typing import BinaryIO

from emfm.io.formats.planes import LARGEST_RATIO, WHOLE_BYTES

# Bytes of a value in a DM file, by the number of its type; the last are those of pixels in a SER file.
_DM_BYTES = {2: 2, 3: 4, 4: 2, 5: 4, 6: 4, 7: 8, 8: 1, 9: 1, 10: 1, 11: 8, 12: 8}
_SER_BYTES = {1: 1, 2: 2, 3: 4, 4: 1, 5: 2, 6: 4, 7: 4, 8: 8, 9: 8, 10: 16}
# Values of one tag that are not pixels: rosettasciio makes a Python object of each.
MOST_VALUES = 2_000_000
DEEPEST, MOST_FIELDS, MOST_DIMENSIONS = 64, 1000, 16
_STRUCT, _STRING, _ARRAY = 15, 18, 20
_SER_IMAGES = 0x4122


class _Bounded:
    """Reads numbers of a file and never beyond its end."""

    def __init__(self, file: BinaryIO, size: int):
        self.file, self.left = file, size

    def take(self, count: int) -> bytes:
        self.left -= count
        if count < 0 or self.left < 0:
            raise ValueError(f"{count} bytes where {self.left + count} are left")
        return self.file.read(count)

    def skip(self, count: int) -> None:
        self.take(0 if count >= 0 else count)
        self.left -= count
        if self.left < 0:
            raise ValueError(f"{count} bytes where {self.left + count} are left")
        self.file.seek(count, 1)

    def unpack(self, layout: str) -> tuple:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))


class _DMTags:
    """Walks the tags of a DM file."""

    def __init__(self, source: _Bounded, size: int):
        self._source, self._size = source, size
        (version,) = source.unpack(">i")
        if version not in (3, 4):
            raise ValueError(f"version {version}; expected 3 or 4")
        self._wide = version == 4
        self._number()
        self.big_endian = source.unpack(">i")[0] == 0
        self._group("", 0)

    def _number(self) -> int:
        return self._source.unpack(">q" if self._wide else ">i")[0]

    def _group(self, name: str, depth: int) -> None:
        if depth > DEEPEST:
            raise ValueError(f"tags nested {depth} deep")
        self._source.take(2)
        if self._wide and depth:
            self._number()
        lengths: list[int] = []
        for _ in range(self._number()):
            kind, length = self._source.unpack(">Bh")
            tag = self._source.take(length).decode("latin-1")
            if kind == 20:
                self._group(tag, depth + 1)
            elif kind == 21:
                lengths += self._data(name, tag)
            else:
                raise ValueError(f"a tag of kind {kind}")
        if name == "Dimensions" and (min(lengths, default=1) < 1 or math.prod(lengths) > self._size):
            raise ValueError(f"an image of {lengths} pixels in {self._size} bytes")

    def _data(self, group: str, tag: str) -> list[int]:
        """Pass the value of a tag, and return it if it is one integer."""
        if self._wide:
            self._number()
        if self._source.take(4) != b"%%%%":
            raise ValueError("a tag without its mark")
        size, kind = self._number(), self._number()
        if size == 1:
            value = self._source.take(_DM_BYTES[kind])
            return [int.from_bytes(value, "big" if self.big_endian else "little")] if kind in (2, 3, 4, 5) else []
        count = 1
        if kind == _STRING:
            nbytes, values = self._number(), 1
        elif kind == _STRUCT:
            nbytes, values = self._fields()
        elif kind == _ARRAY:
            nbytes, values, count = self._array()
        else:
            raise ValueError(f"a value of kind {kind}")
        if not (group == "ImageData" and tag == "Data") and max(nbytes, values) * count > MOST_VALUES * 8:
            raise ValueError(f"a tag '{tag[:20]}' of {nbytes * count} bytes")
        self._source.skip(nbytes * count)
        return []

    def _array(self) -> tuple[int, int, int]:
        kind = self._number()
        if kind == _STRUCT:
            return *self._fields(), self._number()
        if kind == _STRING:
            return self._number(), 1, self._number()
        if kind == _ARRAY:
            kind, length = self._number(), self._number()
            return _DM_BYTES[kind] * length, length, self._number()
        return _DM_BYTES[kind], 1, self._number()

    def _fields(self) -> tuple[int, int]:
        self._number()
        count = self._number()
        if not 0 <= count <= MOST_FIELDS:
            raise ValueError(f"a structure of {count} fields")
        kinds = [(self._number(), self._number())[1] for _ in range(count)]
        return sum(_DM_BYTES[kind] for kind in kinds), count


def check_dm(path: Path) -> bool:
    """Walk the tags of a DM3 or DM4 file, and return whether its values are big-endian.

    Raises:
        ValueError: a tag reaches beyond the end, or an image is larger than the file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        return _DMTags(_Bounded(file, size), size).big_endian


def check_ser(path: Path) -> bool:
    """Look at the header and the first element of a SER file, and return False: its values are little-endian.

    Raises:
        ValueError: it holds no images, or more of them than the file has bytes for.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        source = _Bounded(file, size)
        order, _, version, kind, _, _, valid = source.unpack("<HHHIIII")
        if order != 0x4949 or kind != _SER_IMAGES:
            raise ValueError(f"byte order {order:#x} and data type {kind:#x}; expected images ({_SER_IMAGES:#x})")
        layout = "<I" if version <= 528 else "<Q"
        (offsets,) = source.unpack(layout)
        (dimensions,) = source.unpack("<I")
        if dimensions > MOST_DIMENSIONS:
            raise ValueError(f"{dimensions} dimensions")
        for _ in range(dimensions):
            source.skip(24)
            source.skip(source.unpack("<I")[0])
            source.skip(source.unpack("<I")[0])
        if not 0 < valid <= size or offsets + valid * struct.calcsize(layout) > size:
            raise ValueError(f"{valid} images, listed at byte {offsets} of {size}")
        file.seek(offsets)
        (first,) = struct.unpack(layout, file.read(struct.calcsize(layout)))
        if first + 50 > size:
            raise ValueError(f"an image at byte {first} of {size}")
        file.seek(first + 40)
        value, width, height = struct.unpack("<HII", file.read(10))
        if min(width, height) < 1 or valid * width * height * _SER_BYTES[value] > size:
            raise ValueError(f"{valid} images of {width} x {height} pixels in {size} bytes")
    return False


def check_emd(path: Path) -> bool:
    """Look at all datasets of an EMD file, which is HDF5, and return False: HDF5 turns bytes round itself.

    Raises:
        ValueError: one claims to be larger than its stored bytes allow.
    """
    import h5py

    def check(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            stored = item.id.get_storage_size()
            chunk = math.prod(item.chunks or (1,)) * item.dtype.itemsize
            if item.nbytes > max(WHOLE_BYTES, LARGEST_RATIO * stored) or chunk > max(
                WHOLE_BYTES, LARGEST_RATIO * stored
            ):
                raise ValueError(f"dataset '{name}' {item.shape} of {stored} stored bytes")

    with h5py.File(path, "r") as file:
        file.visititems(check)
    return False
