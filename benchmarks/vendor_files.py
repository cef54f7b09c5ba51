"""Minimal DM3, DM4 and SER files, written by hand: no library writes them."""

import struct

import numpy as np

_DM_DTYPES = {"int16": (1, 2), "float32": (2, 6), "uint8": (6, 8), "int32": (7, 3), "int8": (9, 9), "uint16": (10, 4)}
_DM_DTYPES |= {"uint32": (11, 5), "float64": (12, 7), "bool": (14, 8), "complex64": (3, 6)}
_SER_DTYPES = dict(
    zip(("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64"), range(1, 9), strict=True)
)


def dm_bytes(image: np.ndarray, pixel_size: float, unit: str = "nm", version: int = 4, order: str = "<") -> bytes:
    """Return a DM file with one image of two or three axes, and the same calibration along all of them."""
    wide = ">q" if version == 4 else ">i"

    def number(value: int) -> bytes:
        return struct.pack(wide, value)

    def entry(kind: int, name: str, content: bytes) -> bytes:
        length = number(len(content)) if version == 4 else b""
        return struct.pack(">Bh", kind, len(name)) + name.encode() + length + content

    def data(name: str, info: list[int], content: bytes) -> bytes:
        return entry(21, name, b"%%%%" + number(len(info)) + b"".join(number(item) for item in info) + content)

    def integer(name: str, value: int) -> bytes:
        return data(name, [5], struct.pack(f"{order}I", value))

    def real(name: str, value: float) -> bytes:
        return data(name, [6], struct.pack(f"{order}f", value))

    def text(name: str, value: str) -> bytes:
        units = [ord(letter) for letter in value]
        return data(name, [20, 4, len(units)], struct.pack(f"{order}{len(units)}H", *units))

    def group(name: str, *tags: bytes) -> bytes:
        head, content = b"\1\0", number(len(tags)) + b"".join(tags)
        if version == 4:  # sorted and open stand before the size of what follows
            return struct.pack(">Bh", 20, len(name)) + name.encode() + head + number(len(content)) + content
        return struct.pack(">Bh", 20, len(name)) + name.encode() + head + content

    code, kind = _DM_DTYPES[str(image.dtype)]
    pixels = image.astype(image.dtype.newbyteorder(order)).tobytes()
    lengths = [integer("", length) for length in image.shape[::-1]]
    calibration = [group("", real("Origin", 0.0), real("Scale", pixel_size), text("Units", unit)) for _ in image.shape]
    brightness = group("Brightness", real("Origin", 0.0), real("Scale", 1.0), text("Units", ""))
    image_data = group(
        "ImageData",
        group("Calibrations", brightness, group("Dimension", *calibration)),
        data("Data", [20, kind, image.size], pixels),
        integer("DataType", code),
        group("Dimensions", *lengths),
    )
    described = group("", image_data, group("ImageTags"), text("Name", "a micrograph"))
    root = b"\1\0" + number(1) + group("ImageList", described)
    return struct.pack(">i", version) + number(len(root)) + struct.pack(">i", int(order == "<")) + root


def ser_bytes(stack: np.ndarray, pixel_size: float) -> bytes:
    """Return a SER file with the images of a stack (count, height, width), pixel size in nm."""
    count, height, width = stack.shape
    dimension = struct.pack("<IddIII", count, 0.0, 1.0, 0, 0, 0)
    header_size = 26 + 4 + len(dimension)
    element_head = struct.pack("<ddIddI", 0.0, pixel_size * 1e-9, 0, 0.0, pixel_size * 1e-9, 0)
    element_head += struct.pack("<HII", _SER_DTYPES[str(stack.dtype)], width, height)
    elements, offsets = b"", []
    for image in stack:
        offsets.append(header_size + len(elements))
        # rows run from the bottom to the top; a tag with the time follows
        elements += element_head + image[::-1].tobytes() + struct.pack("<HHI", 0x4152, 0, 0)
    listed = header_size + len(elements)
    head = struct.pack("<HHHIIII", 0x4949, 0x0197, 0x0210, 0x4122, 0x4152, count, count)
    head += struct.pack("<II", listed, 1)
    return head + dimension + elements + struct.pack(f"<{2 * count}I", *offsets, *offsets)
