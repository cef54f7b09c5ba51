"""Pixel sizes as microscopes write them, units in all spellings, and what is no micrograph."""

import logging

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
from PIL import Image

from emfm import EMError, read_micrograph
from emfm.errors import UnsupportedFileError
from emfm.io.formats.planes import nanometres, pixel_side

PIXELS = np.arange(600, dtype=np.uint16).reshape(20, 30)
FEI = "[Beam]\r\nHV=5000\r\n[Scan]\r\nPixelWidth=3.3724e-9\r\nPixelHeight=3.3724e-9\r\n"
NAVCAM = "[Image]\r\nResolutionX=30\r\nResolutionY=20\r\n[IRBeam]\r\nHFW=0.003\r\nVFW=0.002\r\n"
JEOL = (
    "<TemReporter><Eos><EosMode>eosTEM</EosMode></Eos><ImageFormingSystem><ModeString>{}</ModeString>"
    "<SelectorValue>50000</SelectorValue></ImageFormingSystem></TemReporter>"
)


def tiff(path, tags, **settings):
    tifffile.imwrite(path, PIXELS, photometric="minisblack", extratags=tags, metadata=None, **settings)
    return read_micrograph(path)


def text(code, value):
    return code, "s", 0, value, True


@pytest.mark.parametrize(("content", "size"), [(FEI, 3.3724), (NAVCAM, 1e5)])
def test_thermo_fisher_states_the_pixel_in_metres_or_the_field_of_view(content, size, tmp_path):
    assert tiff(tmp_path / "a.tif", [text(34682, content)]).pixel_size == pytest.approx(size)


def zeiss(named="", side=2.614514e-06):
    unnamed = ["0", "0", "0", str(side), *["1"] * 12]
    return "\r\n".join([*unnamed, *named.splitlines()]) + "\r\n"


def test_zeiss_states_the_pixel_of_a_picture_1024_wide_whatever_is_stored(tmp_path):
    # the stored picture is 30 pixels wide: each is 1024 / 30 times as large
    assert tiff(tmp_path / "a.tif", [text(34118, zeiss())]).pixel_size == pytest.approx(2614.514 * 1024 / 30)
    named = zeiss("AP_IMAGE_PIXEL_SIZE\nImage Pixel Size = 12.33 nm")
    assert tiff(tmp_path / "b.tif", [text(34118, named)]).pixel_size == pytest.approx(12.33)


def test_digital_micrographs_export_has_tags_of_its_own(tmp_path):
    tags = [text(65003, "\\u00b5m"), text(65004, "\\u00b5m"), (65009, "d", 1, 0.2, True), (65010, "d", 1, 0.2, True)]
    assert tiff(tmp_path / "a.tif", tags, resolution=(72, 72), resolutionunit=2).pixel_size == pytest.approx(200)


def test_jeol_states_the_cameras_pixel_and_the_magnification(tmp_path):
    camera = {"resolution": (400, 400), "resolutionunit": 3}  # 25 um
    image = [text(271, "JEOL Ltd."), text(270, JEOL.format("MAG"))]
    assert tiff(tmp_path / "a.tif", image, **camera).pixel_size == pytest.approx(0.5)
    assert tiff(tmp_path / "b.tif", [image[0], text(270, JEOL.format("DIFF"))], **camera).pixel_size is None


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        *[(unit, 1.0) for unit in ("nm", "NM", " nm ", "nanometers", "Nanometre", "n_m", "[n_m]")],
        *[(unit, 1e3) for unit in ("um", "\u00b5m", "\u03bcm", "micron", "Microns", "micrometers", "\\u00b5m")],
        *[(unit, 0.1) for unit in ("A", "\u00c5", "\u212b", "Angstrom", "angstroms", "A\u030a")],
        *[("pm", 1e-3), ("mm", 1e6), ("cm", 1e7), ("m", 1e9), ("metres", 1e9), ("inch", 2.54e7)],
        *[(unit, None) for unit in ("1/nm", "1 / nm", "mrad", "px", "", None, "eV", "s")],
    ],
)
def test_units_are_known_in_every_spelling(unit, size):
    assert nanometres(1, unit) == (None if size is None else pytest.approx(size))


