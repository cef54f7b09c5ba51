"""Ways in which a file is damaged: cut off, bits turned over, numbers made absurd, parts moved; all from a seed."""

import shutil
import zlib
from pathlib import Path

import numpy as np

ABSURD = (0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**64 - 1)
# Where headers are: most of the damage goes there, for damaged pixels are pixels all the same.
HEADER = 600


def damaged_copy(sound: Path, place: Path, rng: np.random.Generator) -> str:
    """Write a damaged copy of a file, or of a Zarr folder with one of its files damaged; returns what was done."""
    target = place
    if sound.is_dir():
        shutil.copytree(sound, place)
        files = sorted(path for path in place.rglob("*") if path.is_file())
        metadata = [path for path in files if path.name.startswith((".z", "zarr"))]
        target = files[rng.integers(len(files))] if rng.random() < 0.5 else metadata[rng.integers(len(metadata))]
        content = target.read_bytes()
    else:
        content = sound.read_bytes()
    ways = [_cut, _flip, _absurd, _absurd, _random, _zero, _repeat, _append]
    if content[:1] in (b"{", b"\x93"):
        ways += [_digits] * 4  # JSON and NPY headers hold numbers as text
    way = ways[rng.integers(len(ways))]
    damaged = way(bytearray(content), rng)
    if damaged[12:16] == b"IHDR" and rng.random() < 0.5:  # a header with the right checksum is believed
        damaged = damaged[:29] + zlib.crc32(damaged[12:29]).to_bytes(4, "big") + damaged[33:]
    target.write_bytes(damaged)
    return way.__name__.strip("_")


def _start(length: int, rng: np.random.Generator) -> int:
    """Return a place in the file, in the header or near the end for the most part."""
    where = rng.random()
    if where < 0.6:
        return int(rng.integers(min(length, HEADER)))
    return int(length - 1 - rng.integers(min(length, HEADER)) if where < 0.8 else rng.integers(length))


def _cut(content: bytearray, rng: np.random.Generator) -> bytes:
    return bytes(content[: rng.integers(len(content))])


def _flip(content: bytearray, rng: np.random.Generator) -> bytes:
    for _ in range(rng.integers(1, 17)):
        content[_start(len(content), rng)] ^= 1 << rng.integers(8)
    return bytes(content)


def _absurd(content: bytearray, rng: np.random.Generator) -> bytes:
    for _ in range(rng.integers(1, 4)):
        width = int(rng.choice((2, 4, 8)))
        value = int(ABSURD[rng.integers(len(ABSURD))]) % 2 ** (8 * width)
        place = _start(len(content), rng)
        if rng.random() < 0.7:
            place -= place % 2
        written = value.to_bytes(width, "little" if rng.random() < 0.6 else "big")
        content[place : place + width] = written[: len(content) - place]
    return bytes(content)


def _random(content: bytearray, rng: np.random.Generator) -> bytes:
    place = _start(len(content), rng)
    end = min(len(content), place + int(rng.integers(1, 64)))
    content[place:end] = rng.bytes(end - place)
    return bytes(content)


def _zero(content: bytearray, rng: np.random.Generator) -> bytes:
    place = _start(len(content), rng)
    end = min(len(content), place + int(rng.integers(1, 256)))
    content[place:end] = bytes(end - place)
    return bytes(content)


def _repeat(content: bytearray, rng: np.random.Generator) -> bytes:
    place, length = _start(len(content), rng), int(rng.integers(1, 200))
    part = content[place : place + length]
    target = _start(len(content), rng)
    content[target:target] = part * int(rng.integers(1, 4))
    return bytes(content)


def _append(content: bytearray, rng: np.random.Generator) -> bytes:
    return bytes(content) + rng.bytes(int(rng.integers(1, 5000)))


def _digits(content: bytearray, rng: np.random.Generator) -> bytes:
    """Put an absurd number in the place of one that is written as text."""
    digits = [place for place, byte in enumerate(content[:4000]) if 48 <= byte <= 57]
    if not digits:
        return _flip(content, rng)
    place = digits[rng.integers(len(digits))]
    value = int(ABSURD[rng.integers(len(ABSURD))]) * (-1 if rng.random() < 0.2 else 1)
    written = str(value).encode()
    if content[:1] == b"\x93":  # an NPY header keeps its length
        written = written[: len(content) - place]
        content[place : place + len(written)] = written
    else:
        content[place : place + 1] = written
    return bytes(content)
