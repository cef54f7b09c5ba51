"""Rows that would fill the memory or hold no image: an error that names dataset and row, before pixels are unpacked."""

import io
import lzma
import struct
import tracemalloc
import zlib

import datasets
import numpy as np
import pytest
import tifffile
from PIL import Image

from emfm import EMError, load_em_dataset
from emfm.data.hub_images import ImageStream, load_images
from emfm.data.unlabelled import open_micrographs
from emfm.io.image_header import MOST_BYTES, check_decodable
from emfm.pretraining.streamed_crops import StreamedCrops, held_out_of_stream

LITTLE = 30_000_000  # bytes that may be taken while a bomb is refused


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff(width: int, height: int, strip: bytes, compression: int = 8) -> bytes:
    """Return a TIFF file of one 8-bit strip that holds whatever it is told to."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, compression), (262, 3, 1), (273, 4, None)]
    tags += [(277, 3, 1), (278, 4, height), (279, 4, len(strip))]
    start = 8 + 2 + 12 * len(tags) + 4
    entries = [struct.pack("<HHII", tag, kind, 1, start if value is None else value) for tag, kind, value in tags]
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(entries) + bytes(4) + strip


def zeros(megabytes: int) -> bytes:
    """Return so many megabytes of zeros, deflated: the same block again and again, so that it is made at once."""
    packer = zlib.compressobj(9)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = zlib.compressobj(9, wbits=-15)
    repeated = again.compress(bytes(1 << 20)) + again.flush(zlib.Z_FULL_FLUSH)
    return block + repeated * (megabytes - 1)


JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
JPEG += b"\xff\xc0\x00\x0b\x08\xff\xff\xff\xff\x01\x01\x11\x00\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\xff\xd9"
BOMBS = {
    "PNG header": (lambda: png(100_000, 100_000), "claims 100000 x 100000 pixels"),
    "JPEG header": (lambda: JPEG, "claims more pixels"),
    "TIFF header": (lambda: tiff(100_000, 100_000, zlib.compress(bytes(1000))), "claims 100000 x 100000 pixels"),
    "deflated strip": (lambda: tiff(1000, 1000, zeros(1 + MOST_BYTES // 2**20)), "more than the 1,000,000 bytes"),
    "LZMA strip": (
        lambda: tiff(100, 100, lzma.compress(bytes(2 * 10**8), preset=0), 34925),
        "more than the 10,000 bytes",
    ),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_before_its_pixels_are_unpacked(kind):
    make, message = BOMBS[kind]
    content = make()
    assert len(content) < 3_000_000
    tracemalloc.start()
    try:
        with pytest.raises(EMError, match=r"^lab/x, row 3: ") as caught:
            check_decodable(content, "lab/x, row 3")
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert message in str(caught.value) and taken < LITTLE


def test_a_tile_larger_than_its_image_is_refused():
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((16, 16), np.uint8), tile=(16, 16))
    content = bytearray(file.getvalue())
    with tifffile.TiffFile(io.BytesIO(content)) as opened:
        for name in ("TileWidth", "TileLength"):
            tag = opened.pages.first.tags[name]
            size = "<I" if tag.dtype == 4 else "<H"
            struct.pack_into(size, content, tag.valueoffset, 65520)
    with pytest.raises(EMError, match="claims 65520 x 65520 pixels"):
        check_decodable(bytes(content), "row 1")


@pytest.mark.parametrize("content", [b"a text", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"II*\0nothing"])
def test_what_is_no_image_is_refused(content):
    with pytest.raises(EMError, match=r"row 1: the file is (not a|damaged or not a) PNG, JPEG or TIFF image"):
        check_decodable(content, "row 1")


def test_honest_files_pass_compressed_or_not():
    image = np.random.default_rng(0).integers(0, 2**16, (96, 80), dtype=np.uint16)
    for options in ({}, {"compression": "zlib"}, {"tile": (32, 32)}, {"bigtiff": True}, {"rowsperstrip": 7}):
        file = io.BytesIO()
        tifffile.imwrite(file, image, **options)
        check_decodable(file.getvalue(), "row 1")
    for format in ("PNG", "JPEG", "BMP"):
        file = io.BytesIO()
        Image.fromarray(image.astype(np.uint8)).save(file, format)
        check_decodable(file.getvalue(), "row 1")


def honest(index: int) -> dict:
    file = io.BytesIO()
    pixels = np.random.default_rng(index).integers(0, 255, (40, 40), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": f"{index}.png"}


BAD = {
    "bomb": ({"bytes": png(100_000, 100_000), "path": "bomb.png"}, r"\(bomb\.png\): the file claims 100000 x 100000"),
    "no image": (None, "the row holds no image"),
    "empty": ({"bytes": b"", "path": None}, "the row holds no image"),
    "text": ({"bytes": b"a text", "path": None}, "not a PNG, JPEG or TIFF image"),
    "lost file": ({"bytes": None, "path": "lost.png"}, r"\(lost\.png\): the row has no bytes, and its path cannot be"),
}


@pytest.fixture
def dataset(tmp_path):
    """Return a function that writes a dataset whose row 3 is bad, with masks or without."""

    def write(bad: dict | None, masks: bool) -> str:
        rows = {"image": [honest(index) for index in range(30)]}
        rows["image"][3] = bad
        if masks:
            blank = io.BytesIO()
            Image.fromarray(np.eye(40, dtype=np.uint8)).save(blank, "PNG")
            rows["mask"] = [{"bytes": blank.getvalue(), "path": None}] * 30
            (tmp_path / "labels.json").write_text('{"0": "background", "1": "line"}')
        features = datasets.Features({name: datasets.Image() for name in rows})
        datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "train-0.parquet"), batch_size=10)
        return str(tmp_path)

    return write


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_is_named_when_labelled_data_are_loaded_and_when_they_are_streamed(kind, dataset):
    bad, message = BAD[kind]
    folder = dataset(bad, masks=True)
    with pytest.raises(EMError, match=rf"{folder}, train, row 3, image.*{message}"):
        load_em_dataset(folder)
    stream = load_em_dataset(folder, streaming=True)
    assert len(stream.take(3)) == 3
    with pytest.raises(EMError, match=rf"{folder}, row 3, image.*{message}"):
        stream.take(10)
    with pytest.raises(EMError, match=rf"{folder}, sample \d+ of epoch 0, image.*{message}"):
        for epoch, _, _ in stream.epochs(0, 0, 1):
            assert epoch == 0


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_is_named_when_unlabelled_data_are_decoded_and_left_out_of_a_stream(kind, dataset, processor, caplog):
    bad, message = BAD[kind]
    folder = dataset(bad, masks=False)
    with pytest.raises(EMError, match=rf"{folder}, row 3, image.*{message}"):
        open_micrographs(folder, processor)
    stream = ImageStream(load_images(folder, streaming=True)[0], "lab/micrographs")
    held_out_of_stream(stream, processor)
    trained = []
    for crop in StreamedCrops(stream, processor, 32, 0):
        if crop["key"][0] == 1:
            break
        trained.append(int(crop["key"][1]))
    assert 20 < len(trained) < 30
    assert "left out: lab/micrographs, sample" in caplog.text or "left out of validation: lab/micr" in caplog.text


def test_a_stream_with_a_missing_column_says_what_it_has(dataset, tmp_path):
    dataset(honest(3), masks=False)
    with pytest.raises(EMError, match="has no column 'mask' or 'target' beside 'image'"):
        load_em_dataset(tmp_path, streaming=True)
    datasets.Dataset.from_dict({"image": ["a text", "b"]}).to_parquet(str(tmp_path / "train-0.parquet"))
    for streaming in (False, True):
        with pytest.raises(EMError, match="has no image column; its columns are image"):
            load_em_dataset(tmp_path, streaming=streaming)
        with pytest.raises(EMError, match="has no image column; its columns are image"):
            load_images(str(tmp_path), streaming)