@pytest.mark.parametrize("side", [1e-4, 4.2e16])
def test_a_pixel_size_that_no_microscope_has_is_not_taken_and_said(side, caplog):
    with caplog.at_level(logging.WARNING):
        assert pixel_side(side, side, "a.ser") is None
    assert "a.ser: its header says" in caplog.text and "no microscope has" in caplog.text


def test_an_absurd_cell_of_an_mrc_file_is_no_pixel_size(tmp_path, caplog):
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(PIXELS.astype(np.int16))
        file.voxel_size = 1e10
    assert read_micrograph(tmp_path / "a.mrc").pixel_size is None and "no microscope has" in caplog.text


def emd(path, names, units, data=PIXELS):
    with h5py.File(path, "w") as file:
        file.attrs["version_major"], file.attrs["version_minor"] = 0, 2
        group = file.create_group("data/image")
        group.attrs["emd_group_type"] = 1
        group["data"] = data
        for number, (name, unit, length) in enumerate(zip(names, units, data.shape, strict=True), 1):
            axis = group.create_dataset(f"dim{number}", data=np.arange(length) * 0.25)
            axis.attrs["name"], axis.attrs["units"] = name, unit


@pytest.mark.parametrize("names", [("y", "x"), ("R_y", "R_x"), ("", ""), ("X", "Y")])
def test_emd_files_of_berkeley_are_images_whatever_their_axes_are_called(names, tmp_path):
    pytest.importorskip("rsciio")
    emd(tmp_path / "a.emd", names, ("n_m", "n_m"))
    found = read_micrograph(tmp_path / "a.emd")
    # rows are along the axis that is called y, else along the first
    np.testing.assert_array_equal(found.array, PIXELS.T if names == ("X", "Y") else PIXELS)
    assert found.pixel_size == pytest.approx(0.25) and sorted(found.axes) == ["X", "Y"]


def test_few_colours_in_a_palette_of_greys_are_annotations(tmp_path, caplog):
    palette = np.repeat(np.arange(256)[:, None], 3, axis=1)
    palette[250:] = (255, 255, 0)
    indices = np.arange(600).reshape(20, 30) % 256
    picture = Image.fromarray(indices.astype(np.uint8))
    picture = Image.frombytes("P", picture.size, picture.tobytes())
    picture.putpalette(palette.astype(np.uint8).tobytes())
    expected = np.where(indices < 250, indices, 226)  # the luminance of yellow
    for name in ("a.png", "a.tif"):
        picture.save(tmp_path / name)
        np.testing.assert_array_equal(read_micrograph(tmp_path / name).array, expected)
        assert f"{name}: 6 colours of a grey palette (annotations) are taken as grey" in caplog.text
    palette[100:] = (255, 255, 0)
    picture.putpalette(palette.astype(np.uint8).tobytes())
    picture.save(tmp_path / "b.png")
    with pytest.raises(EMError, match="a colour image"):
        read_micrograph(tmp_path / "b.png")


def test_a_palette_of_two_colours_is_read(tmp_path):
    bits = (PIXELS % 3 == 0).astype(np.uint8)
    picture = Image.frombytes("P", (30, 20), bits.tobytes())
    picture.putpalette([10, 10, 10, 200, 200, 200])
    picture.save(tmp_path / "a.tif", bits=1)
    picture.save(tmp_path / "a.png", bits=1)
    for name in ("a.tif", "a.png"):
        np.testing.assert_array_equal(read_micrograph(tmp_path / name).array, np.where(bits, 200, 10))


def test_what_is_not_supported_is_not_called_damaged(tmp_path):
    frames = [Image.fromarray(PIXELS.astype(np.uint8) + number) for number in range(2)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    np.save(tmp_path / "b.npy", PIXELS.astype(np.complex64))
    Image.new("CMYK", (8, 8)).save(tmp_path / "c.tif")
    for name, message in (("a.png", "an animation of 2 frames"), ("b.npy", "dtype complex64"), ("c.tif", "CMYK")):
        with pytest.raises(UnsupportedFileError, match=message) as raised:
            read_micrograph(tmp_path / name)
        assert "damaged" not in str(raised.value) and name in str(raised.value)
    tifffile.imwrite(tmp_path / "d.tif", PIXELS)
    (tmp_path / "d.tif").write_bytes((tmp_path / "d.tif").read_bytes()[:-40])
    with pytest.raises(EMError, match=r"d\.tif: .*damaged"):
        read_micrograph(tmp_path / "d.tif")
